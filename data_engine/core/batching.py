"""Packs rows into batches: fixed order, at most n rows, at most s seconds of audio."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data_engine.core.stage import BatchHint


def row_seconds(batch: pa.RecordBatch) -> npt.NDArray[np.float64]:
    """Returns seconds of audio per row, float64 [rows]; zeros when the rows carry no audio."""
    names = batch.schema.names
    if "num_samples" not in names or "sample_rate" not in names:
        return np.zeros(batch.num_rows)
    samples = batch.column(names.index("num_samples")).fill_null(0).to_numpy(zero_copy_only=False)
    rate = batch.column(names.index("sample_rate")).fill_null(1).to_numpy(zero_copy_only=False)
    return np.asarray(samples / np.maximum(rate, 1), np.float64)


def batch_seconds(batch: pa.RecordBatch) -> float:
    """Returns the seconds of audio in a batch."""
    return float(row_seconds(batch).sum())


def pack(batches: Iterable[pa.RecordBatch], hint: BatchHint) -> Iterator[pa.RecordBatch]:
    """Yields the rows of `batches`, in order, in batches that obey `hint`.

    A batch is closed when the next row would break a limit; one row longer than `max_seconds` is a batch of
    its own. The cut depends on the rows only, so results do not depend on how they arrived.
    """
    pending: list[pa.RecordBatch] = []
    rows, seconds = 0, 0.0
    for batch in batches:
        lengths = row_seconds(batch)
        start = 0
        for index in range(batch.num_rows):
            full = rows >= hint.max_rows
            too_long = hint.max_seconds is not None and seconds + lengths[index] > hint.max_seconds
            if rows and (full or too_long):
                yield _join([*pending, batch.slice(start, index - start)])
                pending, start, rows, seconds = [], index, 0, 0.0
            rows, seconds = rows + 1, seconds + float(lengths[index])
        pending.append(batch.slice(start))
    if rows:
        yield _join(pending)


def _join(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    filled = [batch for batch in batches if batch.num_rows]
    return filled[0] if len(filled) == 1 else pa.concat_batches(filled)
