"""Columns of a manifest, side file or data set -> the declared facts of `source.v1`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

COMMON_NAMES: dict[str, tuple[str, ...]] = {
    "uri": ("uri", "path", "audio_filepath", "audio_path", "file_name", "filename", "file", "wav", "audio"),
    "speaker": ("speaker", "speaker_id", "spk", "client_id"),
    "language": ("language", "lang", "locale"),
    "licence": ("licence", "license"),
    "consent_basis": ("consent_basis",),
    "allowed_uses": ("allowed_uses",),
    "text": ("text", "transcript", "transcription", "sentence"),
}
"""Column names that are understood without `source.columns`, in order of preference."""


def read_fields(row: Mapping[str, Any], columns: Mapping[str, str]) -> tuple[dict[str, Any], str | None]:
    """Divides the columns of one item.

    Args:
        row: Column -> value.
        columns: Column -> field, as configured; fields not named there go by common names.

    Returns:
        Facts by field (strings; `allowed_uses` a list), and the other columns as JSON with sorted keys.
    """
    source = {target: column for column, target in columns.items()}
    for target, names in COMMON_NAMES.items():
        if target not in source:
            known = next((n for n in names if row.get(n) is not None and n not in columns), None)
            source.update({target: known} if known else {})
    facts = {target: row[column] for target, column in source.items() if row.get(column) is not None}
    rest = {name: value for name, value in row.items() if name not in source.values() and value is not None}
    facts = {t: _uses(v) if t == "allowed_uses" else str(v) for t, v in facts.items()}
    text = json.dumps(rest, sort_keys=True, ensure_ascii=False, default=str) if rest else None
    return facts, text


def _uses(value: Any) -> list[str]:
    """Returns the uses in a list, or in a string divided by commas, semicolons, bars or spaces."""
    parts = value if isinstance(value, list | tuple) else re.split(r"[,;|\s]+", str(value))
    return [str(part).strip() for part in parts if str(part).strip()]
