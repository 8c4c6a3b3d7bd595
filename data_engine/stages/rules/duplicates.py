"""Duplicates: MinHash over linguistic codes, the bands in which similar recordings meet, and which copy is kept.

MinHash estimates the Jaccard similarity of two sets by the share of equal minima under many hash functions (Broder,
1997); recordings that agree in a whole band of them meet in one bucket (locality-sensitive hashing).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from data_engine.core.ids import content_id

Row = Mapping[str, Any]
Hashes = npt.NDArray[np.int64]
Rank = tuple[float, float, str]

NUM_HASHES = 128
BAND = 4
_SHINGLE = 3
_CHUNK = 1 << 14
_MIX = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIERS, _OFFSETS = np.random.default_rng(1997).integers(1, 1 << 63, (2, NUM_HASHES, 1), np.uint64)


def minhash(codes: npt.NDArray[np.integer[Any]]) -> Hashes:
    """Returns the MinHash signature of a sequence of codes, int64 [NUM_HASHES]; empty when it is too short.

    Args:
        codes: Integers [tokens]. A code that repeats counts once, so that the signature bears another tempo.
    """
    changed = codes[np.flatnonzero(np.diff(codes.astype(np.int64), prepend=-1))].astype(np.uint64)
    if len(changed) < _SHINGLE:
        return np.zeros(0, np.int64)
    shingles = np.zeros(len(changed) - _SHINGLE + 1, np.uint64)
    for place in range(_SHINGLE):
        shingles = (shingles ^ changed[place : len(shingles) + place]) * _MIX
        shingles ^= shingles >> np.uint64(29)
    shingles = np.unique(shingles)
    smallest = np.full(NUM_HASHES, np.iinfo(np.uint64).max, np.uint64)
    for start in range(0, len(shingles), _CHUNK):
        hashed = (_MULTIPLIERS | np.uint64(1)) * shingles[start : start + _CHUNK] + _OFFSETS
        smallest = np.minimum(smallest, (hashed >> np.uint64(20)).min(axis=1))
    return smallest.astype(np.int64)


def bands(signature: Hashes) -> list[str]:
    """Returns the buckets of a signature, one per band of `BAND` hashes."""
    return [
        content_id("band", number, *map(int, band)) for number, band in enumerate(signature.reshape(-1, BAND).tolist())
    ]


def similarity(one: Sequence[int], other: Sequence[int]) -> float:
    """Returns the estimated Jaccard similarity of two signatures, 0..1."""
    return float(np.mean(np.asarray(one) == np.asarray(other))) if len(one) and len(one) == len(other) else 0.0


def rank(fingerprint: Row) -> Rank:
    """Returns the order in which copies are kept: more speech, then better quality, then the smaller id."""
    return -round(fingerprint["seconds"], 1), -fingerprint["quality"], fingerprint["recording_id"]


def matches(bucket: Iterable[Row], threshold: float) -> list[tuple[Row, Row, float]]:
    """Returns (lower copy, higher copy, similarity) for the fingerprints of one bucket.

    Each is compared with those that rank higher and stand for something of their own, so a bucket of n copies costs n
    comparisons.
    """
    found: list[tuple[Row, Row, float]] = []
    standing: list[Row] = []
    for row in sorted(bucket, key=rank):
        scored = ((1.0 if row["kind"] == "exact" else similarity(row["minhash"], other["minhash"]), other)
                  for other in standing if other["recording_id"] != row["recording_id"])  # fmt: skip
        best = next(((value, other) for value, other in scored if value >= threshold), None)
        if best is None:
            standing.append(row)
        else:
            found.append((row, best[1], best[0]))
    return found


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
