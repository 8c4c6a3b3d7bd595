"""Sums over chunks of rows: vectorised, in memory that does not grow with rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_engine.report.reading import PLACE

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(slots=True)
class Tally:
    """Rows and seconds of audio."""

    rows: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class Tallies:
    """A `Tally` per key."""

    by_key: dict[str, Tally] = field(default_factory=dict)

    def ranked(self) -> list[tuple[str, Tally]]:
        """Returns keys and tallies, most rows first, then by key."""
        return sorted(self.by_key.items(), key=lambda item: (-item[1].rows, item[0]))


@dataclass(slots=True)
class Smallest:
    """The places of the rows with the smallest ids: a sample that is the same on every run.

    Attributes:
        size: How many to keep.
        kept: Id and place of each, by id.
    """

    size: int
    kept: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)

    def add(self, rows: pa.Table, ids: str, mask: Mask | None = None) -> None:
        """Offers the rows of a chunk that `mask` marks."""
        rows = rows.select([ids, *PLACE])
        rows = rows if mask is None else rows.filter(pa.array(mask))
        best = rows.take(pc.select_k_unstable(rows, self.size, [(ids, "ascending")])) if rows.num_rows else rows
        found = zip(best.column(ids).to_pylist(), *(best.column(name).to_pylist() for name in PLACE), strict=True)
        self.kept = sorted([*self.kept, *((row[0], tuple(row[1:])) for row in found)])[: self.size]


def groups(keys: Any) -> Iterator[tuple[str, Mask]]:
    """Yields each distinct key of a string column, in order, with the mask of its rows; null is `unknown`."""
    encoded = pc.dictionary_encode(pc.fill_null(_single(keys), "unknown"))
    indices = encoded.indices.to_numpy(zero_copy_only=False)
    for key, index in sorted(zip(encoded.dictionary.to_pylist(), range(len(encoded.dictionary)), strict=True)):
        yield key, indices == index


def listed(lists: Any) -> Iterator[tuple[str, Mask]]:
    """Yields each distinct item of a list column with the mask of the rows that hold it."""
    lists = _single(lists)
    parents = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
    for item, mask in groups(pc.list_flatten(lists)):
        rows = np.zeros(len(lists), bool)
        rows[parents[mask]] = True
        yield item, rows


def floats(rows: pa.Table, name: str) -> Floats:
    """Returns a numeric column as float64 [rows], NaN for null."""
    column = pc.cast(_single(rows.column(name)), pa.float64())
    return np.asarray(pc.fill_null(column, float("nan")).to_numpy(zero_copy_only=False), np.float64)


def seconds(rows: pa.Table) -> Floats:
    """Returns seconds of audio per row from num_samples and sample_rate, 0 where unknown; float64 [rows]."""
    samples, rate = floats(rows, "num_samples"), floats(rows, "sample_rate")
    return np.asarray(np.nan_to_num(samples / np.where(rate > 0, rate, np.nan)), np.float64)


def equal(rows: pa.Table, name: str, value: Any) -> Mask:
    """Returns which rows hold `value`, [rows]; null is not equal."""
    found = pc.fill_null(pc.equal(_single(rows.column(name)), value), False)
    return np.asarray(found.to_numpy(zero_copy_only=False), bool)


def _single(column: Any) -> Any:
    """Returns a column of a chunk as one array."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
