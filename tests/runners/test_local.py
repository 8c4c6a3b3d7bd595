"""The local runner: resume, crashes, dead shards, and what ends a run."""

import pyarrow as pa
import pytest

from data_engine.core.errors import ConfigError
from data_engine.core.plan import Plan
from data_engine.core.schema import load_schema
from data_engine.io.items import write_items
from data_engine.io.shards import committed_parts, marker_name, read_table
from data_engine.io.storage import Storage
from data_engine.runners.books import claim, folder_state
from data_engine.runners.run import execute, open_runner
from pipelines.compose import Verb, compose
from tests.plugins import probe_stages as probe


class Silent:
    def __init__(self):
        self.reports = []
        self.committed = None

    def planned(self, plan, committed):
        self.committed = committed

    def shard_done(self, plan, report):
        self.reports.append(report)


def carried_out(plan, kind, workers, listener, options=None):
    with open_runner(kind, workers, options or {}) as runner:
        return execute(plan, runner, listener)


@pytest.fixture
def planned(tmp_path, plugin):
    def make(seeds, per_shard=2, out="out", **settings):
        storage = Storage(str(tmp_path / out))
        brief = load_schema("brief")
        rows = [{"brief_id": f"b{i}", "language": "en", "axis": "x", "seed": s} for i, s in enumerate(seeds)]
        table = pa.Table.from_batches([brief.batch(rows)])
        groups = compose(brief, "items", [("only", [Verb("probe", probe.ProbeConfig(**settings))])])
        groups = tuple(type(g)(g.name, g.steps, keep=True) for g in groups)
        shards = write_items(storage, "work/items/x", table, per_shard)
        return storage, Plan("prefer", storage.uri, "brief", "work/items/x", groups, shards, 0, {})

    return make


def kept_rows(storage, plan):
    folder = next(name for name in storage.list("work") if name.startswith("prefer.only-"))
    parts = committed_parts(storage, f"work/{folder}")
    return [part.marker["sha256"] for part in parts]


def test_one_and_two_processes_write_the_same_bytes(planned):
    hashes = []
    for workers in (1, 2):
        storage, plan = planned([1, 2, 3, probe.REJECT, 5, 6, 7], out=f"out{workers}")
        assert carried_out(plan, "local", workers, Silent()) == []
        hashes.append(kept_rows(storage, plan))
    assert hashes[0] == hashes[1]
    assert len(hashes[0]) == 4


def test_a_finished_run_does_nothing_and_a_lost_marker_is_made_again(planned):
    storage, plan = planned([1, 2, 3, 4])
    carried_out(plan, "local", 1, Silent())
    before = kept_rows(storage, plan)
    again = Silent()
    carried_out(plan, "local", 1, again)
    assert (again.committed, again.reports) == (2, [])
    storage.remove(marker_name("rejects/prefer.only", 1))
    once_more = Silent()
    carried_out(plan, "local", 1, once_more)
    assert [r["shard"] for r in once_more.reports] == [1]
    assert kept_rows(storage, plan) == before


def test_a_process_that_dies_is_replaced_and_its_shard_tried_again(planned, tmp_path):
    storage, plan = planned([1, 2, probe.FAIL_ONCE, 4, 5, 6], notes=str(tmp_path / "flag"))
    listener = Silent()
    assert carried_out(plan, "local", 2, listener) == []
    assert sorted(r["shard"] for r in listener.reports) == [0, 1, 2]


def test_a_shard_that_kills_every_process_is_dead_and_the_rest_is_committed(planned):
    storage, plan = planned([1, 2, probe.CRASH, 4, 5, 6])
    dead = carried_out(plan, "local", 2, Silent())
    assert [(r["shard"], r["attempts"]) for r in dead] == [(1, 3)]
    assert "exit code 7" in dead[0]["reason"]
    claim(storage, plan, {}, overwrite=False)
    state = folder_state(storage)["prefer"]
    assert state["shards"] == {"planned": 3, "committed": 2, "dead": 1}


def test_after_the_fix_a_dead_shard_is_finished_and_no_longer_dead(planned):
    storage, plan = planned([1, probe.CRASH])
    assert len(carried_out(plan, "local", 1, Silent())) == 1
    storage, mended = planned([1, probe.CRASH], mode="careful")
    assert carried_out(mended, "local", 1, Silent()) == []
    assert storage.list("work/dead") == []


def test_a_configuration_error_in_a_worker_ends_the_run(planned):
    _, plan = planned([1, 2, probe.END])
    with pytest.raises(ConfigError, match="asked to end"):
        carried_out(plan, "local", 2, Silent())


def test_rejects_are_rows_with_stage_signature_and_attempt(planned):
    storage, plan = planned([1, probe.REJECT])
    carried_out(plan, "local", 1, Silent())
    row = read_rejects(storage)[0]
    assert (row["record_id"], row["stage"], row["code"], row["attempt"]) == ("b1", "probe", "INTERNAL", 1)
    assert row["stage_signature"] == plan.groups[0].steps[0].signature


def read_rejects(storage):
    from data_engine.io.shards import read_batches

    parts = committed_parts(storage, "rejects/prefer.only")
    return [row for part in parts for batch in read_batches(storage, part) for row in batch.to_pylist()]


def test_a_folder_of_another_configuration_is_refused_with_what_changed(planned):
    storage, plan = planned([1])
    claim(storage, plan, {"probe": {"notes": "a"}}, overwrite=False)
    _, other = planned([1], notes="b")
    with pytest.raises(ConfigError, match=r"another configuration \(probe.notes: 'a' -> 'b'\).*--overwrite"):
        claim(storage, other, {"probe": {"notes": "b"}}, overwrite=False)
    claim(storage, other, {"probe": {"notes": "b"}}, overwrite=True)
    claim(storage, other, {"probe": {"notes": "b"}}, overwrite=False)


def test_an_unfinished_table_reads_as_empty(planned):
    storage, _ = planned([1])
    assert read_table(storage.uri, "segments").num_rows == 0
