"""A remote file reads like a local one, with few requests."""

import io

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.core.errors import TransientStorageError
from data_engine.io.remote import ranges
from data_engine.io.remote.ranges import TAIL_BYTES, WHOLE_BYTES, RangeFile


class Store:
    """Holds one object and counts what is asked for."""

    def __init__(self, content, fail_after=None):
        self.content, self.fail_after, self.requests = content, fail_after, []

    def _count(self, *request):
        self.requests.append(request)
        if self.fail_after is not None and len(self.requests) > self.fail_after:
            raise TransientStorageError("the store is down")

    def fetch(self, start, stop):
        self._count(start, stop)
        return self.content[start:stop]

    def suffix(self, count):
        self._count(-count)
        return self.content[-count:]

    def measure(self):
        self._count("size")
        return len(self.content)

    def opened(self, size=None, suffix=True):
        raw = RangeFile(self.fetch, self.measure, size, self.suffix if suffix else None)
        return io.BufferedReader(raw, 4096)


MOVES = st.lists(
    st.tuples(st.integers(0, 3000), st.integers(0, 3000), st.sampled_from(["seek", "on", "end"])), max_size=12
)


@given(st.integers(0, 2500), MOVES, st.booleans(), st.booleans())
def test_any_order_of_reads_gives_the_bytes_of_the_file(size, moves, known, suffix):
    content = bytes(i * 7 % 251 for i in range(size))
    sizes = {"WHOLE_BYTES": 300, "TAIL_BYTES": 100, "_FIRST_WINDOW": 40, "_LAST_WINDOW": 160}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in sizes.items():
            patch.setattr(ranges, name, value)
        raw = Store(content)
        remote = raw.opened(size if known else None, suffix)
        local = io.BytesIO(content)
        for offset, count, how in moves:
            if how == "seek":
                assert remote.seek(offset) == local.seek(offset)
            elif how == "end":
                assert remote.seek(-min(offset, size), io.SEEK_END) == local.seek(-min(offset, size), io.SEEK_END)
            assert remote.read(count) == local.read(count)
            assert remote.tell() == local.tell()


def arrow_file(rows, width):
    table = pa.table({"small": list(range(rows)), "sound": [bytes(width)] * rows})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        for start in range(0, rows, 64):
            writer.write_table(table.slice(start, 64))
    return table, sink.getvalue().to_pybytes()


@pytest.mark.parametrize("known", [True, False])
def test_a_small_part_is_one_request(known):
    table, content = arrow_file(200, 100)
    store = Store(content)
    reader = pa.ipc.open_file(store.opened(len(content) if known else None))
    assert reader.read_all().equals(table)
    assert len(store.requests) == 1


def test_a_large_part_is_read_from_its_end_and_then_forward():
    table, content = arrow_file(256, 80_000)
    assert len(content) > 2 * WHOLE_BYTES
    store = Store(content)
    assert pa.ipc.open_file(store.opened(len(content))).read_all().equals(table)
    assert store.requests[0] == (len(content) - TAIL_BYTES, len(content))
    assert len(store.requests) <= 8
    assert sum(stop - start for start, stop in store.requests) < 1.2 * len(content)


def test_columns_that_are_not_asked_for_are_not_fetched():
    table, content = arrow_file(256, 80_000)
    store = Store(content)
    options = pa.ipc.IpcReadOptions(included_fields=[0])
    assert pa.ipc.open_file(store.opened(len(content)), options=options).read_all().column(0).equals(table.column(0))
    assert sum(stop - start for start, stop in store.requests) < 0.2 * len(content)


def test_a_failing_store_is_seen_as_such_through_arrow():
    _, content = arrow_file(256, 80_000)
    with pytest.raises(TransientStorageError, match="the store is down"):
        pa.ipc.open_file(Store(content, fail_after=0).opened(len(content)))
    reader = pa.ipc.open_file(Store(content, fail_after=2).opened(len(content)))
    with pytest.raises(TransientStorageError, match="the store is down"):
        reader.read_all()


def test_a_file_that_is_shorter_than_promised_is_damaged_not_short():
    store = Store(b"x" * 90)
    with pytest.raises(OSError, match="ends at byte 90; 100 bytes were expected"):
        store.opened(100).read()
