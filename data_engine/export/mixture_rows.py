"""Which rows a mixture takes: the passes over the table, each a summary that any runner executes.

Every row has a hash of seed and id. A stratum's sample is its rows with the smallest hashes, and of a speaker with too
many rows those with the smallest hashes count. Both are joins of sorted lists: the sample is a function of the ids and
the seed alone, and adding rows to the table changes little of it.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_engine.io.columns import Ints, length_columns, milliseconds, read_columns, table_schema
from data_engine.io.matching import Filters, matches
from data_engine.io.storage import Storage

UNKNOWN = "unknown"
"""Value of a null."""
OTHER = "*"
"""Category of the values that a quota does not name."""
Drawn = list[Any]
"""[hash, id, milliseconds] of a row."""


def row_hash(seed: int, record_id: str) -> int:
    """Returns the place of a row in every sample with this seed, 0..2^64-1."""
    key = str(seed).encode()[:64]
    return int.from_bytes(hashlib.blake2b(record_id.encode(), digest_size=8, key=key).digest(), "big")


@dataclass(frozen=True, slots=True)
class Frame:
    """The rows a mixture draws from and the strata they are in; picklable.

    Attributes:
        table: Table.
        where: Column -> values that a row must have.
        seed: Seed of the hashes.
        quotas: Quota column -> its categories, in order.
        with_audio: Leave out rows without audio.
        caps: Column -> value -> greatest hash of a row that counts, for values with too many rows.
    """

    table: str
    where: Filters
    seed: int
    quotas: Mapping[str, Sequence[str]]
    with_audio: bool
    caps: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def rows(self, storage: Storage, part: str, *columns: str) -> tuple[pa.Table, Ints, Ints]:
        """Returns ids and `columns` of the rows of a part that count, with stratum and milliseconds of each, [rows]."""
        names = (self._id, *columns, *self.where, *self.quotas, *self.caps, *length_columns(self.table))
        rows = read_columns(storage, part, self.table, names)
        audio, strata = milliseconds(rows, self.table), self._strata(rows)
        keep = matches(rows, self.where) & (strata >= 0)
        if self.with_audio:
            keep &= audio > 0
        rows, strata, audio = rows.filter(pa.array(keep)), strata[keep], audio[keep]
        if self.caps:
            keep = self._below_caps(rows)
            rows, strata, audio = rows.filter(pa.array(keep)), strata[keep], audio[keep]
        return rows, strata, audio

    def ids(self, rows: pa.Table) -> list[str]:
        """Returns the ids of rows."""
        found: list[str] = rows.column(self._id).to_pylist()
        return found

    def hashes(self, rows: pa.Table) -> list[int]:
        """Returns the hash of each row."""
        return [row_hash(self.seed, record_id) for record_id in self.ids(rows)]

    @property
    def _id(self) -> str:
        return table_schema(self.table).id

    def _strata(self, rows: pa.Table) -> Ints:
        """Returns the number of each row's stratum, mixed radix over the quota columns; -1 for rows without one."""
        strata, outside = np.zeros(rows.num_rows, np.int64), np.zeros(rows.num_rows, bool)
        for column, names in self.quotas.items():
            members = _categories(rows.column(column), names)
            strata = strata * len(names) + members
            outside |= members < 0
        return np.where(outside, -1, strata)

    def _below_caps(self, rows: pa.Table) -> npt.NDArray[np.bool_]:
        hashes = self.hashes(rows)
        keep = np.ones(len(hashes), bool)
        for column, most in self.caps.items():
            values = rows.column(column).to_pylist()
            keep &= np.array([h <= most.get(v, h) for h, v in zip(hashes, values, strict=True)], bool)
        return keep


