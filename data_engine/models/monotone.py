"""The best way through a line of states, frame by frame: what turns scores of an aligner into times."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


def best_path(emitted: Floats, optional: npt.NDArray[np.bool_]) -> Ints | None:
    """Returns the state of each frame on the best way through a line of states, or None when there are too few frames.

    A way begins in the first state, ends in the last and goes on by one state at most from frame to frame; optional
    states may be left out (Viterbi 1967).

    Args:
        emitted: Score of each state in each frame, [frames, states].
        optional: States that may be skipped; never two in a row.
    """
    if not len(emitted) or not len(optional):
        return None
    best = np.full(len(optional), -np.inf, np.float32)
    begin = 2 if optional[0] else 1
    best[:begin] = emitted[0, :begin]
    came = np.zeros(emitted.shape, np.int8)
    for frame in range(1, len(emitted)):
        ways = np.full((3, len(best)), -np.inf, np.float32)
        ways[0], ways[1, 1:] = best, best[:-1]
        ways[2, 2:] = np.where(optional[1:-1], best[:-2], -np.inf)
        came[frame] = ways.argmax(0)
        best = ways.max(0) + emitted[frame]
    last = len(optional) - 1
    if last and optional[last] and best[last - 1] > best[last]:
        last -= 1
    return _traced(came, last) if np.isfinite(best[last]) else None


def _traced(came: npt.NDArray[np.int8], last: int) -> Ints:
    path = np.empty(len(came), np.int64)
    for frame in range(len(came) - 1, -1, -1):
        path[frame] = last
        last -= int(came[frame, last])
    return path


def spans(path: Ints, states: Ints) -> Ints:
    """Returns first and after-last frame of states that a path goes through, int64 [states, 2].

    Args:
        path: State of each frame, never going back.
        states: Which states; a skipped one is empty, where the next begins.
    """
    return np.stack([np.searchsorted(path, states, "left"), np.searchsorted(path, states, "right")], axis=1)
