"""Parts are whole or invisible; their bytes depend on the rows only."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.core.errors import ContractError, StorageError
from data_engine.core.schema import load_schema
from data_engine.io.items import read_item_shard, write_items
from data_engine.io.shards import PartWriter, committed_parts, marker_name, read_batches, read_table
from data_engine.io.storage import Storage

BRIEF = load_schema("brief")


def briefs(count):
    rows = [{"brief_id": f"b{i}", "language": "en", "axis": "x", "seed": i} for i in range(count)]
    return BRIEF.batch(rows)


def commit(storage, pieces, table="scripts", shard=0):
    with storage.scratch() as folder:
        writer = PartWriter(BRIEF, folder)
        for piece in pieces:
            writer.write(piece)
        marker = writer.commit(storage, table, shard, {"signature": "s"})
    storage.write_json(marker_name(table, shard), marker)
    return marker


@given(st.integers(0, 300), st.integers(1, 97))
def test_the_bytes_of_a_part_depend_on_its_rows_not_on_how_they_arrived(tmp_path_factory, count, chunk):
    storage = Storage(str(tmp_path_factory.mktemp("out")))
    rows = briefs(count)
    whole = commit(storage, [rows])
    cut = commit(storage, [rows.slice(i, chunk) for i in range(0, count, chunk)], shard=1)
    assert whole["sha256"] == cut["sha256"]
    assert whole["rows"] == count


def test_a_part_without_marker_does_not_exist(tmp_path):
    storage = Storage(str(tmp_path))
    commit(storage, [briefs(3)])
    storage.remove(marker_name("scripts", 0))
    assert committed_parts(storage, "scripts") == []
    assert len(storage.list("scripts")) == 1


def test_a_half_written_marker_is_no_marker(tmp_path):
    storage = Storage(str(tmp_path))
    commit(storage, [briefs(3)])
    marker = tmp_path / marker_name("scripts", 0)
    marker.write_text(marker.read_text()[:40])
    assert committed_parts(storage, "scripts") == []


def test_parts_come_in_order_of_shards_beyond_five_digits(tmp_path):
    storage = Storage(str(tmp_path))
    for shard in (100000, 7, 99999):
        commit(storage, [briefs(1)], shard=shard)
    assert [part.shard for part in committed_parts(storage, "scripts")] == [7, 99999, 100000]


def test_a_committed_part_that_is_gone_or_damaged_names_the_remedy(tmp_path):
    storage = Storage(str(tmp_path))
    marker = commit(storage, [briefs(3)])
    part = committed_parts(storage, "scripts")[0]
    path = tmp_path / "scripts" / marker["file"]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(StorageError, match=r"Remove its marker 'scripts/part-00000\.json' and run again"):
        list(read_batches(storage, part))
    path.unlink()
    with pytest.raises(StorageError, match="cannot be read"):
        list(read_batches(storage, part))


def test_a_part_of_another_schema_version_is_refused(tmp_path):
    storage = Storage(str(tmp_path))
    commit(storage, [briefs(3)])
    part = committed_parts(storage, "scripts")[0]
    part.marker["schema"] = "brief.v2"
    with pytest.raises(ContractError, match=r"holds brief\.v1, its marker says brief\.v2"):
        list(read_batches(storage, part))


def test_rows_without_a_nullable_column_are_filled_and_others_are_refused(tmp_path):
    voice = load_schema("reject")
    storage = Storage(str(tmp_path))
    with storage.scratch() as folder:
        writer = PartWriter(voice, folder)
        names = ["record_id", "stage", "stage_signature", "code", "detail"]
        full = pa.RecordBatch.from_pydict({**{name: ["x"] for name in names}, "attempt": pa.array([1], pa.int32())})
        writer.write(full)
        with pytest.raises(ContractError, match="code"):
            writer.write(full.drop_columns(["code"]))
        writer.discard()


def test_an_empty_table_reads_as_its_schema(tmp_path):
    assert read_table(str(tmp_path), "voices").schema.names == list(load_schema("voice").names)


@pytest.mark.parametrize(("rows", "per_shard", "shards"), [(0, 4, 0), (1, 4, 1), (9, 4, 3), (3000, 2, 1500)])
def test_items_are_divided_once_and_read_by_number(tmp_path, rows, per_shard, shards):
    storage = Storage(str(tmp_path))
    table = pa.Table.from_batches([briefs(rows)])
    assert write_items(storage, "work/items", table, per_shard) == shards
    back = [b for s in range(shards) for b in read_item_shard(storage, "work/items", s)]
    assert [i for b in back for i in b.column(0).to_pylist()] == [f"b{i}" for i in range(rows)]
    assert all(b.num_rows <= per_shard for b in back)
