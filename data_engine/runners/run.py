"""Drives a plan: skips what is committed, hands the rest to a runner, keeps the books of dead shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from data_engine.core.plan import Listener, Plan
from data_engine.core.registry import lookup
from data_engine.io.storage import Storage
from data_engine.runners.books import dead_name, dead_shards
from data_engine.runners.ledger import open_ledgers
from data_engine.runners.protocol import Report, Runner

ENTRY_POINTS = "data_engine.runners"
RUNNERS: dict[str, str] = {
    "local": "data_engine.runners.local:LocalRunner",
    "dask": "data_engine.runners.dask:DaskRunner",
    "beam": "data_engine.runners.beam:BeamRunner",
}
"""Name -> "module:Class(workers, options)" that is a `runners.protocol.Runner`."""


def open_runner(name: str, workers: int, options: Mapping[str, Any]) -> Runner:
    """Returns the runner `name`, to be used as a context manager.

    Raises:
        ConfigError: There is no such runner, or it has no such option.
    """
    return lookup("runner", name, RUNNERS, ENTRY_POINTS)(workers, options)  # type: ignore[no-any-return]


def execute(plan: Plan, runner: Runner, listener: Listener) -> list[Report]:
    """Runs a plan to its end and returns its dead shards.

    Args:
        plan: What to run.
        runner: How.
        listener: Is told of every shard.

    Returns:
        Reports of dead shards, by shard; empty when every shard is committed.
    """
    storage = Storage(plan.output, plan.storage_options)
    storage.remove_stale_scratch()
    ledgers = open_ledgers(storage, plan)
    open_shards = ledgers[plan.groups[-1].name].uncommitted(plan.num_shards)
    _forget_dead(storage, plan, open_shards)
    listener.planned(plan, plan.num_shards - len(open_shards))
    dead = []
    for report in runner.run(plan, open_shards) if open_shards else ():
        name = dead_name(plan.pipeline, report["shard"])
        if report["status"] == "dead":
            dead.append(report)
            storage.write_json(name, report)
        else:
            storage.remove_file(name)
            for record in report["groups"]:
                ledgers[record["group"]].add(record)
        listener.shard_done(plan, report)
    storage.remove_stale_scratch()  # of processes that were killed on the way
    return sorted(dead, key=lambda report: report["shard"])


def _forget_dead(storage: Storage, plan: Plan, open_shards: Sequence[int]) -> None:
    """Removes reports of dead shards that are committed: whoever finished them was killed before it could say so."""
    for shard in {report["shard"] for report in dead_shards(storage, plan.pipeline)} - set(open_shards):
        storage.remove_file(dead_name(plan.pipeline, shard))
