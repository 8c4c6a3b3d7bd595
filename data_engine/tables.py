"""Tables for people: the state of a run and rows of its tables, on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from data_engine.core.errors import ConfigError
from data_engine.core.schema import known_schemas, load_schema
from data_engine.io.shards import TABLE_SCHEMAS, committed_parts, read_batches
from data_engine.io.storage import Storage

_SHOWN_ITEMS = 8


def print_status(state: Mapping[str, Any]) -> None:
    """Prints the state that `runners.books.folder_state` returns."""
    console = Console(soft_wrap=True)
    for name, pipeline in state.items():
        shards = pipeline["shards"]
        done = f"{shards['committed']} of {shards['planned']} shards committed, {shards['dead']} dead"
        stale = "; what it reads was replayed: replay or run again to finish" if pipeline.get("stale") else ""
        console.print(f"[bold]{name}[/]: {done}{stale}")
        console.print(_stage_table(pipeline["stages"]))
        if decided := pipeline.get("decisions"):
            console.print(f"  segments: {decided['kept']} of {decided['rows']} kept, {_hours(decided)}, by filter "
                          f"result '{decided['name']}', not by the run's policy", highlight=False)  # fmt: skip
        for report in pipeline["dead"]:
            console.print(f"  dead shard {report['shard']}: {report['reason']}", markup=False)


def _stage_table(stages: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("stage")
    for heading in ("in", "out", "rejected", "left out", "hours out", "x real time"):
        table.add_column(heading, justify="right")
    table.add_column("why")
    for stats in stages:
        audio = max(stats["seconds_in"], stats["seconds_out"])
        speed = f"{audio / stats['wall_seconds']:.1f}" if stats["wall_seconds"] else ""
        why = {**stats["reject_codes"], **stats["unused_reasons"]}
        table.add_row(
            stats["stage"], str(stats["rows_in"]), str(stats["rows_out"]), str(stats["rejected"]),
            str(stats["unused"]), f"{stats['seconds_out'] / 3600:.3f}", speed,
            " ".join(f"{code}={count}" for code, count in why.items()),
        )  # fmt: skip
    return table


def print_results(found: Mapping[str, Any]) -> None:
    """Prints the filter results of a folder; `found` is what `pipelines.filter.results` returns."""
    console = Console(soft_wrap=True, highlight=False)
    own = {"name": "run", "policy": {"name": "as the run decided"}}
    for result in (own, *found["results"]):
        mark = "*" if result["name"] == found["in_force"] else " "
        kept = f"{result['kept']} of {result['rows']} kept, {_hours(result)}" if "rows" in result else ""
        console.print(f"{mark} {result['name']:16} {kept or result['policy']['name']}", markup=False)
    console.print("* in force: what inspect, report, export, mix and the loader read")


def print_decisions(result: Mapping[str, Any]) -> None:
    """Prints what a policy decided: reasons, what is kept, what changed; see `runners.redecide`."""
    console = Console(soft_wrap=True, highlight=False)
    table = Table(box=None, pad_edge=False)
    table.add_column("reason")
    for heading in ("segments", "for it alone"):
        table.add_column(heading, justify="right")
    for reason, counts in sorted(result["reasons"].items(), key=lambda item: -item[1]["rows"]):
        table.add_row(reason, str(counts["rows"]), str(counts["alone"]))
    console.print(table)
    kept = f"keep {result['kept']}, drop {result['dropped']} of {result['rows']} segments"
    console.print(f"{kept}; {_hours(result)} kept")
    changed = {name: count for name, count in result["changed"].items() if count or name != "from_none"}
    told = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in changed.items())
    console.print(f"against '{result['compared_with']}': {sum(changed.values())} decisions change ({told})")


def _hours(counts: Mapping[str, Any]) -> str:
    return f"{counts['seconds_kept']:.0f} s ({counts['seconds_kept'] / 3600:.3f} of {counts['seconds'] / 3600:.3f} h)"


def print_plan(described: Sequence[Mapping[str, Any]]) -> None:
    """Prints what `pipelines.run.describe_plan` returns."""
    for pipeline in described:
        shards = "as many shards as synthesize" if pipeline["shards"] is None else f"{pipeline['shards']} shards"
        print(f"{pipeline['pipeline']}: {shards}")
        for stage in pipeline["stages"]:
            table = f" -> {stage['table']}" if stage["table"] else ""
            print(f"  {stage['group']:8} {stage['stage']:12} {stage['signature'][:12]}{table}")


def print_schemas(name: str | None) -> None:
    """Prints the record types, or one of them with its columns.

    Raises:
        ConfigError: There is none of that name.
    """
    known = known_schemas()
    chosen = [schema for schema in known if name in (None, schema.name, str(schema))]
    if not chosen:
        raise ConfigError(f"there is no schema '{name}'; known: {', '.join(s.name for s in known)}")
    for schema in chosen:
        print(f"{schema}: {schema.description}")
        for field in schema.fields if name else ():
            unit = f" [{field.unit}]" if field.unit else ""
            print(f"  {field.name}: {field.type}{'?' if field.nullable else ''}{unit}  {field.description}")


def matching_rows(
    folder: str, table: str, limit: int, columns: str | None, where: Sequence[str]
) -> list[dict[str, Any]]:
    """Returns up to `limit` rows of a table, shortened for reading.

    Raises:
        ConfigError: The table or a column does not exist.
    """
    conditions = [condition.partition("=") for condition in where]
    picked = [name.strip() for name in columns.split(",")] if columns else None
    _check_names(table, [*(picked or []), *(name for name, _, _ in conditions)])
    rows = []
    for row in _rows(Storage(folder), table):
        if all(str(row[name]) == value for name, _, value in conditions):
            rows.append({name: shorten(row[name]) for name in picked or row})
        if len(rows) == limit:
            break
    return rows


def _rows(storage: Storage, table: str) -> Iterator[dict[str, Any]]:
    folders = [table]
    if table == "rejects":
        folders = [f"rejects/{name}" for name in storage.list("rejects")]
    for folder in folders:
        for part in committed_parts(storage, folder):
            for batch in read_batches(storage, part):
                yield from (batch.slice(i, 1).to_pylist()[0] for i in range(batch.num_rows))


def _check_names(table: str, columns: Sequence[str]) -> None:
    if table not in TABLE_SCHEMAS:
        raise ConfigError(f"there is no table '{table}'; tables: {', '.join(TABLE_SCHEMAS)}")
    known = load_schema(TABLE_SCHEMAS[table]).names
    for name in columns:
        if name not in known:
            raise ConfigError(f"table '{table}' has no column '{name}'; columns: {', '.join(known)}")


def shorten(value: Any) -> Any:
    """Returns a value as a person wants to see it: audio as its size, long lists by their start."""
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: shorten(inner) for key, inner in value.items()}
    if isinstance(value, list):
        short = [shorten(inner) for inner in value[:_SHOWN_ITEMS]]
        return [*short, f"... {len(value)} in all"] if len(value) > _SHOWN_ITEMS else short
    return value


def print_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints rows one column per line; empty columns are left out."""
    console = Console(soft_wrap=True)
    for number, row in enumerate(rows):
        console.print(f"[bold]row {number}[/]")
        for name, value in row.items():
            if value is not None and value != []:
                console.print(f"  [cyan]{name}[/] ", end="")
                console.print(str(value), markup=False, highlight=False)
    if not rows:
        console.print("no rows")
