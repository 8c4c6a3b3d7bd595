"""What an output folder offers to readers: the committed parts of a table, as `run.json` names them."""

from __future__ import annotations

from data_engine.core.errors import ConfigError
from data_engine.core.schema import load_schema
from data_engine.io.shards import TABLE_SCHEMAS, Part, committed_parts
from data_engine.io.storage import Storage


def listed_parts(storage: Storage, table: str) -> list[Part]:
    """Returns the committed parts of a table, by shard number.

    `run.json` decides once the run is complete. While a run is unfinished, or for a table that a later pipeline is
    still making, the commit markers decide. Files that neither names are never read.

    Args:
        storage: Output folder.
        table: One of `TABLE_SCHEMAS`.

    Raises:
        ConfigError: No such table.
    """
    if table not in TABLE_SCHEMAS:
        raise ConfigError(f"there is no table '{table}'; tables are {', '.join(TABLE_SCHEMAS)}")
    run = storage.read_json("run.json")
    if not isinstance(run, dict) or run.get("state") != "complete" or table not in run["tables"]:
        return committed_parts(storage, table)
    schema = str(load_schema(TABLE_SCHEMAS[table]))
    markers = [{"schema": schema, **entry, "file": entry["file"].rsplit("/", 1)[-1]} for entry in run["tables"][table]]
    return sorted((Part(table, marker["shard"], marker) for marker in markers), key=lambda part: part.shard)


def require_parts(storage: Storage, table: str) -> list[Part]:
    """Returns `listed_parts`, or says why there is nothing to read.

    Raises:
        ConfigError: The folder holds no committed part of the table, or no such table exists.
    """
    parts = listed_parts(storage, table)
    if not parts:
        found = ", ".join(name for name in TABLE_SCHEMAS if committed_parts(storage, name)) or "no table at all"
        raise ConfigError(
            f"'{storage.uri}' holds no committed part of table '{table}'; it has {found}. Check the path, or run the "
            "pipeline that makes it."
        )
    return parts
