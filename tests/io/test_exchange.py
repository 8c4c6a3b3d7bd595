"""Rows divided by a key: every row is in exactly one partition, and how rows arrived leaves no trace."""

from hypothesis import given, settings
from hypothesis import strategies as st

from data_engine.core.plan import Partition
from data_engine.core.schema import load_schema
from data_engine.io.exchange import PartitionWriter, ordered, read_partition, write_index
from data_engine.io.shards import marker_name
from data_engine.io.storage import Storage

BRIEF = load_schema("brief")


def rows_of(keys):
    return [{"brief_id": f"b{n:03d}", "language": key, "axis": "x", "seed": n} for n, key in enumerate(keys)]


def written(storage, shards, count, table="work/divided"):
    for shard, rows in enumerate(shards):
        with storage.scratch() as scratch:
            writer = PartitionWriter(BRIEF, scratch, Partition("language", count))
            for row in rows:
                writer.write(BRIEF.batch([row]))
            storage.write_json(marker_name(table, shard), writer.commit(storage, table, shard, {}))
    return write_index(storage, table)


def read(storage, count, table="work/divided"):
    partitions = (read_partition(storage, table, number, "language") for number in range(count))
    return [[row for batch in batches for row in batch.to_pylist()] for batches in partitions]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(["en", "zh", "de", "fr", "ja"]), max_size=30), st.integers(1, 5), st.integers(1, 4))
def test_all_rows_of_a_key_meet_in_one_partition_whatever_the_shards(tmp_path_factory, keys, count, shards):
    storage = Storage(str(tmp_path_factory.mktemp("exchange")))
    rows = rows_of(keys)
    written(storage, [rows[n::shards] for n in range(shards)], count)
    partitions = read(storage, count)
    assert sorted(r["brief_id"] for part in partitions for r in part) == [row["brief_id"] for row in rows]
    homes = [{row["language"] for row in part} for part in partitions]
    assert sum(map(len, homes)) == len(set(keys))
    for part in partitions:
        assert part == sorted(part, key=lambda row: (row["language"], row["brief_id"]))


def test_the_digest_tells_other_rows_and_an_empty_partition_reads_as_nothing(tmp_path):
    storage = Storage(str(tmp_path))
    first = written(storage, [rows_of(["en"])], 3, "work/a")
    assert written(storage, [rows_of(["en"])], 3, "work/b") == first
    assert written(storage, [rows_of(["zh"])], 3, "work/c") != first
    assert sum(map(len, read(storage, 3, "work/a"))) == 1


def test_nothing_in_gives_nothing_out():
    assert list(ordered([], "language")) == []
