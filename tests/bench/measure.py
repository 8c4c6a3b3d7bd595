"""Takes two callables in turn, A B A B, and returns the median of the ratio pair by pair."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    measure: str
    peer: str
    ours: str
    theirs: str
    ratio: str
    asked: str


def seconds(function: Callable[[], object]) -> float:
    """Returns the wall seconds of one call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def in_turn(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> tuple[float, float, float]:
    """Returns medians of ours, theirs and of theirs/ours pair by pair, after one warm-up of each."""
    ours(), theirs()
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(rounds)]
    a, b = zip(*pairs, strict=True)
    return statistics.median(a), statistics.median(b), statistics.median(y / x for x, y in pairs)


def print_table(rows: list[Row]) -> None:
    """Prints rows as a Markdown table."""
    print("| measure | peer | ours | peer's | ratio | asked |\n|---|---|---|---|---|---|")
    for row in rows:
        print(f"| {row.measure} | {row.peer} | {row.ours} | {row.theirs} | {row.ratio} | {row.asked} |")
