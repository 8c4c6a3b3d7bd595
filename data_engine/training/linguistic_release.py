"""Trains the linguistic tokenizer and turns it into what ships: FunASR folder, codebook, ONNX file, its figures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from data_engine.models.codec_views import nearest
from data_engine.models.fake_quant import put_on_grid
from data_engine.models.funasr_folder import CODEBOOK, write_funasr
from data_engine.models.linguistic_encoder import INPUT_SIZE, ExportedEncoder, LinguisticEncoder
from data_engine.models.onnx_storage import store_halves
from data_engine.models.phones import TOKENS
from data_engine.training import linguistic
from data_engine.training.batches import UNKNOWN, Batches, Floats
from data_engine.training.linguistic import GRID, LinguisticSettings, best_paths, network
from data_engine.training.loop import halve, load_weights
from data_engine.training.scoring import perplexity, phone_information
from data_engine.training.speech.waves import load
from data_engine.training.tokenizer_training import phone_error_rates, test_examples

NUM_CODES = 1024
_FIT_STEPS, _CHECK_STEPS, _FIRST_STEP = 260, 60, 10_000_000


def drawn_states(
    model: LinguisticEncoder, batches: Batches, steps: range
) -> Iterator[tuple[Floats, npt.NDArray[np.int64]]]:
    """Yields states [frames, size] and phone labels of the real frames of each drawn batch."""
    for step in steps:
        batch = batches.batch(step)
        states = model(torch.from_numpy(batch.features), torch.from_numpy(batch.lengths))[0].numpy()
        inside = np.arange(states.shape[1])[None] < batch.lengths[:, None]
        yield states[inside], batch.frames[inside]


def fit_codebook(states: Floats, seed: int) -> Floats:
    """Returns 1,024 centroids by k-means (Lloyd 1982), float32 [1024, size].

    Args:
        states: Encoder states [frames, size].
        seed: Of the choice of the first centroids.
    """
    from sklearn.cluster import KMeans

    fitted = KMeans(NUM_CODES, init="random", n_init=1, max_iter=25, algorithm="lloyd", random_state=seed).fit(states)
    centroids: Floats = fitted.cluster_centers_.astype(np.float32)
    return centroids


def codebook_figures(states: Floats, labels: npt.NDArray[np.int64], codebook: Floats) -> dict[str, float]:
    """Returns codes used, perplexity and PNMI over frames whose phone is known."""
    codes = nearest(states, codebook)
    known = labels != UNKNOWN
    return {
        "frames": len(codes), "codes_used": len(np.unique(codes)), "perplexity": round(perplexity(codes), 1),
        "pnmi": round(phone_information(labels[known], codes[known]), 4),
    }  # fmt: skip


def export_onnx(model: LinguisticEncoder, path: Path) -> None:
    """Writes the encoder as ONNX: features [1, frames, 560] to states and CTC log posteriors."""
    torch.onnx.export(
        ExportedEncoder(model).eval(), (torch.zeros(1, 100, INPUT_SIZE),), str(path), dynamo=False, opset_version=17,
        do_constant_folding=False,  # weights keep their names, `models.funasr_folder` reads them
        input_names=["features"], output_names=["states", "log_posteriors"],
        dynamic_axes={"features": {1: "frames"}, "states": {1: "frames"}, "log_posteriors": {1: "frames"}},
    )  # fmt: skip
    store_halves(path)


def train(config: LinguisticSettings) -> None:
    """Trains from scratch, or goes on from the checkpoint in `config.output`; writes `release` at the end."""
    linguistic.train(config)
    print(json.dumps(release(config, config.output / "release")), flush=True)


def release(config: LinguisticSettings, folder: Path) -> dict[str, object]:
    """Writes everything into `folder` and returns the figures."""
    torch.set_num_threads(1)
    model = network()
    load_weights(model, config.output)
    # 8-bit weights of this encoder change 0.4 % of the codes, those of the same moved to a grid none.
    if config.weights_on_grid:
        put_on_grid(model)
    halve(model.eval())
    fitted = config.codebook or config.batches
    plain = fitted.model_copy(update={"augment": fitted.augment.model_copy(update={"mask": 0.0})})
    batches = Batches(load(config.cache, list(plain.weights)), plain, GRID, config.loop.seed)
    with torch.inference_mode():
        fit = [s for s, _ in drawn_states(model, batches, range(_FIRST_STEP, _FIRST_STEP + _FIT_STEPS))]
        codebook = fit_codebook(np.concatenate(fit), config.loop.seed)
        check = range(_FIRST_STEP + _FIT_STEPS, _FIRST_STEP + _FIT_STEPS + _CHECK_STEPS)
        states, labels = (np.concatenate(parts) for parts in zip(*drawn_states(model, batches, check), strict=True))
        examples = test_examples(load(config.cache, config.tests), GRID, 1000)
        rates = phone_error_rates(examples, lambda features: best_paths(model, features))
    write_funasr(model, TOKENS, folder)
    np.save(folder / CODEBOOK, codebook)
    export_onnx(model, folder / "encoder.onnx")
    figures: dict[str, object] = {"phone_error_rate": rates, "codebook": codebook_figures(states, labels, codebook)}
    (folder / "figures.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
    return figures
