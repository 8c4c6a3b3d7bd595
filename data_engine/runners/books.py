"""The books of an output folder: what was planned, what is committed, and `run.json` which says both.

Everything here reads markers and plans only, never rows, so it is as fast for a million rows as for ten.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from data_engine import __version__
from data_engine.core.errors import ConfigError, StorageError
from data_engine.core.plan import Plan
from data_engine.io.decisions import TABLE as DECIDED_TABLE
from data_engine.io.decisions import in_force, put_in_force, read_result
from data_engine.io.storage import Storage
from data_engine.runners.claims import Claim
from data_engine.runners.ledger import Ledger, Record, ledger_folder
from data_engine.runners.totals import Parts, Totals

RUN_FILE = "run.json"
PIPELINES = ("curate", "duplicates", "decide", "voices", "speakers", "unite", "synthesize", "prefer", "teach")


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
        stale: What it reads is being replayed: its tables may be replaced when the configuration is the same.
    """

    pipeline: str
    signature: str
    groups: Mapping[str, str]
    tables: Mapping[str, Sequence[str]]
    num_shards: int
    config: Mapping[str, Any]
    stale: bool = False


def _book_name(pipeline: str) -> str:
    return f"work/{pipeline}.plan.json"


def read_book(storage: Storage, pipeline: str) -> Book | None:
    """Returns what the folder says was planned, None when that pipeline never ran here."""
    found = storage.read_json(_book_name(pipeline))
    return Book(**found) if found else None


def _write_book(storage: Storage, book: Book) -> None:
    storage.write_json(_book_name(book.pipeline), {name: getattr(book, name) for name in Book.__slots__})


def mark_stale(storage: Storage, pipeline: str) -> None:
    """Lets the next run of the same configuration replace what a pipeline made, should its input have changed."""
    book = read_book(storage, pipeline)
    if book is not None:
        _write_book(storage, replace(book, stale=True))


def claim(storage: Storage, plan: Plan, config: Mapping[str, Any], overwrite: bool) -> Claim:
    """Writes down what is going to run, or refuses a folder that holds a run of another configuration.

    Runs of one configuration may work in a folder at once: they commit the same bytes under the same names.

    Args:
        storage: Output folder.
        plan: What is going to run.
        config: The pipeline's configuration, nested.
        overwrite: Remove what groups with another signature made; what still fits is kept, so another threshold
            runs no model again.

    Returns:
        The claim, to be released when the run has ended; the end of the process releases it too.

    Raises:
        ConfigError: The folder holds another configuration and `overwrite` is not set.
        BusyError: Another run is writing it.
    """
    held = Claim(storage, plan.pipeline, plan.signature)
    with held.turn():
        _open_book(storage, plan, config, overwrite)
    return held


def _open_book(storage: Storage, plan: Plan, config: Mapping[str, Any], overwrite: bool) -> None:
    old = read_book(storage, plan.pipeline)
    flat = flatten(config)
    if old and old.signature != plan.signature:
        if not overwrite and not (old.stale and old.config == flat):
            raise ConfigError(
                f"'{storage.uri}' holds a {plan.pipeline} run of another configuration ({_changes(old.config, flat)}). "
                "Use another --output, or --overwrite to replace its tables."
            )
        if old.config != flat and _decides(old):
            put_in_force(storage, None)  # whoever asks for another configuration asks for its policy
        _remove_stale(storage, old, plan)
    signatures = {group.name: group.signature for group in plan.groups}
    tables = {group.name: [step.table for step in group.steps if step.table] for group in plan.groups}
    _write_book(storage, Book(plan.pipeline, plan.signature, signatures, tables, plan.num_shards, flat))


def _decides(book: Book) -> bool:
    return any(DECIDED_TABLE in tables for tables in book.tables.values())


def require_claimed(storage: Storage, plan: Plan) -> None:
    """Checks before a commit that the folder still is this plan's: its driver may have been replaced meanwhile.

    Raises:
        StorageError: Another run has taken the folder over.
    """
    book = read_book(storage, plan.pipeline)
    if book is not None and book.signature != plan.signature:
        raise StorageError(f"'{storage.uri}' was taken over by a run of another configuration; this one ends")


