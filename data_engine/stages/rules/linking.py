"""Which speakers of different recordings are one person: greedy average linkage of voice embeddings.

Pairs are taken from the most to the least alike. Two sets become one when their best pair reaches the threshold, the
mean over all their pairs stays within a margin below it, and nothing known speaks against it: two names that sources
declared, or one recording in which both were told apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from pydantic import Field

from data_engine.core.config import Settings

Floats = npt.NDArray[np.float32]

_CELLS_AT_ONCE = 1 << 23
_DIGITS = 5


class LinkSettings(Settings):
    """When two speakers are one.

    The threshold is that of the embedded speaker model, measured on 77 real recordings of 53 speakers (`python -m
    tests.evaluate voices`): of 2884 pairs of two speakers none reaches 0.86, so 0.88 leaves a little room; 74 % of the
    pairs of one speaker are found, all of those of 5 s and more. A stronger model allows a lower one. False merges grow
    with the square of the number of speakers: raise it for very many.

    Attributes:
        threshold: Cosine from which the two most alike of two sets make them one; above 1 nothing is merged.
        margin: The mean cosine between two sets may be so much below the threshold.
        neighbours: So many of the most alike speakers are looked at for each.
    """

    threshold: float = Field(default=0.88, gt=0.0)
    margin: float = Field(default=0.04, ge=0.0)
    neighbours: int = Field(default=32, ge=1)


@dataclass(slots=True)
class Person:
    """Speakers that are one.

    Attributes:
        members: Their positions.
        total: Sum of their embeddings.
        names: Names that sources declared; at most one.
        recordings: Recordings in which a member was found without a declared name.
    """

    members: list[int]
    total: npt.NDArray[np.float64]
    names: set[str] = field(default_factory=set)
    recordings: set[str] = field(default_factory=set)


def likely_pairs(embeddings: Floats, threshold: float, neighbours: int) -> list[tuple[float, int, int]]:
    """Returns pairs of rows that reach a cosine, most alike first: (cosine to five digits, row, later row).

    Memory is bounded whatever the number of rows: similarities are computed a block of rows at a time, and of each
    row at most `neighbours` pairs with later rows are kept.

    Args:
        embeddings: Unit-length, float32 [rows, dimensions].
        threshold: Least cosine.
        neighbours: See above.
    """
    found: list[tuple[float, int, int]] = []
    step = max(1, _CELLS_AT_ONCE // max(1, len(embeddings)))
    for first in range(0, len(embeddings), step):
        alike = np.round(embeddings[first : first + step] @ embeddings[first:].T, _DIGITS)
        rows, others = np.nonzero(np.triu(alike, 1) >= threshold)
        found += _closest(alike[rows, others], first + rows, first + others, neighbours)
    return sorted(found, key=lambda pair: (-pair[0], pair[1], pair[2]))


def _closest(
    alike: Floats, rows: npt.NDArray[np.int64], others: npt.NDArray[np.int64], neighbours: int
) -> Iterator[tuple[float, int, int]]:
    """Yields of each row the pairs with the highest cosine."""
    order = np.lexsort((others, -alike, rows))
    rows, others, alike = rows[order], others[order], alike[order]
    _, starts, counts = np.unique(rows, return_index=True, return_counts=True)
    rank = np.arange(len(rows)) - np.repeat(starts, counts)
    kept = rank < neighbours
    yield from zip(alike[kept].tolist(), rows[kept].tolist(), others[kept].tolist(), strict=True)


def link(
    embeddings: Floats, names: Sequence[str | None], recordings: Sequence[str | None], settings: LinkSettings
) -> list[list[int]]:
    """Returns the sets of two and more speakers that are one person, by their first member.

    Args:
        embeddings: Unit-length, one per speaker, float32 [speakers, dimensions].
        names: Declared name of each speaker; None where none was.
        recordings: Recording of each speaker without a declared name, None for others.
        settings: Thresholds.
    """
    people = [
        Person([at], embeddings[at].astype(np.float64), {name} if name else set(), {where} if where else set())
        for at, (name, where) in enumerate(zip(names, recordings, strict=True))
    ]
    for _, one, other in likely_pairs(embeddings, settings.threshold, settings.neighbours):
        first, second = people[one], people[other]
        if first is not second and _compatible(first, second, settings.threshold - settings.margin):
            larger, smaller = (first, second) if len(first.members) >= len(second.members) else (second, first)
            larger.members += smaller.members
            larger.total += smaller.total
            larger.names |= smaller.names
            larger.recordings |= smaller.recordings
            for member in smaller.members:
                people[member] = larger
    merged = {id(person): sorted(person.members) for person in people if len(person.members) > 1}
    return sorted(merged.values())


def _compatible(one: Person, other: Person, least_mean: float) -> bool:
    if len(one.names | other.names) > 1 or not one.recordings.isdisjoint(other.recordings):
        return False
    mean = float(one.total @ other.total) / (len(one.members) * len(other.members))
    return round(mean, _DIGITS) >= least_mean - 10.0**-_DIGITS


def similarities(embeddings: Floats) -> tuple[float, float]:
    """Returns mean and least cosine between the rows of a set of two or more."""
    alike = (embeddings @ embeddings.T)[np.triu_indices(len(embeddings), 1)]
    return round(float(alike.mean()), _DIGITS), round(float(alike.min()), _DIGITS)
