"""What the two tokenizers share in training: their configuration, the phone losses and the phone error rates."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from data_engine.core.config import Settings
from data_engine.models.codec_views import normalise_peak
from data_engine.models.phones import PAUSE, SPECIALS, TOKEN_IDS
from data_engine.training.batches import UNKNOWN, Batch, BatchSettings, Floats, Grid
from data_engine.training.loop import LoopSettings
from data_engine.training.scoring import collapsed, error_rate
from data_engine.training.speech.waves import Part, Utterance

BestPath = Callable[[Sequence[Floats]], list[npt.NDArray[np.int64]]]
"""Features of utterances to the best token of each frame of each."""

_SILENT = [TOKEN_IDS[name] for name in (*SPECIALS, PAUSE, "<unk>")]
_SMOOTHING = 0.05


class TokenizerSettings(Settings):
    """What the trainings of both tokenizers are told.

    Attributes:
        output: Folder of checkpoint, logs and the finished model.
        cache: Folder that `data_engine.training.speech.waves` made.
        batches: What batches are made of.
        loop: How long and how fast.
        ctc: Weight of the CTC loss per phone.
        frames: Weight of the cross-entropy of frames.
        tests: Parts that test.
        test_utterances: Most utterances of a source that are tested while training.
        weights_on_grid: Moves the weights that ship to a grid of 8 bits, so that `training.quantise` changes no code.
    """

    output: Path
    cache: Path
    batches: BatchSettings
    loop: LoopSettings = LoopSettings()
    ctc: float = 0.5
    frames: float = 1.0
    tests: tuple[str, ...] = ("test_teachers", "test_zh", "test_ocean", "test_real")
    test_utterances: int = 60
    weights_on_grid: bool = False


def phone_losses(
    ctc_logits: Tensor, frame_logits: Tensor, batch: Batch, grid: Grid, weights: tuple[float, float]
) -> dict[str, Tensor]:
    """Returns CTC per phone and the cross-entropy per labelled frame, weighted.

    Args:
        ctc_logits: [utterances, model frames, tokens].
        frame_logits: The same shape.
        batch: Labels.
        grid: Of the model.
        weights: Of CTC and of frames.
    """
    posteriors = torch.log_softmax(ctc_logits.float(), dim=-1).transpose(0, 1)
    counts = torch.from_numpy(np.array([grid.count(int(length)) for length in batch.lengths]))
    phones, phone_counts = torch.from_numpy(batch.phones), torch.from_numpy(batch.phone_counts)
    ctc = functional.ctc_loss(posteriors, phones, counts, phone_counts, reduction="sum", zero_infinity=True)
    labels = torch.from_numpy(batch.frames)
    frames = functional.cross_entropy(
        frame_logits.float().flatten(0, 1), labels.flatten(), ignore_index=UNKNOWN, label_smoothing=_SMOOTHING,
        reduction="sum",
    )  # fmt: skip
    known = max(int((batch.frames != UNKNOWN).sum()), 1)
    return {"ctc": weights[0] * ctc / max(len(batch.phones), 1), "frames": weights[1] * frames / known}


def test_examples(parts: Sequence[Part], grid: Grid, most: int) -> dict[str, list[tuple[Floats, Utterance]]]:
    """Returns features and utterances of the test parts by source, at most so many of each, evenly chosen."""
    examples: dict[str, list[tuple[Floats, Utterance]]] = defaultdict(list)
    for part, index in _chosen(parts, most):
        utterance = part.utterance(index)
        name = f"{part.name}/{part.sources[part.source[index]]}" if part.name != "test_real" else part.name
        examples[name].append((grid.features(normalise_peak(utterance.wave)), utterance))
    return dict(examples)


def _chosen(parts: Sequence[Part], most: int) -> Iterator[tuple[Part, int]]:
    for part in parts:
        groups = [np.arange(len(part))] if part.name == "test_real" else [
            np.flatnonzero(part.source == number) for number in range(len(part.sources))
        ]  # fmt: skip
        for group in groups:
            picked = np.unique(np.linspace(0, len(group) - 1, min(most, len(group))).astype(int))
            yield from ((part, int(group[position])) for position in picked)


def phone_error_rates(examples: dict[str, list[tuple[Floats, Utterance]]], best_path: BestPath) -> dict[str, float]:
    """Returns the phone error rate of each test source; pauses do not count."""
    rates = {}
    for name, pairs in examples.items():
        hypotheses = [collapsed(path, _SILENT) for path in best_path([features for features, _ in pairs])]
        rates[name] = round(error_rate([utterance.spoken for _, utterance in pairs], hypotheses), 4)
    return rates
