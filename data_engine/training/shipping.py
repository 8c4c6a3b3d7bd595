"""Collects what the trainings wrote into the folders that ship, with the pictures of their losses.

The float files of the codec stay together in `codec_nano` beside the trainings; 8-bit variants of all of them ship.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from data_engine.backends.codec_nano import DECODER, ENCODER, SEMANTIC, VOCODER
from data_engine.models.onnx_weights import store_weights_as_bytes
from data_engine.training.curves import draw
from data_engine.training.quantise import quantise

CODEC = {
    "linguistic": ("release/encoder.onnx", "release/linguistic_tokenizer.npy", "release/tokens.json"),
    "semantic": ("speech_tokenizer_v1.onnx",),
    "decoder": ("decoder.onnx",),
    "vocoder": ("vocoder.onnx",),
}
"""Training -> the files of the codec it makes."""

SPEAKER = "speaker-lm"
ALIGNER = "neufa"


def ship(trained: Path, assets: Path) -> Iterator[str]:
    """Copies what is finished and yields a line for the model card per file: its name, size and hash.

    Args:
        trained: Folder of the trainings, `out/training`.
        assets: `data_engine/assets`.
    """
    floats, shipped = trained / "codec_nano", assets / "codec_nano"
    for name, files in CODEC.items():
        if all((trained / name / file).is_file() for file in files):
            for file in files:
                _copy(trained / name / file, floats / Path(file).name)
            shipped.mkdir(parents=True, exist_ok=True)
            draw(trained / name, shipped / f"{name}.png", name)
    if all((floats / name).is_file() for name in (ENCODER, SEMANTIC)):
        quantise(floats)
    for path in sorted(floats.glob("*")):
        if path.name in (DECODER, VOCODER):
            store_weights_as_bytes(path, shipped / path.name)
            yield _described(shipped / path.name)
        elif path.name not in (ENCODER, SEMANTIC):
            yield _copy(path, shipped / path.name)
    released = trained / SPEAKER / "release"
    for path in sorted(released.glob("*")):
        yield _copy(path, assets / "speaker_lm" / path.name)
    if released.is_dir():
        draw(trained / SPEAKER, assets / "speaker_lm" / "losses.png", SPEAKER)
    if (trained / ALIGNER / "aligner.onnx").is_file():
        yield _copy(trained / ALIGNER / "aligner.onnx", assets / "aligner_neufa" / "aligner.onnx")
        draw(trained / ALIGNER, assets / "aligner_neufa" / f"{ALIGNER}.png", f"{ALIGNER} (held out: mean error in s)")


def _copy(source: Path, target: Path) -> str:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    return _described(target)


def _described(target: Path) -> str:
    content = target.read_bytes()
    return f"| `{target.name}` | {len(content) / 1e6:.2f} MB | `{hashlib.sha256(content).hexdigest()}` |"


def main() -> None:
    """Runs `python -m data_engine.training.shipping TRAINED ASSETS`."""
    parser = argparse.ArgumentParser(description="Copies finished models into the folders that ship.")
    parser.add_argument("trained", type=Path)
    parser.add_argument("assets", type=Path)
    arguments = parser.parse_args()
    for line in ship(arguments.trained, arguments.assets):
        print(line)


if __name__ == "__main__":
    main()