def _categories(column: Any, names: Sequence[str]) -> Ints:
    """Returns the position of each value among `names`, that of `*` for others, else -1; int64 [rows]."""
    texts = pc.fill_null(pc.cast(column, pa.string()), UNKNOWN).combine_chunks()
    encoded = pc.dictionary_encode(texts.chunk(0) if isinstance(texts, pa.ChunkedArray) else texts)
    places = {name: place for place, name in enumerate(names)}
    other = places.get(OTHER, -1)
    table = np.array([places.get(value, other) for value in encoded.dictionary.to_pylist()], np.int64)
    return table[encoded.indices.to_numpy()] if len(table) else np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class FindCaps:
    """Summary: for each column, the values with more than so many rows and the greatest hash that counts.

    Attributes:
        frame: Rows; its own caps are not looked at.
        most: Column -> rows with one value.
    """

    frame: Frame
    most: Mapping[str, int]

    def count(self, storage: Storage, part: str) -> dict[str, dict[str, list[int]]]:
        """Returns the smallest hashes of each value, one more than count."""
        rows, _, _ = replace(self.frame, caps={}).rows(storage, part, *self.most)
        hashes = self.frame.hashes(rows)
        found: dict[str, dict[str, list[int]]] = {}
        for column, most in self.most.items():
            values: dict[str, list[int]] = {}
            for value, number in zip(rows.column(column).to_pylist(), hashes, strict=True):
                if value is not None:
                    values.setdefault(value, []).append(number)
            found[column] = {value: heapq.nsmallest(most + 1, values[value]) for value in sorted(values)}
        return found

    def join(self, counted: Sequence[Mapping[str, Mapping[str, list[int]]]]) -> dict[str, dict[str, int]]:
        """Returns column -> value -> greatest hash that counts, for values with too many rows."""
        caps: dict[str, dict[str, int]] = {}
        for column, most in self.most.items():
            lists: dict[str, list[list[int]]] = {}
            for part in counted:
                for value, hashes in part[column].items():
                    lists.setdefault(value, []).append(hashes)
            smallest = {v: list(islice(heapq.merge(*found), most + 1)) for v, found in sorted(lists.items())}
            caps[column] = {v: hashes[most - 1] for v, hashes in smallest.items() if len(hashes) > most}
        return caps


@dataclass(frozen=True, slots=True)
class CountStrata:
    """Summary: rows and milliseconds of each stratum."""

    frame: Frame

    def count(self, storage: Storage, part: str) -> list[list[int]]:
        """Returns [stratum, rows, milliseconds] of the strata in a part."""
        _, strata, audio = self.frame.rows(storage, part)
        numbers, places = np.unique(strata, return_inverse=True)
        rows = np.bincount(places, minlength=len(numbers))
        sums = np.zeros(len(numbers), np.int64)
        np.add.at(sums, places, audio)
        return [list(found) for found in zip(numbers.tolist(), rows.tolist(), sums.tolist(), strict=True)]

    def join(self, counted: Sequence[Iterable[Sequence[int]]]) -> list[list[int]]:
        """Returns [stratum, rows, milliseconds], by stratum."""
        sums: dict[int, list[int]] = {}
        for stratum, rows, audio in (entry for part in counted for entry in part):
            total = sums.setdefault(stratum, [0, 0])
            total[0], total[1] = total[0] + rows, total[1] + audio
        return [[stratum, *sums[stratum]] for stratum in sorted(sums)]


@dataclass(frozen=True, slots=True)
class DrawRows:
    """Summary: the rows with the smallest hashes of each stratum, as many as its target holds.

    Attributes:
        frame: Rows.
        targets: Stratum -> rows or milliseconds.
        by_time: Targets are milliseconds: rows are taken while their sum is within the target.
    """

    frame: Frame
    targets: Mapping[int, int]
    by_time: bool

    def count(self, storage: Storage, part: str) -> list[list[Any]]:
        """Returns [stratum, rows in order of their hash] of a part: those that may be within the target."""
        rows, strata, audio = self.frame.rows(storage, part)
        found: dict[int, list[Drawn]] = {}
        drawn = zip(self.frame.hashes(rows), self.frame.ids(rows), audio.tolist(), strict=True)
        for stratum, row in zip(strata.tolist(), drawn, strict=True):
            if self.targets.get(stratum):
                found.setdefault(stratum, []).append(list(row))
        # the row that crosses the target stays: it ends the sample, wherever the other parts put it
        return [[stratum, self._first(sorted(found[stratum]), stratum, 1)] for stratum in sorted(found)]

    def join(self, counted: Sequence[Iterable[Sequence[Any]]]) -> list[list[Any]]:
        """Returns [stratum, rows in order of their hash], by stratum."""
        lists: dict[int, list[list[Drawn]]] = {}
        for stratum, rows in (entry for part in counted for entry in part):
            lists.setdefault(stratum, []).append(rows)
        return [[stratum, self._first(heapq.merge(*lists[stratum]), stratum, 0)] for stratum in sorted(lists)]

    def _first(self, rows: Iterable[Drawn], stratum: int, beyond: int) -> list[Drawn]:
        """Returns the rows within a stratum's target, and so many after them."""
        target = self.targets[stratum]
        if not self.by_time:
            return list(islice(rows, target))
        taken: list[Drawn] = []
        used = 0
        for row in rows:
            used += row[2]
            if used > target:
                return [*taken, row][: len(taken) + beyond]
            taken.append(row)
        return taken
