"""Asked against measured: how far spoken takes follow the emotion, level, speed and dialect asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_engine.backends.prosody_rules import ProsodyRules, ProsodyTargets, asked_prosody, read_rules
from data_engine.core.errors import RecordError
from data_engine.report.counting import Floats, Mask, equal, floats, groups
from data_engine.report.spread import Spread

BINS = (-2.0, 0.005, 800)
"""Octaves: factors from a quarter to four, exact to 0.2 percent."""


@dataclass(slots=True)
class Measured:
    """One prosodic measure under one control, in octaves: asked, measured, and measured over asked."""

    asked: Spread = field(default_factory=lambda: Spread(*BINS))
    measured: Spread = field(default_factory=lambda: Spread(*BINS))
    ratio: Spread = field(default_factory=lambda: Spread(*BINS))

    def add(self, asked: Floats, ratio: Floats) -> None:
        """Adds factors, float64 [rows]; NaN where unknown."""
        with np.errstate(divide="ignore", invalid="ignore"):
            self.asked.add(np.log2(asked))
            self.measured.add(np.log2(asked * ratio))
            self.ratio.add(np.log2(ratio))


@dataclass(slots=True)
class Followed:
    """The takes of one control."""

    rows: int = 0
    passed: int = 0
    tempo: Measured = field(default_factory=Measured)
    pitch: Measured = field(default_factory=Measured)
    errors: Spread = field(default_factory=lambda: Spread(0, 0.01, 150))

    def add(self, rows: pa.Table, asked: tuple[Floats, Floats], mask: Mask) -> None:
        """Adds the rows of a chunk that `mask` marks."""
        self.rows += int(mask.sum())
        self.passed += int(equal(rows, "decision", "keep")[mask].sum())
        self.tempo.add(asked[0][mask], floats(rows, "rate_ratio")[mask])
        self.pitch.add(asked[1][mask], floats(rows, "pitch_ratio")[mask])
        self.errors.add(floats(rows, "word_error_rate")[mask])


def _joined(rows: pa.Table, first: str, second: str) -> Any:
    return pc.binary_join_element_wise(
        rows.column(first), pc.fill_null(pc.cast(rows.column(second), pa.string()), "default"), " "
    )


CONTROLS: dict[str, Callable[[pa.Table], Any]] = {
    "emotion": lambda rows: rows.column("emotion"),
    "emotion and level": lambda rows: _joined(rows, "emotion", "level"),
    "speed": lambda rows: rows.column("speed"),
    "language and dialect": lambda rows: _joined(rows, "language", "dialect"),
}
"""Control -> the column that names what was asked."""


@dataclass(slots=True)
class Control:
    """Takes by control and by what was asked."""

    rules: ProsodyRules = field(default_factory=read_rules)
    followed: dict[str, dict[str, Followed]] = field(default_factory=lambda: {name: {} for name in CONTROLS})

    def add(self, rows: pa.Table) -> None:
        """Adds a chunk of candidates."""
        asked = asked_factors(rows, self.rules)
        for control, keys in CONTROLS.items():
            for key, mask in groups(keys(rows)):
                self.followed[control].setdefault(key, Followed()).add(rows, asked, mask)

    def ordered(self, control: str) -> list[tuple[str, Followed]]:
        """Returns what was asked with its takes: speeds and emotions in the order of the rules, others by name."""
        order = [*self.rules.emotions, *self.rules.speeds]
        found = self.followed[control]
        return [(key, found[key]) for key in sorted(found, key=lambda k: (_place(order, k), k))]


def _place(order: list[str], key: str) -> int:
    word = key.split(" ")[0]
    return order.index(word) if word in order else len(order)


def asked_factors(rows: pa.Table, rules: ProsodyRules) -> tuple[Floats, Floats]:
    """Returns the tempo and pitch factors each row asked for, float64 [rows]; NaN for controls without a rule."""
    columns = [pc.cast(rows.column(name), pa.string()) for name in ("emotion", "level", "speed")]
    keys = pc.binary_join_element_wise(*columns, "\x1f")
    tempo, pitch = np.full(rows.num_rows, np.nan), np.full(rows.num_rows, np.nan)
    for key, mask in groups(keys):
        targets = _targets(key, rules)
        if targets is not None:
            tempo[mask], pitch[mask] = targets.tempo, targets.pitch_factor
    return tempo, pitch


def _targets(key: str, rules: ProsodyRules) -> ProsodyTargets | None:
    try:
        emotion, level, speed = key.split("\x1f")
        return asked_prosody(emotion, int(level), speed, rules)
    except (RecordError, ValueError):  # a control of another synthesizer: what it asks for is not known as numbers
        return None


def median_factor(spread: Spread, share: float = 0.5) -> float | None:
    """Returns the median, or another quantile, of factors kept in octaves."""
    octaves = spread.quantile(share)
    return None if octaves is None else float(2**octaves)
