"""What a mixture asked for and what it got, for people and programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

_MS_PER_HOUR = 3_600_000


@dataclass(frozen=True, slots=True)
class Stratum:
    """Rows with the same categories.

    Attributes:
        number: Position among all combinations of categories.
        columns: Quota columns.
        categories: One per quota column.
        rows_available: Rows there are.
        ms_available: Their audio, in milliseconds.
        target: Rows or milliseconds to take.
        rows: Rows taken.
        ms: Their audio, in milliseconds.
        weight: How often to draw each of them for the shares to be those asked for.
    """

    number: int
    columns: tuple[str, ...]
    categories: tuple[str, ...]
    rows_available: int
    ms_available: int
    target: int = 0
    rows: int = 0
    ms: int = 0
    weight: float = 1.0

    @property
    def label(self) -> str:
        """Its categories by name: `language=en speed=*`; `all` without quotas."""
        pairs = zip(self.columns, self.categories, strict=True)
        return " ".join(f"{column}={category}" for column, category in pairs) or "all"


def mixture_report(
    quotas: Mapping[str, Mapping[str, float]], by_rows: bool, size: int, strata: Sequence[Stratum]
) -> dict[str, Any]:
    """Returns asked and got: as a whole, per value of each quota column, and per stratum.

    Args:
        quotas: Column -> value -> share.
        by_rows: The unit is rows; otherwise milliseconds.
        size: What was asked for, in the unit.
        strata: What there was and what was got.
    """
    amounts = [_amounts(stratum, by_rows) for stratum in strata]
    whole = [sum(column) for column in zip(*amounts, strict=True)]
    values: dict[str, dict[str, Any]] = {}
    for place, (column, shares) in enumerate(quotas.items()):
        for value, share in shares.items():
            found = [a for s, a in zip(strata, amounts, strict=True) if s.categories[place] == value]
            values.setdefault(column, {})[value] = _value(share, size, found)
    short = [
        f"{column}={value}: asked {row['asked']}, got {row['got']} of {row['available']}"
        for column, rows in values.items() for value, row in rows.items()
        if row["asked"] - row["target"] > max(len(strata), 1)
    ]  # fmt: skip
    if whole[1] < size:
        short.insert(0, f"size: asked {size}, got {whole[2]} of {whole[0]}")
    return {
        "unit": "rows" if by_rows else "milliseconds",
        "asked": size, "target": whole[1], "got": whole[2], "available": whole[0],
        "rows": sum(s.rows for s in strata), "milliseconds": sum(s.ms for s in strata),
        "quotas": values, "short": short,
        "strata": [
            {
                "stratum": s.label, "available": a[0], "target": a[1], "rows": s.rows, "milliseconds": s.ms,
                "weight": s.weight,
            }
            for s, a in zip(strata, amounts, strict=True)
        ],
    }  # fmt: skip


def _amounts(stratum: Stratum, by_rows: bool) -> tuple[int, int, int]:
    if by_rows:
        return stratum.rows_available, stratum.target, stratum.rows
    return stratum.ms_available, stratum.target, stratum.ms


def _value(share: float, size: int, amounts: Sequence[tuple[int, int, int]]) -> dict[str, Any]:
    available, target, got = (sum(column) for column in zip(*amounts, strict=True)) if amounts else (0, 0, 0)
    return {"share": share, "asked": round(share * size), "target": target, "got": got, "available": available}


def print_mixture(report: Mapping[str, Any]) -> None:
    """Prints a report as a table, and what could not be met."""
    console = Console(soft_wrap=True)
    by_rows = report["unit"] == "rows"
    table = Table(box=None, pad_edge=False)
    table.add_column("quota")
    for heading in ("asked", "got", "available"):
        table.add_column(f"{heading}, {'rows' if by_rows else 'h'}", justify="right")
    entries = [("all", report)]
    entries += [(f"{c}={v}", row) for c, rows in report["quotas"].items() for v, row in rows.items()]
    for label, row in entries:
        table.add_row(label, *(_shown(row[name], by_rows) for name in ("asked", "got", "available")))
    console.print(table)
    for sentence in report["short"]:
        console.print(f"short of {sentence} {report['unit']}", highlight=False, markup=False)
    hours = _shown(report["milliseconds"], False)
    console.print(f"mixture {report['name']}: {report['rows']} rows of {report['table']}, {hours} h", highlight=False)


def _shown(amount: int, by_rows: bool) -> str:
    return str(amount) if by_rows else f"{amount / _MS_PER_HOUR:.3f}"
