"""Linear probes of single codes (PAPERS S1a, accept b): phones from vq02, pitch and energy from vq06.

A linear probe on the one-hot code has a closed form: the most frequent phone of each code, and the mean of each code.
No embedding of a code can do better in a linear probe.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data_engine.backends.protocols import CodeStreams
from data_engine.models.pitch import fundamental_frequency
from data_engine.training.batches import Grid, frame_labels
from data_engine.training.evaluation.bench import Bench
from data_engine.training.evaluation.figures import Found, Statistic, Weights, ratio_of
from data_engine.training.evaluation.utterances import Spoken
from data_engine.training.linguistic import GRID as LINGUISTIC_GRID
from data_engine.training.semantic import GRID as SEMANTIC_GRID
from data_engine.training.speech.spoken import SAMPLE_RATE

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_HOP = SAMPLE_RATE // 100
_FLOOR = 1e-4
_SHRINKAGE = 1.0
_READ = ("pitch", "intonation", "energy")
_STREAMS = (("vq02", LINGUISTIC_GRID, 1024), ("vq06", SEMANTIC_GRID, 4096))


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """Codes of one stream with what is to be read from them.

    Attributes:
        codes: Code of each frame.
        phones: Its phone.
        pitch: log2 of F0 in Hz, NaN where unvoiced.
        intonation: The same, over the median of its utterance.
        energy: log of the RMS level of its span.
        owners: Number of the utterance.
        size: Of the codebook.
    """

    codes: Ints
    phones: Ints
    pitch: Floats
    intonation: Floats
    energy: Floats
    owners: Ints
    size: int


def linear(bench: Bench) -> dict[str, Found]:
    """Returns by how much vq02 leads on phones, and vq06 on pitch and energy, on held-out utterances.

    Details also hold the R2 of intonation: pitch without what it says about the speaker.
    """
    spoken, streams = bench.probes
    every = bench.settings.probes.held_out
    tests = np.arange(len(spoken)) % every == 0
    prosody = [prosody_of(one) for one in spoken]
    right, total, parts = {}, {}, {}
    for name, grid, size in _STREAMS:
        frames = frames_of(spoken, streams, prosody, name, grid, size)
        test = tests[frames.owners]
        right[name], total[name] = phone_hits(frames, test, len(spoken))
        parts[name] = {key: explained(frames, getattr(frames, key), test) for key in _READ}
    tested = np.flatnonzero(tests)
    accuracy = {name: ratio_of(right[name][tested], total[name][tested]) for name in right}
    ones = np.ones(len(tested))
    shown = {name: round(accuracy[name](ones), 4) for name in accuracy}
    scores = {f"{name}_{key}": round(parts[name][key](_spread(ones, tested, len(spoken))), 4)
              for name in parts for key in parts[name]}  # fmt: skip

    def lead(weights: Weights) -> float:
        spread = _spread(weights, tested, len(spoken))
        gains = [parts["vq06"][key](spread) - parts["vq02"][key](spread) for key in ("pitch", "energy")]
        return float(np.mean(gains))

    return {
        "phones": bench.found(lambda w: accuracy["vq02"](w) - accuracy["vq06"](w), len(tested), accuracy=shown),
        "prosody": bench.found(lead, len(tested), r2=scores),
    }


def _spread(weights: Weights, chosen: Ints, count: int) -> Weights:
    spread = np.zeros(count)
    spread[chosen] = weights
    return spread


def prosody_of(one: Spoken) -> tuple[Floats, Floats]:
    """Returns log2 F0 every 10 ms, NaN where unvoiced, and squared samples summed up to each sample."""
    hertz = fundamental_frequency(one.wave, SAMPLE_RATE)
    pitch = np.log2(np.where(hertz > 0, hertz, np.nan))
    return pitch, np.concatenate([[0.0], np.cumsum(np.square(one.wave, dtype=np.float64))])


def frames_of(
    spoken: list[Spoken], streams: list[CodeStreams], prosody: list[tuple[Floats, Floats]], name: str, grid: Grid,
    size: int,
) -> Frames:  # fmt: skip
    """Returns all frames of one stream."""
    codes = [getattr(stream, name).astype(np.int64) for stream in streams]
    phones = [frame_labels(one.utterance, len(c), grid, 1.0) for one, c in zip(spoken, codes, strict=True)]
    measured = [_at_centres(*pair, len(c), grid) for pair, c in zip(prosody, codes, strict=True)]
    owners = np.repeat(np.arange(len(codes)), [len(c) for c in codes])
    pitch, energy = (np.concatenate(columns) for columns in zip(*measured, strict=True))
    middle = np.array([np.median(p[np.isfinite(p)]) if np.isfinite(p).any() else np.nan for p, _ in measured])
    return Frames(
        np.concatenate(codes), np.concatenate(phones), pitch, pitch - middle[owners], energy, owners, size
    )  # fmt: skip


def _at_centres(pitch: Floats, squares: Floats, count: int, grid: Grid) -> tuple[Floats, Floats]:
    centres = grid.centre + grid.samples * np.arange(count)
    last = len(squares) - 1
    edges = [np.clip(centres + side * grid.samples // 2, 0, last) for side in (-1, 1)]
    level = (squares[edges[1]] - squares[edges[0]]) / np.maximum(edges[1] - edges[0], 1)
    near = np.clip(centres // _HOP, 0, max(len(pitch) - 1, 0))
    return (pitch[near] if len(pitch) else np.full(count, np.nan)), np.log(np.sqrt(np.maximum(level, 0)) + _FLOOR)


def phone_hits(frames: Frames, test: npt.NDArray[np.bool_], utterances: int) -> tuple[Floats, Floats]:
    """Returns rightly told frames and frames of each utterance; each code tells its most frequent phone in training."""
    counts = np.zeros((frames.size, int(frames.phones.max()) + 1))
    np.add.at(counts, (frames.codes[~test], frames.phones[~test]), 1)
    # A code that training never met tells the most frequent phone of all.
    counts += counts.sum(0) / max(counts.sum(), 1) * 1e-3
    right = (counts.argmax(1)[frames.codes] == frames.phones).astype(np.float64)
    told: Floats = np.bincount(frames.owners[test], right[test], utterances).astype(np.float64)
    return told, np.bincount(frames.owners[test], minlength=utterances).astype(np.float64)


def explained(frames: Frames, values: Floats, test: npt.NDArray[np.bool_]) -> Statistic:
    """Returns the statistic R2, on held-out frames, of each code's mean value in training (ridge on the one-hot code).

    Args:
        frames: Of one stream.
        values: Of each frame; NaN does not count.
        test: Held-out frames.
    """
    known = np.isfinite(values)
    fit, check = known & ~test, known & test
    centre = float(values[fit].mean())
    sums = np.bincount(frames.codes[fit], values[fit] - centre, frames.size)
    guess = centre + sums / (np.bincount(frames.codes[fit], minlength=frames.size) + _SHRINKAGE)
    owners, true = frames.owners[check], values[check]
    missed = np.square(true - guess[frames.codes[check]])

    def r2(weights: Weights) -> float:
        each = weights[owners]
        mean = (each @ true) / each.sum()
        return float(1 - (each @ missed) / (each @ np.square(true - mean)))

    return r2
