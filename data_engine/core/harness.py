"""Runs one stage over the rows of a shard: packs batches, enforces the conservation law, collects rejects.

The harness owns ids, order, counting and errors; a stage owns nothing but its own columns.
"""

from __future__ import annotations

import errno
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data_engine.core.batching import batch_seconds, pack
from data_engine.core.errors import (
    BatchError,
    ConfigError,
    ContractError,
    EngineError,
    RecordError,
    ShardError,
    StorageError,
)
from data_engine.core.redaction import public_uri, redact
from data_engine.core.schema import load_schema
from data_engine.core.stage import FoldStage, Reject, Stage, StageResult, StageSpec

_FATAL = (ConfigError, ContractError, StorageError, ShardError)


@dataclass(slots=True)
class StageStats:
    """What one stage did to one shard; sums over shards are run totals."""

    stage: str
    rows_in: int = 0
    rows_out: int = 0
    rejected: int = 0
    unused: int = 0
    seconds_in: float = 0.0
    seconds_out: float = 0.0
    wall_seconds: float = 0.0
    reject_codes: Counter[str] = field(default_factory=Counter)
    unused_reasons: Counter[str] = field(default_factory=Counter)
    metrics: Counter[str] = field(default_factory=Counter)

    def as_dict(self) -> dict[str, Any]:
        """Returns plain JSON types."""
        return {name: _plain(getattr(self, name)) for name in self.__slots__}


def _plain(value: Any) -> Any:
    if isinstance(value, Counter):
        return dict(sorted(value.items()))
    return round(value, 6) if isinstance(value, float) else value


