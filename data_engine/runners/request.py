"""What was asked of an output folder: enough to go on with a run without its config file, as `replay` does."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_engine.core.errors import ConfigError
from data_engine.io.storage import Storage

REQUEST_FILE = "work/request.json"


@dataclass(frozen=True, slots=True)
class Request:
    """A configuration as it was asked for.

    Attributes:
        config: All of it, in JSON types.
        base: Folder that its relative paths start from.
        sections: Sections that were asked for so far; a scheduler asks for one at a time.
    """

    config: Mapping[str, Any]
    base: str
    sections: tuple[str, ...]


def note_request(storage: Storage, config: Mapping[str, Any], base: Path, sections: Collection[str]) -> None:
    """Writes down what is asked for, once the folder accepts it."""
    before = storage.read_json(REQUEST_FILE) or {}
    asked = sorted({*before.get("sections", ()), *sections})
    request = {"config": dict(config), "base": str(base.absolute()), "sections": asked}
    if request != before:
        storage.write_json(REQUEST_FILE, request)


def read_request(storage: Storage) -> Request:
    """Returns what was asked for.

    Raises:
        ConfigError: The folder does not say: nothing was run there.
    """
    found = storage.read_json(REQUEST_FILE)
    if not found:
        raise ConfigError(
            f"'{storage.uri}' does not say what was run there: '{REQUEST_FILE}' is missing. Run its config."
        )
    return Request(found["config"], found["base"], tuple(found["sections"]))
