"""The ledger: what a resumed run and `status` read instead of a marker per shard; markers decide all the same."""

import pytest

from data_engine.core.plan import Group, Plan, Step
from data_engine.io.shards import marker_name
from data_engine.io.storage import Storage
from data_engine.runners import ledger as ledgers
from data_engine.runners.books import claim, folder_state
from data_engine.runners.ledger import Ledger, open_ledgers
from data_engine.runners.totals import Totals

MARKERS = "rejects/curate.only"


class Counted(Storage):
    """A storage that counts the JSON files it reads."""

    count = 0

    def read_json(self, name):
        self.count += 1
        return super().read_json(name)


@pytest.fixture(autouse=True)
def short_files(monkeypatch):
    monkeypatch.setattr(ledgers, "RECORDS_PER_FILE", 8)


@pytest.fixture
def storage(tmp_path):
    return Counted(str(tmp_path))


def record(shard, signature="now", seconds=0.1):
    stats = {"stage": "s", "rows_in": 2, "seconds_in": seconds, "reject_codes": {"SILENT": 1}}
    return {
        "table": MARKERS, "shard": shard, "file": f"part-{shard:05d}-x.arrow", "signature": signature, "group": "only",
        "pipeline": "curate", "wall_seconds": 0.1, "stages": [stats],
        "tables": {"segments": {"file": f"part-{shard:05d}-y.arrow", "rows": 1}},
    }  # fmt: skip


def commit(storage, shards, book=None, **changes):
    for shard in shards:
        found = record(shard, **changes)
        storage.write_json(marker_name(MARKERS, shard), found)
        if book:
            book.add(found)


def fresh(storage, signature="now"):
    return Ledger(storage, "curate", "only", signature)


def test_a_resumed_run_reads_only_the_markers_that_the_ledger_misses(storage):
    commit(storage, range(19), fresh(storage))
    storage.count = 0
    assert fresh(storage).uncommitted(25) == list(range(19, 25))
    assert storage.count == 19 - 16


def test_markers_without_a_ledger_are_read_once_and_then_known(storage):
    commit(storage, range(24))
    assert fresh(storage).uncommitted(24) == []
    storage.count = 0
    assert fresh(storage).uncommitted(24) == []
    assert storage.count == 0


def test_a_marker_that_is_gone_is_not_committed_whatever_the_ledger_says(storage):
    commit(storage, range(16), fresh(storage))
    storage.remove(marker_name(MARKERS, 3))
    assert fresh(storage).uncommitted(16) == [3]
    assert sorted(r["shard"] for r in fresh(storage).records(16)) == [n for n in range(16) if n != 3]


def test_markers_of_another_signature_or_cut_off_do_not_count(storage):
    commit(storage, range(3), signature="before")
    commit(storage, [3])
    storage.write(marker_name(MARKERS, 4), b'{"shard": 4, "sig')
    assert fresh(storage).uncommitted(5) == [0, 1, 2, 4]
    assert [r["shard"] for r in fresh(storage).records(5)] == [3]


def test_a_damaged_ledger_is_read_from_the_markers(storage):
    book = fresh(storage)
    commit(storage, range(16), book)
    storage.write(f"{book.folder}/{storage.list(book.folder)[0]}", b"damaged")
    assert fresh(storage).uncommitted(16) == []
    assert sorted(r["shard"] for r in fresh(storage).records(16)) == list(range(16))


def test_two_drivers_may_keep_one_ledger(storage):
    commit(storage, range(16), fresh(storage))
    commit(storage, range(8, 24), fresh(storage))
    assert fresh(storage).uncommitted(24) == []
    assert sorted(r["shard"] for r in fresh(storage).records(24)) == list(range(24))


def plan_of(storage, word):
    group = Group("only", (Step("probe", {}, "segments", word),))
    return Plan("curate", storage.uri, "source", "work/items/x", (group,), 20, 0, {})


def test_overwritten_runs_lose_their_ledger_with_their_markers(storage):
    first, second = plan_of(storage, "a"), plan_of(storage, "b")
    claim(storage, first, {}, overwrite=False)
    commit(storage, range(20), open_ledgers(storage, first)["only"], signature=first.groups[0].signature)
    claim(storage, second, {}, overwrite=True)
    commit(storage, range(20), signature=second.groups[0].signature)
    claim(storage, first, {}, overwrite=True)
    assert open_ledgers(storage, first)["only"].uncommitted(20) == list(range(20))


def test_the_state_of_a_folder_is_the_same_with_and_without_a_ledger(storage, tmp_path):
    states = []
    for name, with_ledger in (("with", True), ("without", False)):
        folder = Storage(str(tmp_path / name))
        plan = plan_of(folder, "a")
        claim(folder, plan, {}, overwrite=False)
        book = open_ledgers(folder, plan)["only"] if with_ledger else None
        commit(folder, [*range(10, 20), *range(10)], book, signature=plan.groups[0].signature)
        assert bool(folder.list("work/ledger")) == with_ledger
        states.append(folder_state(folder))
    assert states[0] == states[1]
    assert [part["shard"] for part in states[0]["curate"]["tables"]["segments"]] == list(range(20))
    assert states[0]["curate"]["stages"] == [
        {"pipeline": "curate", "stage": "s", "rows_in": 40, "seconds_in": 2.0, "reject_codes": {"SILENT": 20}}
    ]


def test_totals_do_not_depend_on_the_order_of_shards():
    records = [record(n, seconds=n / 7) for n in range(50)]
    forward, backward = Totals(), Totals()
    for one, other in zip(records, reversed(records), strict=True):
        forward.add(one)
        backward.add(other)
    assert forward.stages() == backward.stages()
    assert forward.records["only"] == 50


def test_more_shards_than_five_digits_are_counted_by_number(storage):
    commit(storage, [99_999, 100_000, 123_456])
    found = [r["shard"] for r in fresh(storage).records(200_000)]
    assert found == [99_999, 100_000, 123_456]
    assert 100_000 not in fresh(storage).uncommitted(100_001)