class StageRun:
    """One opened stage over one shard.

    Args:
        stage: Opened stage.
        signature: Signature of the stage, stamped into each reject.
        attempt: Attempt of the shard, from 1.
    """

    def __init__(self, stage: Stage, signature: str, attempt: int = 1) -> None:
        self.stage, self.spec = stage, stage.spec
        self.signature, self.attempt = signature, attempt
        self.stats = StageStats(self.spec.name)
        self.rejects: list[dict[str, Any]] = []
        self._open_ids: set[str] = set()
        self._ids_out: set[str] = set()
        self._parents_seen: set[str] = set()

    def run(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yields the stage's output rows for `batches`.

        Raises:
            ContractError: The stage broke the conservation law or its schema.
        """
        for batch in pack(batches, self.spec.batch):
            self.stats.rows_in += batch.num_rows
            self.stats.seconds_in += batch_seconds(batch)
            for part, result in self._attempts(batch):
                yield from self._accept(part, result)
        if isinstance(self.stage, FoldStage):
            started = time.perf_counter()
            result = self.stage.finish()
            self.stats.wall_seconds += time.perf_counter() - started
            yield from self._accept(None, result)
            self._check_fold()

    def _attempts(self, batch: pa.RecordBatch) -> Iterator[tuple[pa.RecordBatch, StageResult]]:
        """Processes a batch; on failure halves it until the one row that fails is alone."""
        view, result = self._view(batch), None
        started = time.perf_counter()
        try:
            result = self.stage.process(view)
        except _FATAL:
            raise
        except Exception as error:
            if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                raise StorageError(f"no space left on the device while running stage '{self.spec.name}'") from error
            if self.spec.shape == "fold":
                raise ShardError(f"stage '{self.spec.name}' failed: {type(error).__name__}: {error}") from error
            result = self._give_up(view, error) if batch.num_rows == 1 else None
        finally:
            self.stats.wall_seconds += time.perf_counter() - started
        if result is not None:
            yield batch, result
            return
        half = batch.num_rows // 2
        yield from self._attempts(batch.slice(0, half))
        yield from self._attempts(batch.slice(half))

    def _view(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        self.spec.consumes.check(batch, f"input of stage '{self.spec.name}'")
        return batch.select(list(self.spec.consumes.names))

    def _give_up(self, row: pa.RecordBatch, error: Exception) -> StageResult:
        record_id = row.column(row.schema.get_field_index(self.spec.consumes.id))[0].as_py()
        if isinstance(error, RecordError):
            code, detail = error.code, error.detail
        elif _does_not_fit(error):
            code, detail = "OUT_OF_MEMORY", f"does not fit even alone: {error}"
        else:
            code, detail = "INTERNAL", f"{type(error).__name__}: {error}"
        reject = Reject(record_id, code, detail, None if isinstance(error, EngineError) else type(error).__name__)
        return StageResult(self.spec.produces.batch([]), [reject])

    def _accept(self, batch: pa.RecordBatch | None, result: StageResult) -> Iterator[pa.RecordBatch]:
        self.spec.produces.check(result.rows, f"output of stage '{self.spec.name}'")
        self._count(batch, result)
        if self.spec.shape == "map" and batch is not None:
            rows = self._merge(batch, result)
        else:
            self._check_rows(batch, result)
            rows = result.rows
        self.stats.rows_out += rows.num_rows
        self.stats.seconds_out += batch_seconds(rows)
        if rows.num_rows:
            yield rows

    def _count(self, batch: pa.RecordBatch | None, result: StageResult) -> None:
        self.stats.rejected += len(result.rejects)
        self.stats.unused += len(result.unused)
        self.stats.reject_codes.update(r.code for r in result.rejects)
        self.stats.unused_reasons.update(result.unused.values())
        self.stats.metrics.update(result.metrics)
        allowed = next(f for f in load_schema("reject").fields if f.name == "code").values or ()
        references = _references(batch, self.spec) if batch is not None and result.rejects else {}
        for reject in result.rejects:
            if reject.code not in allowed:
                raise ContractError(f"stage '{self.spec.name}' used the unknown reject code '{reject.code}'")
            self.rejects.append(self._reject_row(reject, references.get(reject.record_id)))

    def _reject_row(self, reject: Reject, reference: str | None) -> dict[str, Any]:
        return {
            "record_id": reject.record_id, "stage": self.spec.name, "stage_signature": self.signature,
            "code": reject.code, "detail": redact(reject.detail), "exception": reject.exception,
            "input_ref": public_uri(reject.input_ref or reference or "") or None, "attempt": self.attempt,
        }  # fmt: skip

    def _merge(self, batch: pa.RecordBatch, result: StageResult) -> pa.RecordBatch:
        """Checks `ids out + ids rejected == ids in, in order`, and adds the new columns to the rows."""
        ids_in = _ids(batch, self.spec.consumes.id)
        ids_out = _ids(result.rows, self.spec.produces.id)
        rejected = {r.record_id for r in result.rejects}
        if [i for i in ids_in if i not in rejected] != ids_out or len(ids_out) + len(rejected) != len(ids_in):
            raise ContractError(_breach(self.spec.name, set(ids_in), set(ids_out) | rejected))
        if rejected:
            batch = batch.filter(pa.array([i not in rejected for i in ids_in]))
        for name in self.spec.produces.names:
            column = result.rows.column(result.rows.schema.get_field_index(name))
            index = batch.schema.get_field_index(name)
            if index < 0:
                batch = batch.append_column(name, column)
            elif name != self.spec.produces.id:
                batch = batch.set_column(index, name, column)
        return batch

    def _check_rows(self, batch: pa.RecordBatch | None, result: StageResult) -> None:
        """Checks `expand` at once and takes the books of `fold` forward; ids must be new in the shard."""
        ids_out = _ids(result.rows, self.spec.produces.id)
        if len(set(ids_out)) < len(ids_out) or self._ids_out.intersection(ids_out):
            raise ContractError(f"stage '{self.spec.name}' returned the same {self.spec.produces.id} twice")
        self._ids_out.update(ids_out)
        parents = _parents(result.rows, self.spec.parents)
        rejected = {r.record_id for r in result.rejects}
        if batch is not None:
            self._open_ids.update(_ids(batch, self.spec.consumes.id))
        accounted = parents | rejected | set(result.unused)
        twice = (parents & rejected) | (rejected & set(result.unused)) | (parents & set(result.unused))
        if not accounted <= self._open_ids or twice:
            raise ContractError(_breach(self.spec.name, self._open_ids, accounted, twice))
        if self.spec.shape == "expand":
            if accounted != self._open_ids:
                raise ContractError(_breach(self.spec.name, self._open_ids, accounted))
            self._open_ids.clear()
        else:
            self._open_ids -= rejected | set(result.unused)
            self._parents_seen |= parents

    def _check_fold(self) -> None:
        left = self._open_ids - self._parents_seen
        if left:
            raise ContractError(_breach(self.spec.name, left, set()))


def _does_not_fit(error: Exception) -> bool:
    """Tells whether memory ran out: C++ libraries say so in words, torch by name, the rest by MemoryError or errno."""
    if isinstance(error, BatchError | MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    words = ("failed to allocate memory", "bad_alloc", "bad allocation")
    return type(error).__name__ == "OutOfMemoryError" or any(word in str(error).lower() for word in words)


def _references(batch: pa.RecordBatch, spec: StageSpec) -> dict[str, str | None]:
    """Returns where each row came from: its URI, else its parent's id."""
    found = [name for name in ("uri", spec.consumes.parent) if name and name in batch.schema.names]
    return dict(zip(_ids(batch, spec.consumes.id), _ids(batch, found[0]), strict=True)) if found else {}


def _ids(batch: pa.RecordBatch, name: str) -> list[str]:
    return list(batch.column(batch.schema.get_field_index(name)).to_pylist())


def _parents(batch: pa.RecordBatch, name: str | None) -> set[str]:
    if name is None:
        return set()
    column = batch.column(batch.schema.get_field_index(name))
    values = pc.list_flatten(column) if pa.types.is_list(column.type) else column
    return set(values.to_pylist())


def _breach(stage: str, ids_in: set[str], ids_out: set[str], twice: set[str] = frozenset()) -> str:  # type: ignore[assignment]
    lost, invented = sorted(ids_in - ids_out)[:3], sorted(ids_out - ids_in)[:3]
    return (
        f"stage '{stage}' broke the conservation law: lost {lost or 'none'}, invented {invented or 'none'}, "
        f"counted twice {sorted(twice)[:3] or 'none'}, or changed the order. This is a bug of the stage."
    )
