"""The stage contract: the only thing that touches rows.

A stage says what it reads and what it adds. It returns the id column and its own columns; the harness
(`core.harness`) keeps ids, order, the other columns, counting and errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import pyarrow as pa

from data_engine.core.errors import RecordError
from data_engine.core.schema import Schema

Shape = Literal["map", "expand", "fold"]


@dataclass(frozen=True, slots=True)
class Resources:
    """What one running copy of a stage occupies: a deployment knob, not part of the signature."""

    cpus: float = 1.0
    gpus: float = 0.0


@dataclass(frozen=True, slots=True)
class BatchHint:
    """How many rows at once: a speed knob.

    Attributes:
        max_rows: At most so many rows.
        max_seconds: At most so many seconds of audio, by the columns num_samples and sample_rate.
    """

    max_rows: int = 256
    max_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class StageSpec:
    """What a stage is.

    Attributes:
        name: Name in the registry and in the config.
        version: Raised whenever the stage's output changes for equal input.
        consumes: Columns it needs.
        produces: Columns it returns. `map`: id and new columns. `expand`, `fold`: whole rows.
        shape: `map`: one row out or one reject per row in. `expand`: each output row names its parent.
            `fold`: many rows in, some rows out; each id in is a parent, a reject or declared unused.
        parents: `expand`: the column of `produces` that holds the parent's id.
            `fold`: the list column that holds the ids a row was made of.
        resources: Deployment knob.
        batch: Speed knob.
    """

    name: str
    version: str
    consumes: Schema
    produces: Schema
    shape: Shape
    parents: str | None = None
    resources: Resources = Resources()
    batch: BatchHint = BatchHint()


@dataclass(frozen=True, slots=True)
class Reject:
    """A record that did not make it."""

    record_id: str
    code: str
    detail: str
    exception: str | None = None
    input_ref: str | None = None


@dataclass(slots=True)
class StageResult:
    """What `process` returns.

    Attributes:
        rows: The columns of `spec.produces`.
        rejects: Records that did not make it.
        metrics: Sums to be added up over batches and shards.
        unused: `fold` only: ids that were seen and left out on purpose, with the reason.
    """

    rows: pa.RecordBatch
    rejects: Sequence[Reject] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    unused: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Worker:
    """What a stage may use of the process it runs in.

    Attributes:
        scratch: A folder that lives as long as the shard; the same for all stages of it.
        backend: (role, name, options) -> an opened back end, loaded once per process.
        seed: Seed of the run.
    """

    scratch: Path
    backend: Callable[[str, str, Mapping[str, Any]], Any]
    seed: int = 0


@runtime_checkable
class Stage(Protocol):
    """One verb of the engine. Built from its configuration, opened once per process."""

    @property
    def spec(self) -> StageSpec:
        """What the stage is."""
        ...

    def open(self, worker: Worker) -> None:
        """Loads weights; called before the first batch of each shard, back ends are cached."""
        ...

    def process(self, batch: pa.RecordBatch) -> StageResult:
        """Handles one batch. Raises BatchError when it does not fit, ConfigError to end the run."""
        ...

    def close(self) -> None:
        """Frees what `open` took."""
        ...


@runtime_checkable
class FoldStage(Stage, Protocol):
    """A stage that sees all rows of a shard before it is done."""

    def finish(self) -> StageResult:
        """Returns what is left after the last batch, and forgets everything seen."""
        ...


def each(
    batch: pa.RecordBatch, produces: Schema, function: Callable[[dict[str, Any]], Mapping[str, Any]]
) -> StageResult:
    """Runs a `map` row by row: what raises RecordError becomes a reject, everything else a row.

    Args:
        batch: Input rows; the first column of `produces` that is its id must be among them.
        produces: Columns to return.
        function: Row -> the new columns, without the id.

    Returns:
        Rows and rejects in input order.
    """
    rows: list[dict[str, Any]] = []
    rejects: list[Reject] = []
    for row in iterate_rows(batch):
        try:
            rows.append({produces.id: row[produces.id], **function(row)})
        except RecordError as error:
            rejects.append(Reject(row[produces.id], error.code, error.detail))
    return StageResult(produces.batch(rows), rejects)


def iterate_rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """Yields rows as dictionaries, one at a time, so that only one row's audio is held in Python."""
    names = batch.schema.names
    for index in range(batch.num_rows):
        yield {name: batch.column(position)[index].as_py() for position, name in enumerate(names)}


def column(batch: pa.RecordBatch, name: str) -> list[Any]:
    """Returns one column as a Python list."""
    return list(batch.column(batch.schema.get_field_index(name)).to_pylist())


def concat(batches: Iterable[pa.RecordBatch], schema: Schema) -> pa.RecordBatch:
    """Returns the batches as one."""
    table = pa.Table.from_batches(list(batches), pa.schema([f.arrow() for f in schema.fields]))
    return table.combine_chunks().to_batches(max_chunksize=None)[0] if table.num_rows else schema.batch([])
