"""filter: another policy over the segments of a finished run, without a model; see `data_engine.io.decisions`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_engine.core.signature import digest
from data_engine.io.decisions import AS_RUN, in_force, put_in_force, read_result, result_names
from data_engine.io.storage import Storage
from data_engine.runners.books import note_decisions
from data_engine.runners.claims import Claim
from data_engine.runners.redecide import decide_parts, new_result, require_decided, use_result
from data_engine.stages.rules.policy import load_policy
from pipelines.locate import output_uri
from pipelines.mix import opened
from pipelines.run import RunnerConfig


def filter_run(output: str, path: Path, name: str | None, dry_run: bool, runner: RunnerConfig) -> dict[str, Any]:
    """Decides about every segment of a run by the policy in a file, and gives the decisions force.

    Args:
        output: Output folder of a run.
        path: Policy.
        name: Name of the result; none: name and version of the policy.
        dry_run: Only count; nothing is written.
        runner: Who reads the parts.

    Returns:
        What was decided and what changed against the decisions in force before.

    Raises:
        ConfigError: The policy is wrong, its name belongs to other rules, or the folder holds no segments.
        EngineError: The run is not finished, or another process writes into its folder.
    """
    storage, policy = Storage(output_uri(output)), load_policy(path)
    head = new_result(storage, policy, name)
    parts = require_decided(storage)
    with opened(runner) as engine:
        if dry_run:
            return {**decide_parts(engine, storage, head, parts, True), "dry_run": True}
        with _claimed(storage, head["signature"], head["name"]):
            result = decide_parts(engine, storage, head, require_decided(storage), False)
            put_in_force(storage, result)
            note_decisions(storage)
    return {**result, "dry_run": False}


def use(output: str, name: str, runner: RunnerConfig) -> dict[str, Any]:
    """Gives an earlier filter result force again, or, by the name `run`, what the run itself decided.

    Raises:
        ConfigError: There is no such result.
        EngineError: The run is not finished, or another process writes into its folder.
    """
    storage = Storage(output_uri(output))
    if name != AS_RUN:
        read_result(storage, name)
    with opened(runner) as engine, _claimed(storage, "use", name):
        use_result(engine, storage, name)
    return results(output)


def results(output: str) -> dict[str, Any]:
    """Returns the filter results of a folder, and the name of the one in force (`run`: none of them)."""
    storage = Storage(output_uri(output))
    present = in_force(storage)
    found = [read_result(storage, name) for name in result_names(storage)]
    return {"in_force": present["name"] if present else AS_RUN, "results": found}


def _claimed(storage: Storage, signature: str, name: str) -> Claim:
    """Returns a held claim: no run and no other filter may write into the folder meanwhile.

    Raises:
        BusyError: One does.
    """
    held = Claim(storage, "filter", digest([signature, name]))
    with held.turn():
        return held
