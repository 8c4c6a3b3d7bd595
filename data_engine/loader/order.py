"""In which order rows are read, as pure functions of seed, epoch and position: nothing has to be replayed.

Record batches are put in an order, cut into windows, and the rows of a window are put in an order of their own. Every
order is drawn from the raw words of a bit generator, whose stream numpy promises to keep across releases.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Shuffle:
    """How rows are shuffled.

    Attributes:
        enabled: False keeps the stored order.
        seed: Seed of all epochs.
        buffer: Rows that are mixed with each other, in whole record batches; at least one batch.
    """

    enabled: bool
    seed: int
    buffer: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows `start` to `stop` of one record batch."""

    unit: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Window:
    """Pieces that are read together.

    Attributes:
        first: Position of its first row among the consumer's rows.
        pieces: In epoch order.
        order: Row of the concatenated pieces to give out at each step, shape (rows,).
    """

    first: int
    pieces: tuple[Piece, ...]
    order: Indices


def permutation(length: int, *key: int) -> Indices:
    """Returns a permutation of 0..length-1 that depends on `key` (non-negative integers) only."""
    words = np.random.PCG64(np.random.SeedSequence(key)).random_raw(length)
    return np.argsort(np.asarray(words, np.uint64), kind="stable").astype(np.int64)


def consumer_range(num_rows: int, consumer: int, num_consumers: int) -> tuple[int, int]:
    """Returns the rows [first, last) of one consumer; shares are disjoint, complete and differ by at most one row."""
    return consumer * num_rows // num_consumers, (consumer + 1) * num_rows // num_consumers


def windows(
    unit_rows: Indices, batches_per_window: int, shuffle: Shuffle, epoch: int, rows: tuple[int, int], position: int
) -> Iterator[Window]:
    """Yields the windows of one consumer in one epoch, from the one that holds row `position` on.

    Args:
        unit_rows: Rows of every record batch, shape (units,).
        batches_per_window: Record batches that are mixed.
        shuffle: Whether and how.
        epoch: Number of the epoch.
        rows: The consumer's rows [first, last) in epoch order.
        position: Rows of the consumer that are done.
    """
    units = np.arange(unit_rows.size)
    if shuffle.enabled:
        units = permutation(unit_rows.size, shuffle.seed, epoch)
    ends = np.cumsum(unit_rows[units])
    starts = ends - unit_rows[units]
    first_unit = int(np.searchsorted(ends, rows[0] + position, side="right"))
    for group in range(first_unit // batches_per_window, -(-unit_rows.size // batches_per_window)):
        members = slice(group * batches_per_window, (group + 1) * batches_per_window)
        low, high = max(int(starts[members][0]), rows[0]), min(int(ends[members][-1]), rows[1])
        if low >= rows[1]:
            return
        if low >= high:
            continue
        pieces = tuple(
            Piece(int(unit), max(low - int(start), 0), min(high, int(end)) - int(start))
            for unit, start, end in zip(units[members], starts[members], ends[members], strict=True)
            if end > low and start < high
        )
        order = permutation(high - low, shuffle.seed, epoch, low) if shuffle.enabled else np.arange(high - low)
        yield Window(low - rows[0], pieces, order)
