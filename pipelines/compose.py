"""Composition: named stages with their settings become groups with signatures, checked before any work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from data_engine.core.config import Settings
from data_engine.core.plan import Group, Step, check_chain
from data_engine.core.schema import Schema
from data_engine.core.signature import signature
from data_engine.stages.catalog import build_stage, stage_signature_parts


@dataclass(frozen=True, slots=True)
class Verb:
    """A stage by name, its settings, and the public table its rows are published as."""

    stage: str
    settings: Settings
    table: str | None = None


def compose(input_schema: Schema, upstream: str, groups: Sequence[tuple[str, Sequence[Verb]]]) -> tuple[Group, ...]:
    """Returns the groups of a pipeline.

    Args:
        input_schema: What the first stage reads.
        upstream: Signature of where the input comes from.
        groups: (name, verbs) in order; all but the last keep their rows for the next.

    Raises:
        ConfigError: A stage misses a column, or a name or setting is unknown.
    """
    composed = []
    specs = []
    for position, (name, verbs) in enumerate(groups):
        steps = []
        for verb in verbs:
            step = Step(verb.stage, verb.settings.model_dump(mode="json"), verb.table)
            stage = build_stage(step.stage, step.config)
            specs.append(stage.spec)
            parts, revisions = stage_signature_parts(step.stage, step.config)
            upstream = signature(step.stage, stage.spec.version, parts, revisions, upstream)
            steps.append(replace(step, signature=upstream))
        composed.append(Group(name, tuple(steps), keep=position < len(groups) - 1))
    check_chain(input_schema, specs)
    return tuple(composed)
