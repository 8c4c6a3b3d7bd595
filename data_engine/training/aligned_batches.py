"""Batches of utterances whose phone times are known, joined with pauses between them, for the training of aligners."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data_engine.core.config import Settings
from data_engine.models.neufa_features import HOP, normalised_mel
from data_engine.models.phones import PAUSE, TOKEN_IDS
from data_engine.training.speech.augment import AugmentSettings, disturbed, warp_factor
from data_engine.training.speech.spoken import SAMPLE_RATE, Wave, resampled
from data_engine.training.speech.waves import Part, Utterance

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
NO_FRAME = -100
"""Label of a frame beyond the end of its utterance."""

_PAUSE_ID = TOKEN_IDS[PAUSE]


class AlignedSettings(Settings):
    """What a batch is made of.

    Attributes:
        seconds: Padded audio of a batch.
        weights: Share of each part of the corpus.
        joined: Chance of one, two and three utterances in a row.
        pause: Most seconds of silence put before, between and after them.
        pool: Examples that a batch of similar lengths is chosen from.
        augment: Of channel, room, noise and tempo.
    """

    seconds: float = 100.0
    weights: dict[str, float]
    joined: tuple[float, float, float] = (0.8, 0.15, 0.05)
    pause: float = 0.6
    pool: int = 64
    augment: AugmentSettings = AugmentSettings(mask=0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Timed:
    """A wave at 16 kHz, its phones without pauses, and first and after-last sample of each, int64 [phones, 2]."""

    wave: Wave
    phones: Ints
    times: Ints


@dataclass(frozen=True, slots=True, eq=False)
class AlignedBatch:
    """Padded arrays.

    Attributes:
        mel: [utterances, frames, 40].
        lengths: Frames of each.
        phones: Token ids, [utterances, phones]; 0 beyond the end.
        counts: Phones of each.
        labels: Which phone each frame is in, [utterances, frames]: its position, `counts` in a pause, NO_FRAME.
        seconds: Audio without padding.
    """

    mel: Floats
    lengths: Ints
    phones: Ints
    counts: Ints
    labels: Ints
    seconds: float


def timed(utterance: Utterance, factor: float = 1.0) -> Timed:
    """Returns an utterance with known times, stretched to `factor` times its length."""
    assert utterance.ends is not None, "its times must be known"
    edges = np.concatenate([[0], np.rint(utterance.ends * factor).astype(np.int64)])
    said = utterance.phones != _PAUSE_ID
    wave = utterance.wave if factor == 1 else resampled(utterance.wave, factor)
    return Timed(wave, utterance.phones[said], np.stack([edges[:-1], edges[1:]], axis=1)[said])


def joined(pieces: Sequence[Timed], pauses: Sequence[int]) -> Timed:
    """Returns pieces one after the other with silence before, between and after them, in samples."""
    starts = np.cumsum([pause + len(piece.wave) for pause, piece in zip(pauses[:-1], pieces, strict=True)])
    starts = starts - [len(piece.wave) for piece in pieces]
    wave = np.zeros(int(starts[-1]) + len(pieces[-1].wave) + pauses[-1], np.float32)
    for start, piece in zip(starts, pieces, strict=True):
        wave[start : start + len(piece.wave)] = piece.wave
    times = np.concatenate([piece.times + start for start, piece in zip(starts, pieces, strict=True)])
    return Timed(wave, np.concatenate([piece.phones for piece in pieces]), times)


def frame_labels(times: Ints, count: int) -> Ints:
    """Returns the position of the phone at the centre of each frame, the number of phones in pauses."""
    centres = HOP * np.arange(count)
    found = np.searchsorted(times[:, 0], centres, side="right") - 1
    inside = (found >= 0) & (centres < times[np.maximum(found, 0), 1])
    return np.asarray(np.where(inside, found, len(times)), np.int64)


def collate(examples: Sequence[tuple[Floats, Timed]]) -> AlignedBatch:
    """Returns examples of (mel, utterance) padded into one batch."""
    lengths = np.array([len(mel) for mel, _ in examples], np.int64)
    counts = np.array([len(said.phones) for _, said in examples], np.int64)
    mels = np.zeros((len(examples), int(lengths.max()), examples[0][0].shape[1]), np.float32)
    phones = np.zeros((len(examples), int(counts.max())), np.int64)
    labels = np.full(mels.shape[:2], NO_FRAME, np.int64)
    for row, (mel, said) in enumerate(examples):
        mels[row, : len(mel)], phones[row, : len(said.phones)] = mel, said.phones
        labels[row, : len(mel)] = frame_labels(said.times, len(mel))
    seconds = sum(len(said.wave) for _, said in examples) / SAMPLE_RATE
    return AlignedBatch(mels, lengths, phones, counts, labels, seconds)


class AlignedBatches:
    """Draws batches: a step number in, the same batch every time.

    Args:
        parts: With known phone times.
        settings: What batches are made of.
        seed: Of every draw.
    """

    def __init__(self, parts: Sequence[Part], settings: AlignedSettings, seed: int) -> None:
        self._parts, self._settings, self._seed = list(parts), settings, seed
        shares = np.array([settings.weights[part.name] for part in parts])
        self._shares = shares / shares.sum()

    def batch(self, step: int) -> AlignedBatch:
        """Returns the batch of a step: neighbours in length out of a pool, as many as fit."""
        rng = np.random.default_rng([self._seed, step])
        drawn = [self._draw(rng) for _ in range(self._settings.pool)]
        lengths = np.array([sum(self._length(piece) for piece in pieces) for pieces in drawn])
        order = np.argsort(lengths, kind="stable")
        passed = np.cumsum(lengths[order])
        first = min(int(np.searchsorted(passed, rng.random() * passed[-1])), len(drawn) - 1 - len(drawn) // 6)
        chosen = [order[first]]
        for position in order[first + 1 :]:
            if (len(chosen) + 1) * lengths[position] > self._settings.seconds * SAMPLE_RATE:
                break
            chosen.append(position)
        return collate([self._example(drawn[number], rng) for number in chosen])

    def _draw(self, rng: np.random.Generator) -> list[tuple[int, int]]:
        number = int(rng.choice(len(self._parts), p=self._shares))
        pieces = 1 + int(rng.choice(3, p=self._settings.joined))
        return [(number, int(index)) for index in rng.integers(len(self._parts[number]), size=pieces)]

    def _length(self, piece: tuple[int, int]) -> int:
        return int(self._parts[piece[0]].length[piece[1]])

    def _example(self, pieces: Sequence[tuple[int, int]], rng: np.random.Generator) -> tuple[Floats, Timed]:
        settings = self._settings.augment
        factor = warp_factor(settings, rng)
        said = [timed(self._parts[number].utterance(index), factor) for number, index in pieces]
        pauses = (rng.random(len(said) + 1) ** 2 * self._settings.pause * SAMPLE_RATE).astype(np.int64)
        whole = joined(said, pauses.tolist())
        return normalised_mel(disturbed(whole.wave, settings, rng)), whole
