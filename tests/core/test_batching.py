"""Batches obey both limits, keep order, and do not depend on how rows arrived."""

from hypothesis import given
from hypothesis import strategies as st

from data_engine.core.batching import pack, row_seconds
from data_engine.core.schema import load_schema
from data_engine.core.stage import BatchHint

SEGMENT = load_schema("candidate").pick("num_samples", "sample_rate")


def rows(lengths):
    return SEGMENT.batch(
        [{"candidate_id": str(i), "num_samples": n, "sample_rate": 100} for i, n in enumerate(lengths)]
    )


@given(st.lists(st.integers(0, 5000), max_size=50), st.integers(1, 8), st.integers(1, 40), st.integers(1, 11))
def test_batches_obey_the_limits_and_depend_on_the_rows_only(lengths, max_rows, max_seconds, chunk):
    batch = rows(lengths)
    pieces = [batch.slice(i, chunk) for i in range(0, batch.num_rows, chunk)]
    hint = BatchHint(max_rows, max_seconds)
    packed = list(pack(pieces, hint))
    assert [i for p in packed for i in p.column(0).to_pylist()] == batch.column(0).to_pylist()
    assert all(p.num_rows <= max_rows for p in packed)
    assert all(row_seconds(p).sum() <= max_seconds or p.num_rows == 1 for p in packed)
    assert [p.num_rows for p in packed] == [p.num_rows for p in pack([batch], hint)]


def test_rows_without_audio_are_limited_by_their_number_only():
    batch = load_schema("brief").batch(
        [{"brief_id": str(i), "language": "en", "axis": "a", "seed": 1} for i in range(5)]
    )
    assert [p.num_rows for p in pack([batch], BatchHint(2, 0.1))] == [2, 2, 1]
