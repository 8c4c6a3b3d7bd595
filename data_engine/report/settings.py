"""What the run was asked to do, for people: the main settings, the back ends, the whole configuration."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from data_engine.runners.books import flatten

_SECRET = re.compile(r"(^|[_.])(api_?key|password|secret|(access_?|auth_?)?token)$", re.IGNORECASE)
_MAIN: tuple[tuple[str, str], ...] = (
    ("name", "name"), ("seed", "seed"), ("source.path", "source"), ("source.language", "language"),
    ("source.licence", "licence"), ("source.consent_basis", "consent basis"), ("source.allowed_uses", "allowed uses"),
    ("curate.policy", "filter policy"), ("synthesize.briefs.count", "dialogues asked for"),
    ("synthesize.voices", "voices from"), ("runner.kind", "runner"),
)  # fmt: skip
"""Key of the configuration and what the page calls it."""


def main_settings(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns the settings a reader asks for first, as (what, value)."""
    flat = flatten(masked(config))
    found = ((label, flat.get(key)) for key, label in _MAIN)
    return [(label, _said(value)) for label, value in found if value not in (None, [], "")]


def filter_results(pipelines: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns, as (what, value), the filter result that decides in the place of the policy that ran, if there is one.

    Args:
        pipelines: Pipeline -> its state in `run.json`.
    """
    found = (state.get("decisions") for state in pipelines.values())
    return [("filtered again by", f"{one['policy']} (filter result '{one['name']}')") for one in found if one]


def back_ends(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns `pipeline.stage.role` and the name of each back end that was chosen."""
    return sorted(_choices(config, ""))


def _choices(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if not isinstance(value, Mapping):
        return
    if set(value) == {"name", "options"}:
        yield path, str(value["name"])
        return
    for key, inner in value.items():
        yield from _choices(inner, f"{path}.{key}" if path else str(key))


def masked(value: Any, key: str = "") -> Any:
    """Returns the configuration with passwords and keys hidden; they belong in the environment anyway."""
    if isinstance(value, Mapping):
        return {name: masked(inner, str(name)) for name, inner in value.items()}
    if isinstance(value, list):
        return [masked(inner, key) for inner in value]
    return "(hidden)" if value is not None and _SECRET.search(key) else value


def as_json(config: Mapping[str, Any]) -> str:
    """Returns the whole configuration as JSON for reading."""
    return json.dumps(masked(config), ensure_ascii=False, indent=2)


def gate_limits(config: Mapping[str, Any]) -> dict[str, list[float]]:
    """Returns the gates that the charts can mark: measure -> thresholds."""
    gates = flatten(config)
    keys = {"word_error_rate": "max_word_error_rate", "speaker_similarity": "min_speaker_similarity",
            "dnsmos_ovr": "min_dnsmos_ovr"}  # fmt: skip
    found = {name: gates.get(f"synthesize.select.gates.{key}") for name, key in keys.items()}
    return {name: [float(value)] for name, value in found.items() if isinstance(value, int | float)}


def _said(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
