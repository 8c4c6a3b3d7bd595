"""Where long recordings are cut into windows: in their longest pauses."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

Stretch = tuple[int, int]
"""First sample and the sample after the last."""


def cut_at_silence(speech: Sequence[Stretch], num_samples: int, window: int) -> list[Stretch]:
    """Divides a recording into stretches of at most 1.5 windows.

    Each cut is in the middle of the longest pause between half a window and one and a half after the last cut; when
    people speak all that time, after one window.

    Args:
        speech: Speech regions in order, none overlapping another.
        num_samples: Length of the recording.
        window: Length aimed at, in samples.

    Returns:
        Stretches that together are the recording, in order.
    """
    ends = [0]
    while num_samples - ends[-1] > 1.5 * window:
        low, high = ends[-1] + window // 2, ends[-1] + window + window // 2
        ends.append(_quietest(speech, low, high) or ends[-1] + window)
    return list(pairwise([*ends, num_samples]))


def _quietest(speech: Sequence[Stretch], low: int, high: int) -> int | None:
    """Returns the middle of the longest pause between two samples, None where all of it is speech."""
    inside = [(max(a, low), min(b, high)) for a, b in speech if a < high and b > low]
    bounds = [low, *(edge for region in inside for edge in region), high]
    pauses = [(bounds[n + 1] - bounds[n], bounds[n]) for n in range(0, len(bounds), 2)]
    length, start = max(pauses, key=lambda pause: (pause[0], -pause[1]))
    return start + length // 2 if length > 0 else None


def united(stretches: Sequence[Stretch]) -> list[Stretch]:
    """Returns stretches in order, those that touch or overlap joined."""
    found: list[Stretch] = []
    for start, end in sorted(stretches):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((start, end))
    return found
