"""Duplicates: MinHash over the words of a sound, the buckets in which copies meet, what proves them, which is kept.

Of each table of words a recording keeps the smallest hash (MinHash, Broder 1997), where it was heard and the print of
the sound there. Recordings with an equal smallest hash meet in a bucket (locality-sensitive hashing), so candidates
cost a fixed number of rows per recording and never a comparison of all pairs. There the prints are compared, and in
recordings of more than two seconds equal hashes must lie at equal distances over two fifths of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from data_engine.core.ids import content_id
from data_engine.models.sound_print import (
    HOP,
    SAMPLE_RATE,
    TABLES,
    anchors,
    band_levels,
    print_similarity,
    prints,
    shapes,
    sounding_columns,
    words,
)

Row = Mapping[str, Any]
Rank = tuple[float, float, str]

_NONE = np.iinfo(np.int64).max
_MULTIPLIERS, _OFFSETS = np.random.default_rng(1997).integers(1, 1 << 63, (2, TABLES), np.uint64)
_LEAST_SHARE = 0.7
_LONG_SECONDS, _LEAST_AGREEING, _LEAST_SPAN = 2.0, 3, 0.4
_FULL_COLUMNS = 60
_DRIFT, _JITTER_SECONDS = 0.025, 0.15
_MOST_COMPARED = 128


@dataclass(slots=True)
class Signature:
    """The smallest hash of each table over all sound of a recording; its size does not grow with the recording.

    Attributes:
        smallest: int64 [TABLES]; the greatest integer where nothing was heard.
        times: Where each was heard, ms from the start of the recording, int64 [TABLES].
        prints: The sound there.
    """

    smallest: npt.NDArray[np.int64] = field(default_factory=lambda: np.full(TABLES, _NONE))
    times: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(TABLES, np.int64))
    prints: list[bytes] = field(default_factory=lambda: [b""] * TABLES)

    def add(self, samples: npt.NDArray[np.int16], start_seconds: float) -> None:
        """Takes a stretch of sound into account.

        Args:
            samples: int16 [samples] at 16 kHz.
            start_seconds: Where it begins in the recording.
        """
        sound = band_levels(samples)
        at = anchors(sound)
        around = prints(sound, at)
        at = at[[bool(one) for one in around]] if len(at) else at
        if not len(at):
            return
        heard = [one for one in around if one]
        hashed = (words(shapes(sound, at)).astype(np.uint64) + np.uint64(1)) * (_MULTIPLIERS | np.uint64(1)) + _OFFSETS
        mixed = (hashed >> np.uint64(20)).astype(np.int64)
        first = mixed.argmin(axis=0)
        times = np.rint(1000 * (start_seconds + at * HOP / SAMPLE_RATE)).astype(np.int64)
        smallest, heard_at = mixed.min(axis=0), times[first]
        earlier = (smallest == self.smallest) & (heard_at < self.times)
        for table in np.flatnonzero((smallest < self.smallest) | earlier).tolist():
            self.smallest[table], self.times[table] = smallest[table], heard_at[table]
            self.prints[table] = heard[first[table]]

    def buckets(self) -> list[tuple[str, dict[str, object]]]:
        """Returns the bucket of each table and the columns of `fingerprint.v1` that are compared there."""
        minhash, times = self.smallest.tolist(), self.times.tolist()
        return [
            (
                content_id("word", table, minhash[table]),
                {"minhash": minhash, "times": times, "table": table, "print": heard},
            )
            for table, heard in enumerate(self.prints)
            if heard
        ]


def similarity(one: Row, other: Row) -> tuple[float, bool]:
    """Returns how alike two fingerprints of one bucket are, 0..1, and whether that rests on more than a word.

    Args:
        one: Row of `fingerprint.v1`, kind near.
        other: The same.

    Returns:
        Correlation of the prints, 0 when the recordings cannot be the same speech from end to end; and whether both
        prints are full or several more equal hashes lie at the same distances: a lower correlation proves a copy then.
    """
    shorter, longer = sorted((one["seconds"], other["seconds"]))
    if shorter < _LEAST_SHARE * longer:
        return 0.0, False
    places, span, extent = _agreement(one, other)
    spread = span >= _LEAST_SPAN * extent
    if extent >= _LONG_SECONDS and not (spread and places >= _LEAST_AGREEING):
        return 0.0, False
    full = min(sounding_columns(one["print"]), sounding_columns(other["print"])) >= _FULL_COLUMNS
    return print_similarity(one["print"], other["print"]), full or (spread and places > _LEAST_AGREEING)


def _agreement(one: Row, other: Row) -> tuple[int, float, float]:
    """Returns at how many places equal hashes fit one line of time, their span and that of all hashes, both in s."""
    times = np.array([one["times"], other["times"]], np.float64) / 1000
    equal = times[:, np.asarray(one["minhash"]) == np.asarray(other["minhash"])]
    here = times[:, one["table"]]
    apart = np.abs(np.diff(equal - here[:, None], axis=0)[0])
    fits = equal[0][apart <= _JITTER_SECONDS + _DRIFT * np.abs(equal[0] - here[0])]
    return len(np.unique(fits)), float(np.ptp(fits)), float(np.ptp(times, axis=1).max())


def rank(fingerprint: Row) -> Rank:
    """Returns the order in which copies are kept: more speech, then better quality, then the smaller id."""
    return -round(fingerprint["seconds"], 1), -fingerprint["quality"], fingerprint["recording_id"]


def matches(bucket: Iterable[Row], threshold: float, supported: float) -> list[tuple[Row, Row, float]]:
    """Returns (lower copy, higher copy, similarity) for the fingerprints of one bucket.

    Each is compared with those that rank higher and stand for something of their own, so a bucket of n copies costs n
    comparisons; where a sound is common with the nearest in length only, so that n strangers cost a multiple of n, too.

    Args:
        bucket: Rows of `fingerprint.v1`.
        threshold: Similarity from which recordings are copies.
        supported: The same where more than a word is compared.
    """
    found: list[tuple[Row, Row, float]] = []
    standing: list[Row] = []
    for row in sorted(bucket, key=rank):
        others = [other for other in standing[-_MOST_COMPARED:] if other["recording_id"] != row["recording_id"]]
        scored = ((*_scored(row, other), other) for other in reversed(others))
        best = next(((value, other) for value, more, other in scored
                     if value >= (supported if more else threshold)), None)  # fmt: skip
        if best is None:
            standing.append(row)
        else:
            found.append((row, best[1], best[0]))
    return found


def _scored(row: Row, other: Row) -> tuple[float, bool]:
    return (1.0, True) if row["kind"] == "exact" else similarity(row, other)


def kept_copies(duplicates: Iterable[Row]) -> dict[str, str]:
    """Returns recording -> the copy that is kept in its place, one per set of connected duplicates.

    Args:
        duplicates: Rows of `duplicate.v1` in any order.
    """
    parent: dict[str, str] = {}
    ranks: dict[str, Rank] = {}
    for row in duplicates:
        lower, higher = row["recording_id"], row["duplicate_of"]
        ranks[higher] = -round(row["kept_seconds"], 1), -row["kept_quality"], higher
        parent[_root(parent, lower)] = _root(parent, higher)
    best: dict[str, Rank] = {}
    for name, found in ranks.items():  # the best copy of a set ranks higher than something, so it is among these
        root = _root(parent, name)
        best[root] = min(best.get(root, found), found)
    return {name: kept for name in sorted(parent) if (kept := best[_root(parent, name)][2]) != name}


def _root(parent: dict[str, str], name: str) -> str:
    parent.setdefault(name, name)
    while parent[name] != name:
        parent[name] = name = parent[parent[name]]
    return name
