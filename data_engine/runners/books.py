"""The books of an output folder: what was planned, what is committed, and `run.json` which says both.

Everything here reads markers and plans only, never rows, so it is as fast for a million rows as for ten.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_engine import __version__
from data_engine.core.errors import ConfigError
from data_engine.core.plan import Plan
from data_engine.io.shards import committed_parts
from data_engine.io.storage import Storage

RUN_FILE = "run.json"
PIPELINES = ("curate", "voices", "synthesize", "prefer")


@dataclass(frozen=True, slots=True)
class Book:
    """What one pipeline of a folder was planned to be.

    Attributes:
        pipeline: Its name.
        signature: Signature of the whole pipeline.
        groups: Group name -> signature.
        tables: Group name -> public tables it makes.
        num_shards: Shards planned.
        config: Flat configuration, for the sentence that says what changed.
    """

    pipeline: str
    signature: str
    groups: Mapping[str, str]
    tables: Mapping[str, Sequence[str]]
    num_shards: int
    config: Mapping[str, Any]


def _book_name(pipeline: str) -> str:
    return f"work/{pipeline}.plan.json"


def read_book(storage: Storage, pipeline: str) -> Book | None:
    """Returns what the folder says was planned, None when that pipeline never ran here."""
    found = storage.read_json(_book_name(pipeline))
    return Book(**found) if found else None


def claim(storage: Storage, plan: Plan, config: Mapping[str, Any], overwrite: bool) -> None:
    """Writes down what is going to run, or refuses a folder that holds a run of another configuration.

    Args:
        storage: Output folder.
        plan: What is going to run.
        config: The pipeline's configuration, nested.
        overwrite: Remove what groups with another signature made; what still fits is kept, so another threshold
            runs no model again.

    Raises:
        ConfigError: The folder holds another configuration and `overwrite` is not set.
    """
    old = read_book(storage, plan.pipeline)
    flat = flatten(config)
    if old and old.signature != plan.signature:
        if not overwrite:
            raise ConfigError(
                f"'{storage.uri}' holds a {plan.pipeline} run of another configuration ({_changes(old.config, flat)}). "
                "Use another --output, or --overwrite to replace its tables."
            )
        _remove_stale(storage, old, plan)
    signatures = {group.name: group.signature for group in plan.groups}
    tables = {group.name: [step.table for step in group.steps if step.table] for group in plan.groups}
    book = Book(plan.pipeline, plan.signature, signatures, tables, plan.num_shards, flat)
    storage.write_json(_book_name(plan.pipeline), {name: getattr(book, name) for name in Book.__slots__})


def _remove_stale(storage: Storage, old: Book, plan: Plan) -> None:
    storage.remove(RUN_FILE)
    kept = {group.name: group.signature for group in plan.groups}
    for group, signature in old.groups.items():
        if kept.get(group) != signature:
            storage.remove(f"rejects/{old.pipeline}.{group}")  # the commit records first
            for table in [*old.tables[group], f"work/{old.pipeline}.{group}-{signature[:12]}"]:
                storage.remove(table)


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Returns nested mappings as one, with dotted keys."""
    if not isinstance(value, Mapping):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat |= flatten(inner, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    keys = sorted(k for k in {*old, *new} if old.get(k) != new.get(k))
    if not keys:
        return "the code or a model has another version"
    shown = [f"{k}: {old.get(k)!r} -> {new.get(k)!r}" for k in keys[:3]]
    return "; ".join(shown) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def group_records(storage: Storage, book: Book) -> list[dict[str, Any]]:
    """Returns the commit records of every group and shard that belong to the book's plan."""
    records = []
    for group, signature in book.groups.items():
        parts = committed_parts(storage, f"rejects/{book.pipeline}.{group}")
        records += [p.marker for p in parts if p.marker["signature"] == signature and p.shard < book.num_shards]
    return records


def stage_totals(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns the sums over shards of each stage's statistics, in pipeline order."""
    totals: dict[str, dict[str, Any]] = {}
    for record in records:
        for stats in record["stages"]:
            key = f"{record['pipeline']}.{stats['stage']}"
            total = totals.setdefault(key, {"pipeline": record["pipeline"], "stage": stats["stage"]})
            for name, value in stats.items():
                if isinstance(value, Mapping):
                    total[name] = dict(sorted((Counter(total.get(name, {})) + Counter(value)).items()))
                elif name != "stage":
                    total[name] = round(total.get(name, 0) + value, 6)
    return list(totals.values())


def dead_shards(storage: Storage, pipeline: str) -> list[dict[str, Any]]:
    """Returns the reports of the pipeline's dead shards."""
    names = [n for n in storage.list("work/dead") if n.startswith(f"{pipeline}.")]
    return [report for name in names if (report := storage.read_json(f"work/dead/{name}"))]


def pipeline_state(storage: Storage, book: Book) -> dict[str, Any]:
    """Returns how far a pipeline is: shards, totals per stage, dead shards, committed tables."""
    records = group_records(storage, book)
    last = list(book.groups)[-1]
    done = sum(record["group"] == last for record in records)
    dead = dead_shards(storage, book.pipeline)
    return {
        "signature": book.signature,
        "shards": {"planned": book.num_shards, "committed": done, "dead": len(dead)},
        "dead": dead,
        "stages": stage_totals(records),
        "wall_seconds": round(sum(r["wall_seconds"] for r in records), 3),
        "tables": _tables(records),
        "rejects": [f"{r['table']}/{r['file']}" for r in records],
    }


def _tables(records: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    tables: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        for table, part in record["tables"].items():
            if not table.startswith("work/"):
                named = {"shard": record["shard"], **part, "file": f"{table}/{part['file']}"}
                tables.setdefault(table, []).append(named)
    return tables


def folder_state(storage: Storage) -> dict[str, Any]:
    """Returns the state of every pipeline of an output folder, from markers alone.

    Raises:
        ConfigError: The folder holds no run.
    """
    books = [book for name in PIPELINES if (book := read_book(storage, name))]
    if not books:
        raise ConfigError(f"'{storage.uri}' holds no run: there is no work/*.plan.json. Check the path.")
    return {book.pipeline: pipeline_state(storage, book) for book in books}


def write_run_file(storage: Storage, config: Mapping[str, Any], state: str) -> dict[str, Any]:
    """Writes `run.json`: config, versions, signatures, totals and the committed parts of every table."""
    run = _run_record(storage, config, state)
    storage.write_json(RUN_FILE, run)
    return run


def _run_record(storage: Storage, config: Mapping[str, Any], state: str) -> dict[str, Any]:
    pipelines = folder_state(storage)
    tables: dict[str, list[dict[str, Any]]] = {}
    for pipeline in pipelines.values():
        tables |= pipeline.pop("tables")
    rejects = [part for pipeline in pipelines.values() for part in pipeline.pop("rejects")]
    return {
        "format": "speech-data-engine run 1",
        "state": state,
        "config": config,
        "versions": {"speech-data-engine": __version__, "python": platform.python_version()},
        "pipelines": pipelines,
        "tables": tables,
        "rejects": rejects,
    }


def read_run(storage: Storage) -> dict[str, Any]:
    """Returns `run.json`, or the state of a run that has not ended yet in the same shape.

    Raises:
        ConfigError: The folder holds no run.
    """
    return storage.read_json(RUN_FILE) or _run_record(storage, {}, "running")
