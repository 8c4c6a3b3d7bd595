"""Results as JSON, which later runs add to, and as the Markdown table of the model cards."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_engine.training.evaluation.figures import Found, Target
from data_engine.training.evaluation.rows import ROWS, Measure

_HEADER = "| measure | found | 95 % interval | utterances | floor | asked | |\n|---|---|---|---|---|---|---|\n"
_MISSING = "not run"
Entry = dict[str, Any]
Results = dict[str, Entry]


def entry_of(measure: Measure, found: Found) -> Entry:
    """Returns a figure as it is stored."""
    target = measure.target
    return {
        "measure": measure.text, "value": found.value, "low": found.low, "high": found.high,
        "utterances": found.utterances, "sense": target.sense, "floor": target.floor, "asked": target.asked,
        "floor_met": target.met(found.value, target.floor),
        "asked_met": None if target.asked is None else target.met(found.value, target.asked),
        "details": found.details,
    }  # fmt: skip


def entries(row: str, found: Mapping[str, Found] | str, tokenizer_hash: str | None) -> Results:
    """Returns the entries of a row by `row.key`; `found` is a reason when nothing was measured."""
    stored: Results = {}
    for measure in ROWS[row].measures:
        name = f"{row}.{measure.key}"
        if isinstance(found, str) or measure.key not in found:
            reason = found if isinstance(found, str) else "nothing was found"
            stored[name] = {"measure": measure.text, "not_measured": reason}
        else:
            stored[name] = entry_of(measure, found[measure.key]) | {"tokenizer_hash": tokenizer_hash}
    return stored


def merged(old: Results, new: Results, tokenizer_hash: str | None) -> Results:
    """Returns old and new entries together; old figures of other tokenizers go, and a reason replaces no figure."""
    kept = {
        name: entry for name, entry in old.items()
        if "not_measured" in entry or entry["tokenizer_hash"] == tokenizer_hash
    }  # fmt: skip
    added = {
        name: entry for name, entry in new.items() if "not_measured" not in entry or "value" not in kept.get(name, {})
    }
    return kept | added


def read(folder: Path) -> Results:
    """Returns the stored results of a folder; none when there are none."""
    path = folder / "results.json"
    found: Results = json.loads(path.read_text(encoding="utf-8"))["figures"] if path.is_file() else {}
    return found


def write(folder: Path, results: Results, context: Mapping[str, Any]) -> None:
    """Writes `results.json` and `table.md`."""
    folder.mkdir(parents=True, exist_ok=True)
    document = json.dumps({**context, "figures": results}, indent=1, ensure_ascii=False)
    (folder / "results.json").write_text(document + "\n", encoding="utf-8")
    (folder / "table.md").write_text(markdown(results), encoding="utf-8")


def markdown(results: Results, rows: Sequence[str] = tuple(ROWS)) -> str:
    """Returns the table; a row that was not measured says why, and shows no number."""
    lines = [
        _line(measure, results.get(f"{row}.{measure.key}") or {"not_measured": _MISSING})
        for row in rows
        for measure in ROWS[row].measures
    ]
    return _HEADER + "\n".join(lines) + "\n"


def _line(measure: Measure, entry: Entry) -> str:
    target = measure.target
    floor = f"{target.sense} {_shown(target.floor, target)}"
    asked = "" if target.asked is None else f"{target.sense} {_shown(target.asked, target)}"
    if "not_measured" in entry:
        return f"| {measure.text} | not measured: {entry['not_measured']} | | | {floor} | {asked} | |"
    ends = [entry["low"], entry["high"]]
    interval = "" if None in ends else " to ".join(_shown(end, target) for end in ends)
    verdict = "asked" if entry["asked_met"] else "floor" if entry["floor_met"] else "missed"
    value, count = _shown(entry["value"], target), entry["utterances"] or ""
    return f"| {measure.text} | {value} | {interval} | {count} | {floor} | {asked} | {verdict} |"


def _shown(value: float, target: Target) -> str:
    if target.unit == "points":
        return f"{100 * value:+.1f}"
    if target.unit == "%":
        return f"{100 * value:.1f} %"
    if target.unit == "x":
        return f"{value:.1f}x"
    return f"{value:,.0f}" if target.floor >= 100 else f"{value:.3f}"
