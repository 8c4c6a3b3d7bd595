"""What ends a worker or runs out of memory: one dead shard or one reject, and everything else is kept."""

import pytest

from data_engine.runners.books import dead_name, dead_shards
from tests.plugins import probe_stages as probe
from tests.runners.test_local import Silent, carried_out, kept_rows, planned, read_rejects  # noqa: F401

LIMIT = {"memory_limit": "600MB"}


def test_a_segfault_is_one_dead_shard_and_after_the_fix_none(planned, tmp_path):  # noqa: F811
    seeds = [1, 2, probe.SEGFAULT, 4, 5, 6]
    storage, plan = planned(seeds, notes=str(tmp_path / "mended"))
    dead = carried_out(plan, "local", 2, Silent())
    assert [(report["shard"], report["attempts"]) for report in dead] == [(1, 3)]
    assert "SIGSEGV" in dead[0]["reason"]
    assert len(kept_rows(storage, plan)) == 2
    (tmp_path / "mended").touch()
    assert carried_out(plan, "local", 2, Silent()) == []
    undisturbed, same_plan = planned(seeds, out="undisturbed", notes=str(tmp_path / "mended"))
    carried_out(same_plan, "local", 2, Silent())
    assert kept_rows(storage, plan) == kept_rows(undisturbed, same_plan)


@pytest.mark.parametrize("library", ["numpy", "arrow", "onnx"])
def test_a_row_that_breaks_the_memory_limit_is_rejected_and_its_neighbours_are_kept(planned, library):  # noqa: F811
    hungry = next(seed for seed, way in probe.CRASHES.items() if way == library)
    storage, plan = planned([1, 2, hungry, 4, 5, 6])
    assert carried_out(plan, "local", 1, Silent(), LIMIT) == []
    assert [(row["record_id"], row["code"]) for row in read_rejects(storage)] == [("b2", "OUT_OF_MEMORY")]
    assert [report["stages"][0]["rows_out"] for report in _records(storage)] == [2, 1, 2]


def test_without_a_limit_the_same_rows_fit(planned):  # noqa: F811
    storage, plan = planned([probe.NUMPY, probe.ARROW, probe.ONNX])
    assert carried_out(plan, "local", 1, Silent()) == []
    assert read_rejects(storage) == []


def test_rejects_are_the_same_bytes_after_a_worker_died(planned, tmp_path):  # noqa: F811
    storage, plan = planned([probe.REJECT, probe.FAIL_ONCE], notes=str(tmp_path / "flag"))
    listener = Silent()
    assert carried_out(plan, "local", 1, listener) == []
    assert listener.reports[0]["groups"][0]["attempt"] == 2
    undisturbed, same_plan = planned([probe.REJECT, probe.FAIL_ONCE], out="again", notes=str(tmp_path / "flag"))
    carried_out(same_plan, "local", 1, Silent())
    assert [r["sha256"] for r in _records(storage)] == [r["sha256"] for r in _records(undisturbed)]


def test_a_dead_shard_that_was_committed_by_a_driver_that_died_is_forgotten(planned):  # noqa: F811
    storage, plan = planned([1, 2])
    carried_out(plan, "local", 1, Silent())
    storage.write_json(dead_name("prefer", 0), {"shard": 0, "status": "dead", "reason": "long ago", "attempts": 3})
    carried_out(plan, "local", 1, Silent())
    assert dead_shards(storage, "prefer") == []


def _records(storage):
    return [storage.read_json(f"rejects/prefer.only/{n}") for n in storage.list("rejects/prefer.only") if "json" in n]
