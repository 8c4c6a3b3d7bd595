"""What commit records add up to: totals per stage, and the committed parts of every table. Exact in any order."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

_MICRO = 10**6


class Totals:
    """Sums over the commit records of a pipeline, in memory that does not grow with shards.

    Attributes:
        records: Group -> records seen.
    """

    def __init__(self) -> None:
        self.records: Counter[str] = Counter()
        self._wall = 0
        self._stages: dict[tuple[str, str], Counter[str]] = {}
        self._kinds: dict[str, type] = {}
        self._codes: dict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)

    def add(self, record: Mapping[str, Any]) -> None:
        """Adds a commit record. Seconds are summed as whole millionths: their sum does not depend on order."""
        self.records[record["group"]] += 1
        self._wall += round(record["wall_seconds"] * _MICRO)
        for stats in record["stages"]:
            stage = record["pipeline"], stats["stage"]
            total = self._stages.setdefault(stage, Counter())
            for name, value in stats.items():
                if isinstance(value, Mapping):
                    self._kinds[name] = dict
                    if value:
                        self._codes[*stage, name].update(value)
                elif isinstance(value, int | float):
                    self._kinds[name] = float if isinstance(value, float) else self._kinds.get(name, int)
                    total[name] += round(value * _MICRO)

    @property
    def wall_seconds(self) -> float:
        """Seconds all shards took."""
        return round(self._wall / _MICRO, 3)

    def stages(self) -> list[dict[str, Any]]:
        """Returns the sums of each stage's statistics, in pipeline order."""
        return [{"pipeline": stage[0], "stage": stage[1], **self._sums(stage)} for stage in self._stages]

    def _sums(self, stage: tuple[str, str]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, kind in self._kinds.items():
            if kind is dict:
                found[name] = {
                    code: n for code, n in sorted(self._codes.get((*stage, name), Counter()).items()) if n > 0
                }
            else:
                micro = self._stages[stage][name]
                found[name] = micro // _MICRO if kind is int else round(micro / _MICRO, 6)
        return found


class Parts:
    """The committed parts that commit records name."""

    def __init__(self) -> None:
        self._tables: dict[str, list[dict[str, Any]]] = {}
        self._rejects: dict[str, list[tuple[int, str]]] = {}

    def add(self, record: Mapping[str, Any]) -> None:
        """Takes note of the parts of a commit record."""
        shard, rejects = record["shard"], record["table"]
        self._rejects.setdefault(rejects, []).append((shard, f"{rejects}/{record['file']}"))
        for table, part in record["tables"].items():
            if not table.startswith("work/"):
                named = {"shard": shard, **part, "file": f"{table}/{part['file']}"}
                self._tables.setdefault(table, []).append(named)

    def named(self) -> dict[str, Any]:
        """Returns what `run.json` says of them, by shard: tables -> parts, and the files of rejects."""
        return {
            "tables": {t: sorted(parts, key=lambda part: part["shard"]) for t, parts in self._tables.items()},
            "rejects": [name for group in self._rejects.values() for _, name in sorted(group)],
        }
