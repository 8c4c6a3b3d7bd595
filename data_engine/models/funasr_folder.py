"""Writes a linguistic encoder as a folder that `funasr.AutoModel` loads: a Paraformer without decoder, CTC only.

`python -m data_engine.models.funasr_folder SOURCE TARGET` makes one of the shipped `encoder.int8.onnx` and
`tokens.json`, and puts the codebook beside it: what codec `step-audio` takes as `linguistic`.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import yaml

from data_engine.models.kaldi_fbank import BANDS, LFR_STACK, LFR_STEP, SAMPLE_RATE
from data_engine.models.linguistic_encoder import ENCODER, INPUT_SIZE, LinguisticEncoder
from data_engine.models.onnx_weights import stored_weights

CODEBOOK = "linguistic_tokenizer.npy"


def write_funasr(model: LinguisticEncoder, tokens: Sequence[str], folder: Path) -> None:
    """Writes config.yaml, model.pt, am.mvn, tokens.json and configuration.json.

    Args:
        model: Trained.
        tokens: Tokens of the CTC head, blank first.
        folder: Made when absent.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value for name, value in model.state_dict().items() if name.startswith("encoder.")}
    weights |= {"ctc.ctc_lo.weight": model.ctc.weight.detach(), "ctc.ctc_lo.bias": model.ctc.bias.detach()}
    torch.save({name: value.clone() for name, value in weights.items()}, folder / "model.pt")
    (folder / "config.yaml").write_text(yaml.safe_dump(_config(), sort_keys=False), encoding="utf-8")
    (folder / "tokens.json").write_text(json.dumps(list(tokens), indent=1), encoding="utf-8")
    (folder / "am.mvn").write_text(mean_and_scale(model.mean.numpy(), model.scale.numpy()), encoding="utf-8")
    paths = {"init_param": "model.pt", "config": "config.yaml", "tokenizer_conf": {"token_list": "tokens.json"},
             "frontend_conf": {"cmvn_file": "am.mvn"}}  # fmt: skip
    document = {"framework": "pytorch", "task": "auto-speech-recognition", "model": {"type": "funasr"}}
    text = json.dumps(document | {"file_path_metas": paths}, indent=1)
    (folder / "configuration.json").write_text(text, encoding="utf-8")


def read_onnx(path: Path) -> LinguisticEncoder:
    """Returns the model of an exported encoder; its frame head, which only training needs, stays as it was drawn."""
    found = {
        name.removeprefix("model."): torch.from_numpy(np.array(values)) for name, values in stored_weights(path).items()
    }
    model = LinguisticEncoder(len(found["ctc.bias"]), ENCODER)
    model.load_state_dict({**model.state_dict(), **found})
    return model.eval()


def _config() -> dict[str, Any]:
    frontend = {
        "fs": SAMPLE_RATE, "window": "hamming", "n_mels": BANDS, "frame_length": 25, "frame_shift": 10,
        "lfr_m": LFR_STACK, "lfr_n": LFR_STEP, "dither": 0.0,
    }  # fmt: skip
    return {
        "model": "Paraformer", "model_conf": {"ctc_weight": 1.0, "length_normalized_loss": True},
        "encoder": "SANMEncoder", "encoder_conf": ENCODER, "ctc_conf": {"dropout_rate": 0.0},
        "frontend": "WavFrontend", "frontend_conf": frontend, "input_size": INPUT_SIZE,
        "tokenizer": "CharTokenizer", "tokenizer_conf": {"unk_symbol": "<unk>", "split_with_space": True},
    }  # fmt: skip


def mean_and_scale(mean: npt.NDArray[np.float32], scale: npt.NDArray[np.float32]) -> str:
    """Returns the text of `am.mvn`, Kaldi's nnet of a shift and a rescaling, float32 [560] each."""

    def component(name: str, values: npt.NDArray[np.float32]) -> str:
        numbers = " ".join(f"{value:.8g}" for value in values)
        return f"<{name}> {len(values)} {len(values)}\n<LearnRateCoef> 0 [ {numbers} ]\n"

    return f"<Nnet>\n{component('AddShift', mean)}{component('Rescale', scale)}</Nnet>\n"


def main() -> None:
    """Runs `python -m data_engine.models.funasr_folder SOURCE TARGET`."""
    parser = argparse.ArgumentParser(description="Writes a FunASR folder from an exported linguistic encoder.")
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--encoder", default="encoder.int8.onnx", help="file in SOURCE")
    arguments = parser.parse_args()
    tokens = json.loads((arguments.source / "tokens.json").read_text(encoding="utf-8"))
    write_funasr(read_onnx(arguments.source / arguments.encoder), tokens, arguments.target)
    shutil.copyfile(arguments.source / CODEBOOK, arguments.target / CODEBOOK)


if __name__ == "__main__":
    main()
