"""Deciding again: another filter policy over the segments of a finished run, from the columns its rules name.

No model runs and no audio is read. The decisions go beside the parts (`io.decisions`), for rewriting parts that are
mostly audio would take minutes where this takes seconds, and would lose what was decided before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from data_engine import __version__
from data_engine.core.errors import ConfigError, EngineError, StorageError
from data_engine.core.schema import load_schema
from data_engine.core.signature import digest, signature
from data_engine.io.columns import length_columns, milliseconds, read_columns
from data_engine.io.decisions import (
    AS_RUN,
    DECIDED,
    FOLDER,
    TABLE,
    Result,
    check_name,
    in_force,
    put_in_force,
    read_decisions,
    read_result,
    result_names,
    undecided,
    write_decisions,
    write_result,
)  # fmt: skip
from data_engine.io.outputs import require_parts
from data_engine.io.shards import Part, committed_parts
from data_engine.io.storage import Storage
from data_engine.runners.books import PIPELINES, note_decisions, pipeline_state, read_book
from data_engine.runners.protocol import Runner
from data_engine.stages.catalog import build_stage, stage_signature_parts
from data_engine.stages.rules.policy import Policy, evaluate

_CHANGES = {("drop", "keep"): "to_keep", ("keep", "drop"): "to_drop"}


@dataclass(frozen=True, slots=True)
class DecideParts:
    """Summary: what a policy decides about each part; writes it, too, where a folder is given.

    Attributes:
        policy: Rules.
        present: Name of the filter result whose decisions are compared; `run`: those of the run.
        folder: Where the decisions go; none: only counted.
    """

    policy: Policy
    present: str
    folder: str | None

    def count(self, storage: Storage, part: str) -> dict[str, Any]:
        """Returns rows, milliseconds, changes and reasons of a part; the same bytes are written on every try."""
        columns = ("segment_id", "decision", *length_columns(TABLE), *self.policy.columns)
        rows = read_columns(storage, part, TABLE, columns, self.present)
        found = _decisions(self.policy, rows)
        if self.folder:
            write_decisions(storage, self.folder, part, found)
        kept = np.array([decision == "keep" for decision in found.column("decision").to_pylist()], bool)
        audio, reasons = milliseconds(rows, TABLE), found.column("reasons").to_pylist()
        pairs = zip(rows.column("decision").to_pylist(), found.column("decision").to_pylist(), strict=True)
        return {
            "rows": rows.num_rows, "milliseconds": int(audio.sum()),
            "kept": int(kept.sum()), "milliseconds_kept": int(audio[kept].sum()),
            "changed": Counter(_CHANGES.get(pair, "from_none") for pair in pairs if pair[0] != pair[1]),
            "reasons": Counter(reason for broken in reasons for reason in broken),
            "alone": Counter(broken[0] for broken in reasons if len(broken) == 1),
        }  # fmt: skip

    def join(self, counted: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Returns the sums; every reason of the policy is named, those that nothing breaks too."""
        whole = {name: sum(part[name] for part in counted) for name in ("rows", "kept")}
        sums = {n: sum((part[n] for part in counted), Counter[str]()) for n in ("changed", "reasons", "alone")}
        audio = {n: sum(part[f"milliseconds{n}"] for part in counted) / 1000 for n in ("", "_kept")}
        named = dict.fromkeys(rule.reason for rule in self.policy.rules)
        return {
            **whole, "dropped": whole["rows"] - whole["kept"], "seconds": audio[""], "seconds_kept": audio["_kept"],
            "reasons": {name: {"rows": sums["reasons"][name], "alone": sums["alone"][name]} for name in named},
            "changed": {name: sums["changed"][name] for name in (*_CHANGES.values(), "from_none")},
        }  # fmt: skip


def _decisions(policy: Policy, rows: pa.Table) -> pa.RecordBatch:
    """Returns rows of decision.v1 about segments that have the columns of the policy."""
    arrays = [column.combine_chunks() for column in rows.columns]
    batch = pa.RecordBatch.from_arrays(arrays, schema=rows.schema)
    decisions, reasons = evaluate(policy, batch)
    label = pa.array([policy.label] * batch.num_rows, pa.string())
    fields = pa.schema([field.arrow() for field in load_schema("decision").fields])
    return pa.RecordBatch.from_arrays([batch.column("segment_id"), label, decisions, reasons], schema=fields)


