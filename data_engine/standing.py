"""How far an output folder is, as a scheduler asks: for the whole run or for one section of its config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from data_engine.core.errors import ConfigError
from data_engine.io.storage import Storage
from data_engine.runners.books import PIPELINES, RUN_FILE, folder_state, read_book
from data_engine.runners.request import REQUEST_FILE

SECTIONS: dict[str, tuple[str, ...]] = {
    "curate": ("curate", "duplicates", "decide", "voices", "speakers", "unite"),
    "synthesize": ("synthesize",),
    "prefer": ("prefer",),
}
"""Section of a config -> the pipelines it runs, in order; each begins when the one before it is done."""

KNOWN = {**SECTIONS, "teach": ("teach",)}
"""The same, and what `data_engine.training.corpus` runs."""


def standing(storage: Storage, only: str | None = None) -> tuple[dict[str, Any], bool]:
    """Returns the state of each pipeline from its markers, and whether everything asked for is committed.

    A section that the config names and that was never begun counts as unfinished.

    Args:
        storage: Output folder.
        only: Section of the config to look at; none: all.

    Raises:
        ConfigError: The folder holds no run, or there is no such section.
    """
    if only and only not in KNOWN:
        raise ConfigError(f"there is no section '{only}'; known: {', '.join(KNOWN)}")
    state = folder_state(storage, with_parts=False)
    if only:
        return {name: state[name] for name in KNOWN[only] if name in state}, is_committed(state, [only])
    config = (storage.read_json(REQUEST_FILE) or storage.read_json(RUN_FILE) or {}).get("config", {})
    begun = [section for section, names in KNOWN.items() if config.get(section) or any(n in state for n in names)]
    return state, is_committed(state, begun)


def unfinished(storage: Storage, sections: Sequence[str]) -> list[str]:
    """Returns those of the sections that are not committed; a folder without a run has none that is."""
    if not sections:
        return []
    state = folder_state(storage, with_parts=False) if any(read_book(storage, name) for name in PIPELINES) else {}
    return [section for section in sections if not is_committed(state, [section])]


def is_committed(state: Mapping[str, Any], sections: Sequence[str]) -> bool:
    """Tells whether these sections came to their last pipeline and every shard is committed.

    Args:
        state: Pipeline -> what `runners.books.pipeline_state` says.
        sections: Sections of a config.
    """
    ended = all(KNOWN[section][-1] in state for section in sections)
    found = [state[name] for section in sections for name in KNOWN[section] if name in state]
    stale = any(pipeline.get("stale") for pipeline in found)  # a replay is under way: what they read changes
    return ended and not stale and all(p["shards"]["committed"] >= p["shards"]["planned"] for p in found)
