"""Filter results: what another policy decides about the segments of a finished run, beside the parts, not in them.

A part is audio but for a hundredth: to change three columns in it is to copy it, some 10 GB per 100,000 segments. So a
filter result is a small file per part, `decisions/<name>-<hash>/<file of the part>`, with the ids and those columns row
for row (schema decision.v1); `decisions/<name>.json` vouches for them, and `decisions/in-force.json` says which result
every reader puts in the place of what the run decided. One atomic write switches; nothing that the run wrote changes.
A file is named after the content of its part: a decision is never put on rows it was not made for.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from data_engine.core.errors import ConfigError, StorageError
from data_engine.core.schema import load_schema
from data_engine.io.storage import Storage

FOLDER = "decisions"
TABLE = "segments"
DECIDED = ("policy", "decision", "reasons")
AS_RUN = "run"
"""Name of what the run itself decided."""
_POINTER = "in-force"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

Result = dict[str, Any]
"""What `decisions/<name>.json` says: name, policy, its rules, signature, folder, and what was decided."""


def check_name(name: str) -> str:
    """Returns a name that a filter result can have.

    Raises:
        ConfigError: It cannot be a file name, or means something else.
    """
    if not _NAME.fullmatch(name) or name in (AS_RUN, _POINTER):
        raise ConfigError(
            f"'{name}' is no name for a filter result: use letters, digits, '.', '-' and '_', and neither "
            f"'{AS_RUN}' nor '{_POINTER}'"
        )
    return name


def result_names(storage: Storage) -> list[str]:
    """Returns the names of the filter results of an output folder."""
    found = (name.removesuffix(".json") for name in storage.list(FOLDER) if name.endswith(".json"))
    return [name for name in found if name != _POINTER]


def read_result(storage: Storage, name: str) -> Result:
    """Returns a filter result.

    Raises:
        ConfigError: There is none of that name.
    """
    found = storage.read_json(f"{FOLDER}/{name}.json") if _NAME.fullmatch(name) and name != _POINTER else None
    if not isinstance(found, dict):
        known = ", ".join([AS_RUN, *result_names(storage)])
        raise ConfigError(
            f"'{storage.uri}' has no filter result '{name}'; it has {known}. Make one: data-engine filter "
            f"{storage.uri} --policy FILE"
        )
    return found


def write_result(storage: Storage, result: Mapping[str, Any]) -> None:
    """Writes a filter result, once all of its files are there."""
    storage.write_json(f"{FOLDER}/{result['name']}.json", dict(result))


def in_force(storage: Storage) -> dict[str, str] | None:
    """Returns name and folder of the filter result in force; None: as the run decided."""
    found = storage.read_json(f"{FOLDER}/{_POINTER}.json")
    return found if isinstance(found, dict) else None


def folder_in_force(storage: Storage) -> str | None:
    """Returns the folder of the filter result in force; None: as the run decided."""
    found = in_force(storage)
    return found["folder"] if found else None


def put_in_force(storage: Storage, result: Mapping[str, Any] | None) -> None:
    """Makes every reader see a filter result; None: what the run decided."""
    if result is None:
        storage.remove_file(f"{FOLDER}/{_POINTER}.json")
    else:
        storage.write_json(f"{FOLDER}/{_POINTER}.json", {name: result[name] for name in ("name", "folder")})


def result_folder(storage: Storage, name: str | None) -> str | None:
    """Returns the folder of a filter result by name; of None, the one in force.

    Raises:
        ConfigError: There is none of that name.
    """
    if name is None:
        return folder_in_force(storage)
    return None if name == AS_RUN else str(read_result(storage, name)["folder"])


def decisions_name(folder: str, part: str) -> str:
    """Returns where the decisions about a part lie."""
    return f"{folder}/{part.rpartition('/')[2]}"


def undecided(storage: Storage, folder: str, parts: Iterable[str]) -> list[str]:
    """Returns the parts that a filter result has no decisions about: they were committed after it was made."""
    listed = set(storage.list(folder))
    return [part for part in parts if part.rpartition("/")[2] not in listed]


def write_decisions(storage: Storage, folder: str, part: str, rows: pa.RecordBatch) -> None:
    """Writes the decisions about a part: rows of decision.v1, one for each of its rows, in their order."""
    schema = load_schema("decision")
    schema.check(rows, f"decisions about '{part}'")
    stream = io.BytesIO()
    with pa.ipc.new_file(stream, schema.arrow(), options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_batch(rows.replace_schema_metadata(schema.arrow().metadata))
    storage.write(decisions_name(folder, part), stream.getvalue())


def read_decisions(storage: Storage, folder: str, part: str) -> pa.RecordBatch:
    """Returns the decisions about a part, a row of decision.v1 for each of its rows.

    Raises:
        StorageError: The filter result has none about this part, or they are damaged.
    """
    name = decisions_name(folder, part)
    try:
        with storage.open(name) as stream:
            content = stream.read()
        with pa.ipc.open_file(pa.BufferReader(content)) as reader:
            return reader.get_batch(0)
    except FileNotFoundError as error:
        raise StorageError(
            f"'{part}' was committed after the decisions in '{folder}' were made: finish the run, which decides about "
            f"it, too, or give the run's own decisions force again: data-engine filter {storage.uri} --use {AS_RUN}"
        ) from error
    except pa.ArrowException as error:
        raise StorageError(f"'{name}' is damaged ({error}): run data-engine filter --policy again") from error


def decided(rows: Any, decisions: pa.RecordBatch, first: int = 0) -> Any:
    """Returns a record batch or table of segments with the decisions about them in the place of its own.

    Args:
        rows: Some columns of consecutive rows of a part.
        decisions: What `read_decisions` returns for that part.
        first: Number of the first row in the part.

    Raises:
        StorageError: The part has more rows than there are decisions.
    """
    if first + rows.num_rows > decisions.num_rows:
        raise StorageError(f"there are {decisions.num_rows} decisions about a part with more rows: filter again")
    columns = [
        decisions.column(name).slice(first, rows.num_rows) if name in DECIDED else rows.column(name)
        for name in rows.schema.names
    ]
    return type(rows).from_arrays(columns, schema=rows.schema)
