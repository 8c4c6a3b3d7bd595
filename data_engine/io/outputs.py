"""What an output folder offers to readers: the committed parts of a table, as `run.json` names them."""

from __future__ import annotations

from data_engine.core.errors import ConfigError
from data_engine.core.schema import load_schema
from data_engine.io.decisions import TABLE, result_folder
from data_engine.io.shards import TABLE_SCHEMAS, Part, committed_parts, decided_by
from data_engine.io.storage import Storage


def listed_parts(storage: Storage, table: str, decisions: str | None = None) -> list[Part]:
    """Returns the committed parts of a table, by shard number.

    `run.json` decides once the run is complete. While a run is unfinished, or for a table that a later pipeline is
    still making, the commit markers decide. Files that neither names are never read.

    Args:
        storage: Output folder.
        table: One of `TABLE_SCHEMAS`.
        decisions: Name of the filter result that segments are read with; none: the one in force.

    Raises:
        ConfigError: No such table, or no such filter result.
    """
    if table not in TABLE_SCHEMAS:
        raise ConfigError(f"there is no table '{table}'; tables are {', '.join(TABLE_SCHEMAS)}")
    if decisions and table != TABLE:
        raise ConfigError(f"filter results decide about '{TABLE}', not about '{table}'")
    return decided_by(_named_parts(storage, table), result_folder(storage, decisions) if table == TABLE else None)


def _named_parts(storage: Storage, table: str) -> list[Part]:
    run = storage.read_json("run.json")
    if not isinstance(run, dict) or run.get("state") != "complete" or table not in run["tables"]:
        return committed_parts(storage, table)
    schema = str(load_schema(TABLE_SCHEMAS[table]))
    markers = [{"schema": schema, **entry, "file": entry["file"].rsplit("/", 1)[-1]} for entry in run["tables"][table]]
    return sorted((Part(table, marker["shard"], marker) for marker in markers), key=lambda part: part.shard)


def require_parts(storage: Storage, table: str, decisions: str | None = None) -> list[Part]:
    """Returns `listed_parts`, or says why there is nothing to read.

    Raises:
        ConfigError: The folder holds no committed part of the table, or no such table or filter result exists.
    """
    parts = listed_parts(storage, table, decisions)
    if not parts:
        found = ", ".join(name for name in TABLE_SCHEMAS if committed_parts(storage, name)) or "no table at all"
        raise ConfigError(
            f"'{storage.uri}' holds no committed part of table '{table}'; it has {found}. Check the path, or run the "
            "pipeline that makes it."
        )
    return parts