def _remove_stale(storage: Storage, old: Book, plan: Plan) -> None:
    storage.remove(RUN_FILE)
    kept = {group.name: group.signature for group in plan.groups}
    for group, signature in old.groups.items():
        if kept.get(group) != signature:
            storage.remove(ledger_folder(old.pipeline, group, signature))
            storage.remove(f"rejects/{old.pipeline}.{group}")  # the commit records before what they name
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
        return "the code, a model or what the source lists is another"
    shown = [f"{k}: {old.get(k)!r} -> {new.get(k)!r}" for k in keys[:3]]
    return "; ".join(shown) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def group_records(storage: Storage, book: Book) -> Iterator[Record]:
    """Yields the commit records of every group and shard that belong to the book's plan: by group, in no order."""
    for group, signature in book.groups.items():
        yield from Ledger(storage, book.pipeline, group, signature).records(book.num_shards)


def dead_name(pipeline: str, shard: int) -> str:
    """Returns where the report of a dead shard lies."""
    return f"work/dead/{pipeline}.part-{shard:05d}.json"


def dead_shards(storage: Storage, pipeline: str) -> list[dict[str, Any]]:
    """Returns the reports of the pipeline's dead shards."""
    names = [n for n in storage.list("work/dead") if n.startswith(f"{pipeline}.")]
    return [report for name in names if (report := storage.read_json(f"work/dead/{name}"))]


def pipeline_state(storage: Storage, book: Book, with_parts: bool = True) -> dict[str, Any]:
    """Returns how far a pipeline is: shards, totals per stage, dead shards, committed tables.

    Args:
        storage: Output folder.
        book: What was planned.
        with_parts: Name the committed parts too; without, memory does not grow with shards.
    """
    totals, parts = Totals(), Parts()
    for record in group_records(storage, book):
        totals.add(record)
        if with_parts:
            parts.add(record)
    dead = dead_shards(storage, book.pipeline)
    done = totals.records[list(book.groups)[-1]]
    return {
        "signature": book.signature,
        "shards": {"planned": book.num_shards, "committed": done, "dead": len(dead)},
        "dead": dead,
        "stale": book.stale,
        "stages": totals.stages(),
        "wall_seconds": totals.wall_seconds,
        **(_decisions(storage) if _decides(book) else {}),
        **(parts.named() if with_parts else {}),
    }


def _decisions(storage: Storage) -> dict[str, Any]:
    """Returns which filter result is in force and what it says, as `decisions`; nothing when none is."""
    present = in_force(storage)
    if present is None:
        return {}
    result = read_result(storage, present["name"])
    label = f"{result['policy']['name']}.{result['policy']['version']}"
    known = {name: result[name] for name in ("rows", "kept", "seconds", "seconds_kept")}
    return {"decisions": {**present, "policy": label, **known}}


def note_decisions(storage: Storage) -> None:
    """Lets `run.json` say which filter result is in force; readers go by `io.decisions`, people by this."""
    run = storage.read_json(RUN_FILE)
    for name, state in run.get("pipelines", {}).items() if run else ():
        state.pop("decisions", None)
        book = read_book(storage, name)
        state |= _decisions(storage) if book and _decides(book) else {}
    if run:
        storage.write_json(RUN_FILE, run)


def folder_state(storage: Storage, with_parts: bool = True) -> dict[str, Any]:
    """Returns the state of every pipeline of an output folder, from markers alone; see `pipeline_state`.

    Raises:
        ConfigError: The folder holds no run.
    """
    books = [book for name in PIPELINES if (book := read_book(storage, name))]
    if not books:
        raise ConfigError(f"'{storage.uri}' holds no run: there is no work/*.plan.json. Check the path.")
    return {book.pipeline: pipeline_state(storage, book, with_parts) for book in books}


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
