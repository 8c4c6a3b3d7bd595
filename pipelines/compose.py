"""Composition: named stages with their settings become groups with signatures, checked before any work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from data_engine.core.config import Settings, choices
from data_engine.core.plan import Group, Partition, Step, check_chain
from data_engine.core.schema import Schema
from data_engine.core.signature import digest, signature
from data_engine.io.shards import committed_parts
from data_engine.io.storage import Storage
from data_engine.stages.catalog import build_stage, stage_signature_parts


@dataclass(frozen=True, slots=True)
class Verb:
    """A stage by name, its settings, the public table its rows are published as, and columns left null there."""

    stage: str
    settings: Settings
    table: str | None = None
    withheld: tuple[str, ...] = ()


def compose(
    input_schema: Schema,
    upstream: str,
    groups: Sequence[tuple[str, Sequence[Verb]]],
    partition: Partition | None = None,
) -> tuple[Group, ...]:
    """Returns the groups of a pipeline, cut further where a stage needs a GPU and its neighbour does not.

    Args:
        input_schema: What the first stage reads.
        upstream: Signature of where the input comes from.
        groups: (name, verbs) in order; all but the last keep their rows for the next.
        partition: How the rows of the last group are kept, divided by a key for a plan with `exchange`.

    Raises:
        ConfigError: A stage misses a column, or a name or setting is unknown.
    """
    composed: list[Group] = []
    specs = []
    for name, verbs in groups:
        steps: list[tuple[Step, float]] = []
        for verb in verbs:
            step = Step(verb.stage, verb.settings.model_dump(mode="json"), verb.table, withheld=verb.withheld)
            stage = build_stage(step.stage, step.config)
            specs.append(stage.spec)
            parts, revisions = stage_signature_parts(step.stage, step.config)
            upstream = signature(step.stage, stage.spec.version, parts, revisions, upstream)
            steps.append((replace(step, signature=upstream), max(stage.spec.resources.gpus, gpus_of(verb.settings))))
        composed += _by_device(name, steps)
    check_chain(input_schema, specs)
    return *composed[:-1], replace(composed[-1], keep=partition is not None, partition=partition)


def _by_device(name: str, steps: Sequence[tuple[Step, float]]) -> list[Group]:
    """Returns the steps as groups that share a device; the second and later ones are named `name-2`, `name-3`."""
    runs = [(gpus, tuple(step for step, _ in run)) for gpus, run in groupby(steps, key=lambda pair: pair[1])]
    names = [name, *(f"{name}-{number}" for number in range(2, len(runs) + 1))]
    return [Group(n, run, keep=True, gpus=gpus) for n, (gpus, run) in zip(names, runs, strict=True)]


def gpus_of(settings: Settings) -> float:
    """Returns how many GPUs a stage's back ends need: one as soon as the options of one say `device: cuda`."""
    devices = [str(choice.options.get("device", "cpu")) for choice in choices(settings).values()]
    return float(any(device.startswith("cuda") for device in devices))


def table_reference(storage: Storage, table: str) -> dict[str, str]:
    """Returns where a committed table is and a digest of it, which makes its rows part of a signature."""
    parts = committed_parts(storage, table)
    return {"uri": storage.uri, "digest": digest([part.marker["sha256"] for part in parts])}
