"""A plan: what will run, small and picklable. Names, versions, parameters; never models or rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from data_engine.core.errors import ConfigError
from data_engine.core.schema import Schema
from data_engine.core.signature import digest
from data_engine.core.stage import StageSpec


@dataclass(frozen=True, slots=True)
class Step:
    """One stage of a group.

    Attributes:
        stage: Name in the registry.
        config: Its configuration, plain JSON types.
        table: Public table its output rows are published as, if any.
        signature: Filled by `Plan` building; depends on everything upstream.
        withheld: Nullable columns of the published table that are left null there; later stages still read them.
    """

    stage: str
    config: Mapping[str, Any]
    table: str | None = None
    signature: str = ""
    withheld: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Partition:
    """How kept rows are divided for a pipeline that needs all rows with one key in one place.

    Attributes:
        key: Column whose hash decides.
        count: Number of partitions: the shards of the pipeline that reads them.
    """

    key: str
    count: int


@dataclass(frozen=True, slots=True)
class Group:
    """Neighbouring stages that run fused in one task; storage is the only hand-over between groups.

    Attributes:
        name: Unique within the pipeline.
        steps: In order.
        keep: True when the rows that leave the last step are stored as work for the next group.
        partition: How the kept rows are divided by a key, for a plan with `exchange`.
        gpus: GPUs that a task with this group occupies; groups without and with are separate tasks.
    """

    name: str
    steps: tuple[Step, ...]
    keep: bool = False
    partition: Partition | None = None
    gpus: float = 0.0

    @property
    def signature(self) -> str:
        """Signature of the group: of its last step and of what it publishes."""
        division = [[self.partition.key, self.partition.count]] if self.partition else []
        return digest([[s.signature, s.table] for s in self.steps] + division)


@dataclass(frozen=True, slots=True)
class Stretch:
    """Neighbouring groups that one task runs: those that occupy the same number of GPUs.

    Attributes:
        first: Position of the first group.
        stop: Position after the last.
        gpus: GPUs of the task.
    """

    first: int
    stop: int
    gpus: float


@dataclass(frozen=True, slots=True)
class Plan:
    """One pipeline over all its shards.

    Attributes:
        pipeline: curate, synthesize or prefer.
        output: URI of the output folder.
        input_schema: Schema name of the input rows.
        input: Where the input rows are: folder of item files or of table parts, relative to output.
        groups: In order.
        num_shards: Fixed at ingest; never depends on the number of workers.
        seed: Seed of the run.
        storage_options: Options of the output's file system, never credentials.
        exchange: Key by which `input` was divided (`Group.partition`): shard p reads partition p of all its parts,
            rows in order of key and id. This is what makes a step global. None: shard p reads part p.
    """

    pipeline: str
    output: str
    input_schema: str
    input: str
    groups: tuple[Group, ...]
    num_shards: int
    seed: int
    storage_options: Mapping[str, Any]
    exchange: str | None = None

    @property
    def signature(self) -> str:
        """Signature of the whole pipeline."""
        return digest([group.signature for group in self.groups])

    @property
    def stretches(self) -> tuple[Stretch, ...]:
        """The tasks of a shard, in order."""
        found: list[Stretch] = []
        for position, group in enumerate(self.groups):
            if found and found[-1].gpus == group.gpus:
                found[-1] = Stretch(found[-1].first, position + 1, group.gpus)
            else:
                found.append(Stretch(position, position + 1, group.gpus))
        return tuple(found)


class Listener(Protocol):
    """Receives what happens during a run; the progress display is one."""

    def planned(self, plan: Plan, committed: int) -> None:
        """A pipeline is about to run; `committed` shards are done already."""
        ...

    def shard_done(self, plan: Plan, report: Mapping[str, Any]) -> None:
        """A shard was committed or is dead."""
        ...


def check_chain(input_schema: Schema, specs: Sequence[StageSpec]) -> None:
    """Checks before any work that each stage finds the columns it consumes, with their types.

    Raises:
        ConfigError: A stage would miss a column, naming the stage and the column.
    """
    have: dict[str, pa.DataType] = {f.name: f.arrow().type for f in input_schema.fields}
    for spec in specs:
        for column in spec.consumes.fields:
            if have.get(column.name) != column.arrow().type:
                raise ConfigError(
                    f"stage '{spec.name}' needs column '{column.name}' ({column.type}) of {spec.consumes}, which no "
                    f"stage before it provides; put the stage that makes it earlier in the pipeline"
                )
        made = {f.name: f.arrow().type for f in spec.produces.fields}
        have = {**have, **made} if spec.shape == "map" else made
