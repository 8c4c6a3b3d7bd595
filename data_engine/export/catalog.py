"""Export formats by name: an output folder to a folder that other people's libraries read."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from data_engine.core.errors import ConfigError
from data_engine.core.registry import lookup
from data_engine.io.decisions import result_folder
from data_engine.io.mixtures import read_mixture
from data_engine.io.storage import Storage

ENTRY_POINTS = "data_engine.exports"

FORMATS: dict[str, str] = {
    "trl": "data_engine.export.trl:export_trl",
    "huggingface": "data_engine.export.huggingface:export_huggingface",
}
"""Name -> "module:function(source, target, split, **options)". Third parties register theirs as entry points."""


@dataclass(slots=True)
class ExportReport:
    """What an export wrote.

    Attributes:
        format: Name of the format.
        target: Folder it was written to.
        rows: Rows of each set and split, keys "set/split".
        files: Written files, relative to the folder.
        left_out: Rows that were not written, by reason.
    """

    format: str
    target: str
    rows: dict[str, int] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)


def export(
    output: str,
    target: str,
    format: str,
    split: str | None = None,
    *,
    overwrite: bool = False,
    mixture: str | None = None,
    decisions: str | None = None,
    **options: Any,
) -> ExportReport:
    """Writes an output folder in another format.

    Args:
        output: Output folder of a run: local path or fsspec URI.
        target: Folder to write: local path or fsspec URI.
        format: A key of `FORMATS`, or a format that another distribution registers.
        split: Only this split; none: all of them.
        overwrite: Replace what the target holds.
        mixture: Write the rows of this mixture only, for formats that take one.
        decisions: Filter result that says which segments are dropped, for formats that take one.
        options: Options of the format.

    Raises:
        ConfigError: No such format or option, nothing to export, or a target that is not empty.
        ContractError: The rows cannot be written faithfully in this format.
        StorageError: A part cannot be read, or the target cannot be written.
    """
    write = lookup("export format", format, FORMATS, ENTRY_POINTS)
    if split not in (None, "train", "validation", "test"):
        raise ConfigError(f"there is no split '{split}'; splits are train, validation, test")
    options |= _taken(write, format, {"mixture": mixture, "decisions": decisions})
    if mixture:
        read_mixture(Storage(output), mixture)
    result_folder(Storage(output), decisions)
    folder = Storage(target)
    if present := folder.list(""):
        if not overwrite:
            raise ConfigError(f"'{target}' is not empty; choose another folder, or pass overwrite to replace it")
        _clear(folder, present)
    return write(Storage(output), folder, split, **options)  # type: ignore[no-any-return]


def _taken(write: Callable[..., Any], format: str, asked: Mapping[str, str | None]) -> dict[str, str]:
    """Returns the options that are given, or says that the format does not take one of them."""
    given = {name: value for name, value in asked.items() if value}
    for name in given:
        if name not in inspect.signature(write).parameters:
            raise ConfigError(f"the format '{format}' takes no {name}; huggingface does, and so does the loader")
    return given


def _clear(folder: Storage, present: list[str]) -> None:
    # Only an earlier export is replaced: a mistyped target must not cost anyone a home folder.
    if not set(present) <= {"README.md", "data", "audio_pairs", "tokenizer"}:
        raise ConfigError(f"'{folder.uri}' holds other things than an export; choose another folder")
    for name in present:
        folder.remove(name)
