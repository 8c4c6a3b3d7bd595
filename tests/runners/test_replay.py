"""Replay: rejected rows run again after a fix, everything else stays as it was, and a kill in between loses nothing."""

import pytest

from data_engine.core.errors import BusyError, ConfigError
from data_engine.io.shards import marker_name
from data_engine.runners.books import claim, read_book
from data_engine.runners.claims import Claim
from data_engine.runners.ledger import Ledger
from data_engine.runners.replay import Selection, count_rejects, find_targets, numbers, revoke_targets
from data_engine.runners.revoked import remove_obsolete
from data_engine.standing import standing
from tests.plugins import probe_stages as probe
from tests.runners.test_local import Silent, carried_out, kept_rows, planned, read_rejects  # noqa: F401

TABLE = "rejects/prefer.only"
SEEDS = [1, 2, probe.UNTIL_MENDED, probe.REJECT, 5, 6]


@pytest.fixture
def rejected(planned, tmp_path):  # noqa: F811
    """A committed run whose shard 1 rejected both rows, one of which has a cause that can be mended."""
    storage, plan = planned(SEEDS, notes=str(tmp_path / "mended"))
    claim(storage, plan, {}, overwrite=False).release()
    assert carried_out(plan, "local", 1, Silent()) == []
    return storage, plan


def files(storage):
    return {f"{t}/{n}" for t in (TABLE, *_work(storage)) for n in storage.list(t) if n.endswith(".arrow")}


def _work(storage):
    return [f"work/{name}" for name in storage.list("work") if name.startswith("prefer.only-")]


def test_only_the_shards_that_rejected_run_again_and_fold_in(rejected, planned, tmp_path):  # noqa: F811
    storage, plan = rejected
    before, old_files = kept_rows(storage, plan), files(storage)
    (tmp_path / "mended").touch()
    targets = find_targets(storage, Selection(codes=frozenset({"INTERNAL"})))
    assert [(t.pipeline, t.shard, dict(t.rejects)) for t in targets] == [("prefer", 1, {("probe", "INTERNAL"): 2})]
    revoke_targets(storage, targets)
    assert old_files <= files(storage), "readers of run.json still find what it names"
    again = Silent()
    carried_out(plan, "local", 1, again)
    assert [report["shard"] for report in again.reports] == [1]
    assert [(r["record_id"], r["attempt"]) for r in read_rejects(storage)] == [("b3", 2)]
    after = kept_rows(storage, plan)
    assert (before[0], before[2]) == (after[0], after[2])
    undisturbed, same_plan = planned(SEEDS, out="undisturbed", notes=str(tmp_path / "mended"))
    carried_out(same_plan, "local", 1, Silent())
    assert after == kept_rows(undisturbed, same_plan)
    assert remove_obsolete(storage) == 2
    assert len(files(storage)) == len(old_files)
    assert remove_obsolete(storage) == 0


def test_a_replay_without_a_fix_changes_no_row(rejected):
    storage, plan = rejected
    before = kept_rows(storage, plan)
    revoke_targets(storage, find_targets(storage, Selection()))
    carried_out(plan, "local", 1, Silent())
    remove_obsolete(storage)
    assert kept_rows(storage, plan) == before
    assert {row["attempt"] for row in read_rejects(storage)} == {2}


def test_a_kill_between_revoking_and_running_is_finished_by_the_next_run(rejected, tmp_path):
    storage, plan = rejected
    (tmp_path / "mended").touch()
    revoke_targets(storage, find_targets(storage, Selection()))
    assert find_targets(storage, Selection()) == []  # nothing is left to take back; the run below does the rest
    carried_out(plan, "local", 1, Silent())
    assert [row["record_id"] for row in read_rejects(storage)] == ["b3"]


