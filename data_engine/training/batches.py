"""Batches for the two tokenizers: a step number in, padded features and labels out, the same ones every time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data_engine.core.config import Settings
from data_engine.training.speech.augment import AugmentSettings, disturbed, masked, warp_factor
from data_engine.training.speech.spoken import SAMPLE_RATE, Wave, resampled
from data_engine.training.speech.waves import PITCH_HOP, Part, Utterance

Floats = npt.NDArray[np.float32]
Features = Callable[[Wave], Floats]
UNKNOWN = -100
"""Label of a frame whose phone is not known."""

_POOL, _FEWEST = 64, 10


class BatchSettings(Settings):
    """What a batch is made of.

    Attributes:
        seconds: Padded audio of a batch.
        weights: Share of each part of the corpus in the seconds drawn.
        augment: Augmentation of all parts.
        longest: Seconds of the longest utterance that is used.
    """

    seconds: float = 27.0
    weights: dict[str, float]
    augment: AugmentSettings = AugmentSettings()
    longest: float = 14.0


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Padded arrays of one step.

    Attributes:
        features: float32 [utterances, frames, bands].
        lengths: Frames of each utterance.
        phones: Token ids to be found by CTC, one after the other.
        phone_counts: How many of them each utterance has.
        frames: Token id of each model frame or UNKNOWN, [utterances, model frames].
        pitch: log2 of F0 in Hz at the centre of each model frame, NaN where unvoiced or not known, the same shape.
        seconds: Audio without padding.
    """

    features: Floats
    lengths: npt.NDArray[np.int64]
    phones: npt.NDArray[np.int64]
    phone_counts: npt.NDArray[np.int64]
    frames: npt.NDArray[np.int64]
    pitch: Floats
    seconds: float


@dataclass(frozen=True, slots=True)
class Grid:
    """Where the frames of a model lie: features of a wave, samples per frame, centre of frame 0, frames in its input.

    Attributes:
        features: Wave to [input frames, bands].
        samples: Samples of a model frame.
        centre: Sample in the middle of model frame 0.
        subsampling: Input frames of a model frame.
    """

    features: Features
    samples: int
    centre: int
    subsampling: int

    def count(self, input_frames: int) -> int:
        """Returns the model frames of so many input frames."""
        return -(-input_frames // self.subsampling)


def frame_labels(utterance: Utterance, count: int, grid: Grid, factor: float) -> npt.NDArray[np.int64]:
    """Returns the token id at the centre of each model frame, UNKNOWN without times; beyond the end: the last phone."""
    if utterance.ends is None:
        return np.full(count, UNKNOWN, np.int64)
    centres = grid.centre + grid.samples * np.arange(count)
    found = np.searchsorted(utterance.ends * factor, centres, side="right")
    labels: npt.NDArray[np.int64] = utterance.phones[np.minimum(found, len(utterance.phones) - 1)]
    return labels


def frame_pitch(utterance: Utterance, count: int, grid: Grid, factor: float) -> Floats:
    """Returns log2 of F0 in Hz at the centre of each model frame; stretching to `factor` lowers it by that factor."""
    if utterance.pitch is None:
        return np.full(count, np.nan, np.float32)
    near = ((grid.centre + grid.samples * np.arange(count)) / (factor * PITCH_HOP)).astype(np.int64)
    found = utterance.pitch[np.minimum(near, len(utterance.pitch) - 1)] - np.log2(factor)
    return np.asarray(found, np.float32)


class Batches:
    """Draws batches.

    Args:
        parts: The corpus.
        settings: Weights and augmentation.
        grid: Of the model.
        seed: Of every draw.
    """

    def __init__(self, parts: Sequence[Part], settings: BatchSettings, grid: Grid, seed: int) -> None:
        self._parts, self._settings, self._grid, self._seed = list(parts), settings, grid, seed
        chances = np.concatenate([self._chances_of(part) for part in self._parts])
        self._cumulative = np.cumsum(chances / chances.sum())
        self._part = np.concatenate([np.full(len(part), number) for number, part in enumerate(self._parts)])
        self._index = np.concatenate([np.arange(len(part)) for part in self._parts])

    def _chances_of(self, part: Part) -> npt.NDArray[np.float64]:
        usable = (part.length <= self._settings.longest * SAMPLE_RATE).astype(np.float64)
        seconds = float((usable * part.length).sum())
        return usable * (self._settings.weights[part.name] / max(seconds, 1.0))

    def batch(self, step: int) -> Batch:
        """Returns the batch of a step."""
        rng = np.random.default_rng([self._seed, step])
        drawn = np.searchsorted(self._cumulative, rng.random(_POOL))
        lengths = np.array([self._parts[self._part[d]].length[self._index[d]] for d in drawn])
        order = np.argsort(lengths, kind="stable")
        # Where a batch begins is drawn by seconds: by number, short utterances would come too often.
        passed = np.cumsum(lengths[order])
        first = min(int(np.searchsorted(passed, rng.random() * passed[-1])), _POOL - _FEWEST)
        chosen: list[int] = []
        for position in order[first:]:
            if (len(chosen) + 1) * lengths[position] > self._settings.seconds * SAMPLE_RATE and chosen:
                break
            chosen.append(int(drawn[position]))
        return collate([self._example(d, rng) for d in chosen], self._grid)

    def _example(self, drawn: int, rng: np.random.Generator) -> tuple[Floats, Utterance, float]:
        utterance = self._parts[self._part[drawn]].utterance(int(self._index[drawn]))
        factor = warp_factor(self._settings.augment, rng)
        wave = utterance.wave if factor == 1 else resampled(utterance.wave, factor)
        features = self._grid.features(disturbed(wave, self._settings.augment, rng))
        masked(features, self._settings.augment, rng)
        return features, utterance, factor


def collate(examples: Sequence[tuple[Floats, Utterance, float]], grid: Grid) -> Batch:
    """Returns examples (features, utterance, factor on its times) padded into one batch."""
    lengths = np.array([len(features) for features, _, _ in examples], np.int64)
    padded = np.zeros((len(examples), int(lengths.max()), examples[0][0].shape[1]), np.float32)
    labels = np.full((len(examples), grid.count(int(lengths.max()))), UNKNOWN, np.int64)
    pitch = np.full(labels.shape, np.nan, np.float32)
    for number, (features, utterance, factor) in enumerate(examples):
        padded[number, : len(features)] = features
        count = grid.count(len(features))
        labels[number, :count] = frame_labels(utterance, count, grid, factor)
        pitch[number, :count] = frame_pitch(utterance, count, grid, factor)
    spoken = [utterance.spoken for _, utterance, _ in examples]
    seconds = sum(len(utterance.wave) * factor for _, utterance, factor in examples) / SAMPLE_RATE
    counts = np.array([len(phones) for phones in spoken], np.int64)
    return Batch(padded, lengths, np.concatenate(spoken), counts, labels, pitch, seconds)
