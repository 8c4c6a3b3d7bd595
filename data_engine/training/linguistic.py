"""Trains the linguistic tokenizer and recognizer: `train(config)`, then the codebook on its states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from data_engine.models.kaldi_fbank import CODE_SAMPLES, kaldi_fbank, low_frame_rate
from data_engine.models.linguistic_encoder import ENCODER, LinguisticEncoder
from data_engine.models.phones import TOKENS
from data_engine.training.batches import Batch, Batches, BatchSettings, Floats, Grid
from data_engine.training.loop import Training
from data_engine.training.speech.waves import load
from data_engine.training.tokenizer_training import (
    TokenizerSettings,
    phone_error_rates,
    phone_losses,
    test_examples,
)

GRID = Grid(lambda wave: low_frame_rate(kaldi_fbank(wave)), CODE_SAMPLES, 200, 1)
"""Model frame n is centred on sample 960 n + 200: the middle of the 25 ms frame it is stacked around."""

_STATISTICS_BATCHES = 40
_TEST_BATCH = 8


class LinguisticSettings(TokenizerSettings):
    """A training of the linguistic tokenizer.

    Attributes:
        codebook: What the codebook is fitted to; the training batches when not given.
    """

    codebook: BatchSettings | None = None


def network() -> LinguisticEncoder:
    """Returns an untrained model."""
    return LinguisticEncoder(len(TOKENS), ENCODER)


def set_statistics(model: LinguisticEncoder, batches: Batches) -> None:
    """Sets the normalisation of the features from the first batches: minus the mean, one over the deviation."""
    drawn = [batches.batch(step) for step in range(_STATISTICS_BATCHES)]
    rows = np.concatenate([f[:n] for batch in drawn for f, n in zip(batch.features, batch.lengths, strict=True)])
    model.mean.copy_(torch.from_numpy(-rows.mean(0)))
    model.scale.copy_(torch.from_numpy(1 / (rows.std(0) + 1e-5)))


def losses_of(model: LinguisticEncoder, batch: Batch, weights: tuple[float, float]) -> dict[str, Tensor]:
    """Returns the weighted losses of a batch."""
    with torch.autocast("cpu", torch.bfloat16):
        _, ctc, frames = model(torch.from_numpy(batch.features), torch.from_numpy(batch.lengths))
    return phone_losses(ctc, frames, batch, GRID, weights)


def best_paths(model: LinguisticEncoder, features: Sequence[Floats]) -> list[npt.NDArray[np.int64]]:
    """Returns the best CTC token of each frame of each utterance."""
    paths: list[npt.NDArray[np.int64]] = []
    for start in range(0, len(features), _TEST_BATCH):
        chosen = features[start : start + _TEST_BATCH]
        lengths = torch.tensor([len(rows) for rows in chosen])
        padded = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(rows) for rows in chosen], batch_first=True)
        best = model(padded, lengths)[1].argmax(-1).numpy()
        paths += [row[: len(rows)] for row, rows in zip(best, chosen, strict=True)]
    return paths


def train(config: LinguisticSettings) -> None:
    """Trains from scratch, or goes on from the checkpoint in `config.output`."""
    torch.set_num_threads(1)
    torch.manual_seed(config.loop.seed)
    batches = Batches(load(config.cache, list(config.batches.weights)), config.batches, GRID, config.loop.seed)
    model = network()
    training = Training(model, config.output, config.loop)
    if not training.resume():
        set_statistics(model, batches)
    examples = test_examples(load(config.cache, config.tests), GRID, config.test_utterances)

    def step(number: int) -> tuple[dict[str, Tensor], float]:
        batch = batches.batch(number)
        return losses_of(model, batch, (config.ctc, config.frames)), batch.seconds

    def evaluate() -> dict[str, Any]:
        return phone_error_rates(examples, lambda features: best_paths(model, features))

    training.run(step, evaluate)
