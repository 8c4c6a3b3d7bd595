"""The harness owns ids, order, counting and errors; a stage that breaks the law stops the run."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.core.errors import BatchError, ConfigError, ContractError, RecordError, ShardError
from data_engine.core.harness import StageRun
from data_engine.core.schema import load_schema
from data_engine.core.stage import BatchHint, Reject, StageResult, StageSpec, column, each

BRIEF = load_schema("brief")
SCRIPT = load_schema("script")


def briefs(count, start=0):
    rows = [{"brief_id": f"b{i}", "language": "en", "axis": "x", "seed": i} for i in range(start, start + count)]
    return BRIEF.batch(rows)


class MapStage:
    def __init__(self, process, max_rows=100):
        produces = BRIEF.pick("axis")
        self.spec = StageSpec("probe", "1", BRIEF, produces, "map", batch=BatchHint(max_rows))
        self._process = process
        self.sizes = []

    def open(self, worker): ...

    def process(self, batch):
        self.sizes.append(batch.num_rows)
        return self._process(self, batch)

    def close(self): ...


def rowwise(function):
    return lambda stage, batch: each(batch, stage.spec.produces, lambda row: {"axis": function(row["seed"])})


def run(stage, batches):
    harness = StageRun(stage, "sig")
    rows = [row for batch in harness.run(batches) for row in batch.to_pylist()]
    return rows, harness


@given(st.lists(st.integers(0, 40), max_size=60), st.integers(1, 9), st.integers(1, 7))
def test_every_row_of_a_map_is_a_row_or_a_reject_in_order(seeds, max_rows, chunk):
    def handle(seed):
        if seed % 3 == 0:
            raise RecordError("TOO_SHORT", "three")
        return f"axis {seed}"

    rows = BRIEF.batch([{"brief_id": f"b{i}", "language": "en", "axis": "x", "seed": s} for i, s in enumerate(seeds)])
    batches = [rows.slice(i, chunk) for i in range(0, rows.num_rows, chunk)]
    out, harness = run(MapStage(rowwise(handle), max_rows), batches)
    assert [r["brief_id"] for r in out] == [f"b{i}" for i, s in enumerate(seeds) if s % 3]
    assert all(r["axis"] == f"axis {r['seed']}" and r["language"] == "en" for r in out)
    assert [r["record_id"] for r in harness.rejects] == [f"b{i}" for i, s in enumerate(seeds) if s % 3 == 0]
    assert harness.stats.rows_in == harness.stats.rows_out + harness.stats.rejected == len(seeds)


def lose(batch):
    return StageResult(batch.slice(1).select(["brief_id", "axis"]))


def invent(batch):
    return StageResult(BRIEF.pick("axis").batch([{"brief_id": f"new{i}", "axis": "x"} for i in range(batch.num_rows)]))


def reorder(batch):
    return StageResult(batch.take(pa.array(range(batch.num_rows))[::-1]).select(["brief_id", "axis"]))


def double(batch):
    return StageResult(batch.select(["brief_id", "axis"]), [Reject("b0", "TOO_SHORT", "and still a row")])


@pytest.mark.parametrize("breach", [lose, invent, reorder, double])
def test_a_map_that_loses_invents_reorders_or_doubles_ids_stops_the_run(breach):
    with pytest.raises(ContractError, match="conservation law"):
        run(MapStage(lambda stage, batch: breach(batch)), [briefs(4)])


def test_a_wrong_output_type_stops_the_run():
    wrong = pa.RecordBatch.from_pydict({"brief_id": ["b0"], "axis": [1]})
    with pytest.raises(ContractError, match="'axis' is int64"):
        run(MapStage(lambda stage, batch: StageResult(wrong)), [briefs(1)])


def test_an_unknown_reject_code_stops_the_run():
    result = StageResult(BRIEF.pick("axis").batch([]), [Reject("b0", "NO_SUCH_CODE", "")])
    with pytest.raises(ContractError, match="NO_SUCH_CODE"):
        run(MapStage(lambda stage, batch: result), [briefs(1)])


def test_a_batch_that_does_not_fit_is_halved_until_it_does():
    def process(stage, batch):
        if batch.num_rows > 3:
            raise BatchError("too large")
        return rowwise(str)(stage, batch)

    stage = MapStage(process)
    rows, harness = run(stage, [briefs(16)])
    assert [r["axis"] for r in rows] == [str(i) for i in range(16)]
    assert harness.rejects == []
    assert max(stage.sizes[:1]) == 16 and stage.sizes.count(2) == 8


def test_the_one_row_that_never_fits_is_rejected_and_its_neighbours_are_kept():
    def process(stage, batch):
        if 5 in column(batch, "seed"):
            raise MemoryError("5 is huge")
        return rowwise(str)(stage, batch)

    rows, harness = run(MapStage(process), [briefs(9)])
    assert [r["seed"] for r in rows] == [0, 1, 2, 3, 4, 6, 7, 8]
    assert [(r["record_id"], r["code"]) for r in harness.rejects] == [("b5", "OUT_OF_MEMORY")]


def test_an_unexpected_error_rejects_the_row_that_causes_it_with_its_type():
    def process(stage, batch):
        if 2 in column(batch, "seed"):
            raise ZeroDivisionError("bad row")
        return rowwise(str)(stage, batch)

    rows, harness = run(MapStage(process), [briefs(5)])
    assert len(rows) == 4
    reject = harness.rejects[0]
    assert (reject["code"], reject["exception"], reject["attempt"]) == ("INTERNAL", "ZeroDivisionError", 1)
    assert "bad row" in reject["detail"]


def test_a_configuration_error_is_never_turned_into_rejects():
    def process(stage, batch):
        raise ConfigError("no such model")

    with pytest.raises(ConfigError):
        run(MapStage(process), [briefs(3)])


class ExpandStage:
    """Makes `seed` scripts of each brief; rejects briefs when told to."""

    def __init__(self, reject_empty, invent_parent=False):
        self.spec = StageSpec("expand", "1", BRIEF, SCRIPT.pick("brief_id", "language"), "expand", parents="brief_id")
        self.reject_empty, self.invent_parent = reject_empty, invent_parent

    def open(self, worker): ...

    def process(self, batch):
        rows, rejects = [], []
        for row in batch.to_pylist():
            parent = "nobody" if self.invent_parent else row["brief_id"]
            rows += [
                {"dialogue_id": f"{row['brief_id']}-{k}", "brief_id": parent, "language": "en"}
                for k in range(row["seed"])
            ]
            if row["seed"] == 0 and self.reject_empty:
                rejects.append(Reject(row["brief_id"], "NO_CHILDREN", "none"))
        return StageResult(self.spec.produces.batch(rows), rejects)

    def close(self): ...


def test_an_expand_names_the_parent_of_each_row_and_rejects_the_childless():
    rows, harness = run(ExpandStage(reject_empty=True), [briefs(4)])
    assert [r["brief_id"] for r in rows] == ["b1", "b2", "b2", "b3", "b3", "b3"]
    assert [r["record_id"] for r in harness.rejects] == ["b0"]


@pytest.mark.parametrize("stage", [ExpandStage(reject_empty=False), ExpandStage(True, invent_parent=True)])
def test_an_expand_that_loses_or_invents_a_parent_stops_the_run(stage):
    with pytest.raises(ContractError, match="conservation law"):
        run(stage, [briefs(3)])


class FoldStage:
    """One row of all briefs with an even seed; odd ones are left out on purpose, or forgotten."""

    def __init__(self, forget=False):
        produces = load_schema("voice").pick("segment_ids")
        self.spec = StageSpec("fold", "1", BRIEF, produces, "fold", parents="segment_ids", batch=BatchHint(2))
        self.forget, self.seen = forget, []

    def open(self, worker): ...

    def process(self, batch):
        self.seen += batch.to_pylist()
        return StageResult(self.spec.produces.batch([]))

    def finish(self):
        even = [r["brief_id"] for r in self.seen if r["seed"] % 2 == 0]
        odd = {} if self.forget else {r["brief_id"]: "odd" for r in self.seen if r["seed"] % 2}
        return StageResult(self.spec.produces.batch([{"voice_id": "v", "segment_ids": even}]), unused=odd)

    def close(self): ...


def test_a_fold_accounts_for_every_id_it_saw():
    rows, harness = run(FoldStage(), [briefs(5)])
    assert rows == [{"voice_id": "v", "segment_ids": ["b0", "b2", "b4"]}]
    assert harness.stats.as_dict()["unused_reasons"] == {"odd": 2}


def test_a_fold_that_forgets_an_id_stops_the_run():
    with pytest.raises(ContractError, match="lost \\['b1'"):
        run(FoldStage(forget=True), [briefs(5)])


def test_a_fold_that_fails_fails_the_shard_since_half_of_it_cannot_be_undone():
    stage = FoldStage()
    stage.process = lambda batch: 1 / 0
    with pytest.raises(ShardError, match="ZeroDivisionError"):
        run(stage, [briefs(2)])


def test_an_id_that_appears_twice_in_a_shard_stops_the_run():
    stage = ExpandStage(reject_empty=True)
    with pytest.raises(ContractError, match="twice"):
        run(stage, [briefs(3).slice(2), briefs(3).slice(1, 1), briefs(3).slice(2)])


def test_a_reject_says_where_its_input_came_from():
    recording = load_schema("recording").pick("item_id", "uri", "num_speakers")
    rows = recording.batch([{"recording_id": "r", "item_id": "i", "uri": "s3://b/a.wav"}])

    def refuse(row):
        raise RecordError("NO_SPEECH", "nothing said")

    stage = MapStage(lambda stage, batch: each(batch, stage.spec.produces, refuse))
    picked = recording.pick("num_speakers")
    stage.spec = StageSpec("probe", "1", picked, picked, "map")
    _, harness = run(stage, [rows])
    assert harness.rejects[0]["input_ref"] == "s3://b/a.wav"
    _, harness = run(stage, [rows.drop_columns(["uri"])])
    assert harness.rejects[0]["input_ref"] == "i"
