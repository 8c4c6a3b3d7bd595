"""Where a turn is cut into segments: at pauses, outside words, with ends in silence; functions of sample positions.

A span is the first sample and the sample after the last. Nothing here knows who speaks but by number.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Span = tuple[int, int]
Spans = npt.NDArray[np.int64]
"""Spans, ascending, int64 [spans, 2]."""

FindQuiet = Callable[[int, int], int | None]
"""First and last sample to look at -> the quietest place there, None where there is none outside a word."""

_FRAME_SECONDS = 0.01
_DIP_FRAMES = 12
_FLOOR = 1e-10
_LONGEST_SECONDS = 1e6


def as_spans(spans: Sequence[Span]) -> Spans:
    """Returns spans as an array, ascending."""
    return np.array(sorted(spans), np.int64).reshape(-1, 2)


def pauses_between(regions: Sequence[Span]) -> Spans:
    """Returns the silences between ascending speech regions, int64 [pauses, 2]."""
    gaps = [(before[1], after[0]) for before, after in pairwise(regions) if after[0] > before[1]]
    return as_spans(gaps)


def split_span(
    span: Span, pauses: Spans, shortest: int, longest: int, find_quiet: FindQuiet | None = None
) -> list[Span]:
    """Splits a stretch of speech until no piece is longer than `longest`.

    Of the pauses in its middle half the longest is taken, else of all pauses; where there is none, the quietest place
    around its middle; and where that is not known either, pieces are equally long.

    Args:
        span: The stretch.
        pauses: Silences of its channel, int64 [pauses, 2], ascending.
        shortest: No piece is shorter; at most half of `longest`.
        longest: Samples.
        find_quiet: Hears the sound.

    Returns:
        Pieces in order. A split at a pause leaves the pause out.
    """
    pending, pieces = [span], []
    while pending:
        start, end = pending.pop()
        if end - start <= longest:
            pieces.append((start, end))
            continue
        pause = _pause(start, end, pauses, shortest) or _dip(start, end, shortest, longest, find_quiet)
        if pause:
            pending += [(pause[1], end), (start, pause[0])]
        else:
            count = -(-(end - start) // longest)
            pieces += list(pairwise(start + (end - start) * part // count for part in range(count + 1)))
    return pieces


def _pause(start: int, end: int, pauses: Spans, shortest: int) -> Span | None:
    for margin in (max(shortest, (end - start) // 4), shortest):
        usable = pauses[(pauses[:, 0] - start >= margin) & (end - pauses[:, 1] >= margin)]
        if len(usable):
            first, last = usable[np.argmax(usable[:, 1] - usable[:, 0])].tolist()
            return first, last
    return None


def _dip(start: int, end: int, shortest: int, longest: int, find_quiet: FindQuiet | None) -> Span | None:
    """Returns an empty span at the quietest place of at most `longest` samples around the middle."""
    middle, reach = (start + end) // 2, min((end - start) // 4, longest // 2)
    low, high = max(start + shortest, middle - reach), min(end - shortest, middle + reach)
    place = find_quiet(low, high) if find_quiet else None
    return None if place is None else (place, place)


def quietest(wave: npt.NDArray[np.float32], sample_rate: int, blocked: Spans) -> int | None:
    """Returns the sample in the middle of the deepest dip of a sound; None where all of it is blocked.

    The level is the mean of decibels of 12 frames of 10 ms, so that a dip is both deep and as long as a stop in speech.

    Args:
        wave: float32 [samples].
        sample_rate: In Hz.
        blocked: Places that will not do (words), in samples of the wave.
    """
    frame = max(1, round(_FRAME_SECONDS * sample_rate))
    count = len(wave) // frame
    if not count:
        return None
    power = np.square(wave[: count * frame], dtype=np.float64).reshape(count, frame).mean(axis=1)
    width = min(_DIP_FRAMES, count)
    levels = np.convolve(10.0 * np.log10(power + _FLOOR), np.full(width, 1.0 / width), "valid")
    middles = (np.arange(len(levels)) + width / 2.0) * frame
    if len(blocked):
        word = np.searchsorted(blocked[:, 0], middles, side="left") - 1
        levels[(word >= 0) & (middles < blocked[np.maximum(word, 0), 1])] = np.inf
    best = int(np.argmin(levels))
    return int(middles[best]) if np.isfinite(levels[best]) else None


def source_words(attributes: str | None, sample_rate: int) -> Spans:
    """Returns the word times that a source declares, in samples; none when it declares none.

    Args:
        attributes: Manifest columns as JSON; `words` is a list of objects with `start` and `end` in seconds, as
            WhisperX and others write them. Words without times are left out.
        sample_rate: In Hz.
    """
    found = json.loads(attributes) if attributes else {}
    words = found.get("words") if isinstance(found, dict) else None
    timed = [(w.get("start"), w.get("end")) for w in words if isinstance(w, dict)] if isinstance(words, list) else []
    spans = [(round(a * sample_rate), round(b * sample_rate)) for a, b in map(_seconds, timed)]
    return as_spans([span for span in spans if span[1] > span[0]])


def _seconds(times: tuple[object, object]) -> tuple[float, float]:
    """Returns the times of a word where both are numbers, else those of no word."""
    first, last = (float(t) if isinstance(t, int | float) and not isinstance(t, bool) else -1.0 for t in times)
    return (first, last) if 0 <= first < last < _LONGEST_SECONDS else (0.0, 0.0)


def outside_words(places: npt.NDArray[np.int64], words: Spans) -> npt.NDArray[np.int64]:
    """Returns places with those inside a word moved to its nearer end; their order stays."""
    if not len(words):
        return places
    word = np.maximum(np.searchsorted(words[:, 0], places, side="left") - 1, 0)
    first, last = words[word, 0], words[word, 1]
    inside = (first < places) & (places < last)
    return np.where(inside, np.where(places - first < last - places, first, last), places)


def pad_spans(spans: Spans, speech: Spans, pad: int, longest: int, num_samples: int) -> Spans:
    """Widens segments of one channel into the silence around them.

    Args:
        spans: Segments, int64 [segments, 2].
        speech: All stretches of that channel in which anybody speaks, int64 [stretches, 2], ascending.
        pad: Samples before and after at most. Of a pause no more than half is taken: the other half is the neighbour's.
        longest: No segment becomes longer.
        num_samples: Length of the channel.

    Returns:
        The segments, in their order, int64 [segments, 2].
    """
    starts, ends = np.sort(np.append(speech[:, 0], spans[:, 0])), np.sort(np.append(speech[:, 1], spans[:, 1]))
    next_start = np.append(starts, 2 * num_samples)[np.searchsorted(starts, spans[:, 1])]
    past_end = np.append(-num_samples, ends)[np.searchsorted(ends, spans[:, 0], side="right")]
    after = np.minimum(pad, (next_start - spans[:, 1]) // 2)
    before = np.minimum(pad, (spans[:, 0] - past_end) // 2)
    free = np.maximum(longest - (spans[:, 1] - spans[:, 0]), 0)
    before = np.where(is_spoken(spans[:, 0] - 1, speech), 0, np.minimum(before, np.maximum(free // 2, free - after)))
    after = np.where(is_spoken(spans[:, 1], speech), 0, np.minimum(after, free - before))
    return np.clip(np.stack([spans[:, 0] - before, spans[:, 1] + after], axis=1), 0, num_samples)


def inside_regions(span: Span, regions: Spans) -> list[Span]:
    """Returns the parts of a span that lie in ascending regions."""
    parts = np.clip(regions, *span)
    return [(first, last) for first, last in parts.tolist() if last > first]


def is_spoken(places: npt.NDArray[np.int64], speech: Spans) -> npt.NDArray[np.bool_]:
    """Tells of places whether they lie in one of the stretches, which may overlap, bool [places]."""
    begun = np.searchsorted(np.sort(speech[:, 0]), places, side="right")
    ended = np.searchsorted(np.sort(speech[:, 1]), places, side="right")
    return begun > ended


def covered_share(span: Span, others: Spans) -> float:
    """Returns the share of a span that ascending spans, which may overlap each other, cover."""
    first = np.clip(others[:, 0], *span)
    last = np.clip(others[:, 1], *span)
    reached = np.maximum.accumulate(np.append(span[0], last))[:-1]
    return float(np.maximum(last - np.maximum(first, reached), 0).sum() / (span[1] - span[0]))


def whole_frames(padded: Spans, spoken: Spans, frame: int, shortest: int | None = None) -> Spans:
    """Returns padded spans shortened to whole frames; one that cannot give so much is as it was.

    Args:
        padded: int64 [spans, 2].
        spoken: What of each is not padding, int64 [spans, 2].
        frame: Samples of a frame.
        shortest: Spans of so many samples also give what is spoken where padding is not enough, half of it at either
            end; none does when not given.
    """
    before, behind = (spoken[:, 0] - padded[:, 0]).clip(0), (padded[:, 1] - spoken[:, 1]).clip(0)
    length = padded[:, 1] - padded[:, 0]
    excess = length % frame
    gives = (excess <= before + behind) | (length - excess >= (np.inf if shortest is None else max(shortest, 1)))
    excess = np.where(gives, excess, 0)
    from_end = np.minimum(excess, behind)
    from_start = np.minimum(excess - from_end, before)
    rest = excess - from_end - from_start
    return np.stack([padded[:, 0] + from_start + rest // 2, padded[:, 1] - from_end - (rest + 1) // 2], axis=1)