def test_a_revoked_commit_does_not_come_back_through_the_ledger(rejected, monkeypatch):
    storage, plan = rejected
    monkeypatch.setattr("data_engine.runners.ledger.RECORDS_PER_FILE", 1)
    ledger = Ledger(storage, "prefer", "only", plan.groups[0].signature)
    for record in list(ledger.records(3)):
        ledger.add(record)
    old = storage.read_json(marker_name(TABLE, 1))["replays"]
    revoke_targets(storage, find_targets(storage, Selection()))
    carried_out(plan, "local", 1, Silent())
    replays = {r["shard"]: r["replays"] for r in Ledger(storage, "prefer", "only", plan.groups[0].signature).records(3)}
    assert (old, replays) == (0, {0: 0, 1: 1, 2: 0})


@pytest.mark.parametrize(
    ("selection", "shards"),
    [
        (Selection(), [1]),
        (Selection(codes=frozenset({"NO_SPEECH"})), []),
        (Selection(stages=frozenset({"probe"})), [1]),
        (Selection(shards=frozenset({0, 2})), [0, 2]),
        (Selection(shards=frozenset({0}), codes=frozenset({"INTERNAL"})), []),
        (Selection(pipelines=frozenset({"prefer"})), [1]),
    ],
)
def test_what_a_selection_picks(rejected, selection, shards):
    assert [target.shard for target in find_targets(rejected[0], selection)] == shards


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        (Selection(codes=frozenset({"INTERNALS"})), "no reject code 'INTERNALS'; known: .*INTERNAL"),
        (Selection(stages=frozenset({"decode"})), "no stage of this run 'decode'; known: probe"),
        (Selection(pipelines=frozenset({"curate"})), "no pipeline of this run 'curate'; known: prefer"),
        (Selection(shards=frozenset({3})), "no shard '3'; known: 0 to 2"),
    ],
)
def test_what_does_not_exist_is_named_with_what_does(rejected, selection, words):
    with pytest.raises(ConfigError, match=words):
        find_targets(rejected[0], selection)


def test_counts_are_by_pipeline_stage_and_code(rejected):
    found = count_rejects(find_targets(rejected[0], Selection()))
    assert found == [{"pipeline": "prefer", "stage": "probe", "code": "INTERNAL", "rejects": 2, "shards": 1}]


def test_ranges_of_shards_are_read_and_nonsense_is_refused():
    assert numbers("3,7, 10-12") == {3, 7, 10, 11, 12}
    assert numbers(None) == frozenset()
    with pytest.raises(ConfigError, match="numbers and ranges"):
        numbers("3;4")


def test_a_folder_that_is_being_written_is_not_replayed(rejected):
    storage, plan = rejected
    with Claim(storage, plan.pipeline, plan.signature), pytest.raises(BusyError, match="being written by process"):
        revoke_targets(storage, find_targets(storage, Selection()))
    assert storage.exists(marker_name(TABLE, 1))


def test_later_pipelines_may_be_replaced_by_the_same_configuration_only(planned):  # noqa: F811
    storage, plan = planned([1])
    claim(storage, plan, {"pair": "a"}, overwrite=False).release()
    stale = type(plan)(**{**{n: getattr(plan, n) for n in plan.__slots__}, "pipeline": "synthesize"})
    claim(storage, stale, {}, overwrite=False).release()
    carried_out(stale, "local", 1, Silent())
    revoke_targets(
        storage, find_targets(storage, Selection(shards=frozenset({0}), pipelines=frozenset({"synthesize"})))
    )
    assert read_book(storage, "prefer").stale
    carried_out(plan, "local", 1, Silent())
    assert not standing(storage, "prefer")[1], "a replay that was killed before it came here is not finished"
    _, other = planned([1], notes="what it reads has changed")
    with pytest.raises(ConfigError, match="another configuration"):
        claim(storage, other, {"pair": "b"}, overwrite=False)
    claim(storage, other, {"pair": "a"}, overwrite=False).release()
    assert not read_book(storage, "prefer").stale