def require_decided(storage: Storage) -> list[Part]:
    """Returns the parts of segments of a run that has made all of them.

    Raises:
        ConfigError: The folder holds no segments.
        EngineError: Some are still to come, or are being replayed: to decide now would be to decide about a part.
    """
    parts = require_parts(storage, TABLE)
    for name in PIPELINES:
        book = read_book(storage, name)
        if book is None or not any(TABLE in tables for tables in book.tables.values()):
            continue
        shards = pipeline_state(storage, book, with_parts=False)["shards"]
        if book.stale or shards["committed"] < shards["planned"]:
            raise EngineError(
                f"'{storage.uri}' is not finished: {shards['committed']} of {shards['planned']} shards of '{name}' are "
                "committed. Finish the run (the same command, or data-engine replay), then filter."
            )
    return parts


def policy_signature(policy: Policy) -> str:
    """Returns the signature of what a policy decides, whatever the segments.

    Raises:
        ConfigError: A rule names no column of segments, one that a policy writes, or a condition that cannot hold.
    """
    for rule in policy.rules:
        if rule.column in DECIDED:
            raise ConfigError(f"policy '{policy.label}', rule '{rule.reason}': '{rule.column}' is what a policy writes")
    config = {"policy": policy.model_dump(mode="json")}
    version = build_stage("filter", config).spec.version
    return signature("filter", version, *stage_signature_parts("filter", config), "")


def new_result(storage: Storage, policy: Policy, name: str | None) -> Result:
    """Returns the head of a filter result: all but what is decided.

    Raises:
        ConfigError: The name is none, or belongs to the decisions of other rules.
    """
    signed, name = policy_signature(policy), check_name(name or policy.label)
    before = read_result(storage, name) if name in result_names(storage) else None
    if before and before["signature"] != signed:
        raise ConfigError(
            f"'{storage.uri}' has a filter result '{name}' by other rules: give the policy another version, or this "
            "result another --name (--dry-run keeps nothing)"
        )
    rules = policy.model_dump(mode="json")
    return {"name": name, "policy": rules, "signature": signed, "folder": f"{FOLDER}/{name}-{signed[:12]}"}


def decide_parts(runner: Runner, storage: Storage, head: Result, parts: Sequence[Part], dry_run: bool) -> Result:
    """Decides about parts, and writes the filter result unless it is a dry run.

    Returns:
        The result, with `changed` against the decisions in force (`compared_with`), which is not written.
    """
    names, present = [part.name for part in parts], in_force(storage)
    comparable = present and not undecided(storage, present["folder"], names)
    compared = present["name"] if present and comparable else AS_RUN
    policy = Policy.model_validate(head["policy"])
    found = runner.summarise(DecideParts(policy, compared, None if dry_run else head["folder"]), storage, names)
    changed = {"changed": found.pop("changed"), "compared_with": compared}
    source = {"parts": len(parts), "parts_digest": digest([part.marker["sha256"] for part in parts])}
    result = {**head, **found, **source, "engine": __version__}
    if not dry_run:
        write_result(storage, result)
    return {**result, **changed}


def use_result(runner: Runner, storage: Storage, name: str) -> Result | None:
    """Gives a filter result force, deciding about parts that were committed after it; `run`: what the run decided.

    Returns:
        The result; None for `run`.

    Raises:
        ConfigError: There is no such result.
    """
    result = None if name == AS_RUN else read_result(storage, name)
    parts = require_decided(storage) if result else []
    if result and undecided(storage, result["folder"], [part.name for part in parts]):
        result = decide_parts(runner, storage, _head(result), parts, dry_run=False)
    put_in_force(storage, result)
    note_decisions(storage)
    return result


def renew_decisions(runner: Runner, storage: Storage) -> None:
    """Decides by the filter result in force about segments that a run has made anew; does nothing without one."""
    present = in_force(storage)
    parts = committed_parts(storage, TABLE) if present else []
    if present and undecided(storage, present["folder"], [part.name for part in parts]):
        decide_parts(runner, storage, _head(read_result(storage, present["name"])), parts, dry_run=False)


def _head(result: Result) -> Result:
    return {name: result[name] for name in ("name", "policy", "signature", "folder")}


def decision_problems(storage: Storage) -> Iterator[str]:
    """Yields what is wrong with the filter results of a folder: every decision is made again and compared.

    Parts that a result knows nothing of are no problem here: reading them with it is an error, and using it mends it.
    """
    parts = [part.name for part in committed_parts(storage, TABLE)]
    for name in result_names(storage):
        result = read_result(storage, name)
        policy = Policy.model_validate(result["policy"])
        for part in sorted(set(parts) - set(undecided(storage, result["folder"], parts))):
            try:
                rows = read_columns(storage, part, TABLE, ("segment_id", *policy.columns), AS_RUN)
                same = read_decisions(storage, result["folder"], part).equals(_decisions(policy, rows))
            except StorageError as error:
                yield f"filter result '{name}': {error}"
                continue
            if not same:
                yield f"filter result '{name}': '{part}' is not decided as its policy says: filter --policy again"
