"""The Dask runner: the same bytes as local, dead shards instead of failed runs, errors that end a run."""

import os
import signal
import subprocess
import sys
import threading
import time

import pyarrow as pa
import pytest

import data_engine
from data_engine.core.errors import ClusterError, ConfigError, StorageError
from data_engine.core.plan import Plan
from data_engine.core.schema import load_schema
from data_engine.io.items import write_items
from data_engine.io.shards import committed_parts
from data_engine.io.storage import Storage
from data_engine.runners.run import execute, open_runner
from data_engine.runners.shard import work_table
from pipelines.compose import Verb, compose
from tests.conftest import CHECKOUT, PLUGINS
from tests.e2e.conftest import heed_ctrl_c
from tests.plugins import cluster_stages as stages
from tests.plugins import probe_stages as probe
from tests.runners.dask_cluster import CommandLineCluster, wait_until, where
from tests.runners.test_local import Silent, carried_out, kept_rows, planned  # noqa: F401

pytestmark = pytest.mark.xdist_group("dask")
SEEDS = [1, 2, 3, probe.REJECT, 5, 6, 7]


@pytest.fixture(scope="module")
def local_cluster():
    """One runner for many tests, as one run has it for all its pipelines."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(PLUGINS), *sys.path])
        patch.setenv("PYTHONPATH", os.pathsep.join([str(PLUGINS), os.environ.get("PYTHONPATH", "")]))
        with open_runner("dask", 2, {}) as runner:
            yield runner


@pytest.fixture(scope="module")
def mixed_cluster(tmp_path_factory):
    """A cluster of somebody else: one worker with a GPU, two without."""
    with CommandLineCluster(tmp_path_factory.mktemp("mixed")) as cluster:
        cluster.scheduler()
        cluster.worker("gpu0", "--resources", "GPU=1")
        cluster.worker("cpu0")
        cluster.worker("cpu1")
        cluster.wait_for_workers()
        yield cluster


@pytest.fixture
def passed_on(tmp_path, plugin):
    """Plans whose shards go from a CPU to a GPU and back."""

    def make(rows, out, kinds=("where-cpu", "where-gpu", "where-cpu"), pause=0.0, hungry=()):
        storage, brief = Storage(str(tmp_path / out)), load_schema("brief")
        seeds = [stages.HUNGRY if index in hungry else 1 for index in range(rows)]
        items = [{"brief_id": f"b{i}", "language": "en", "axis": "x", "seed": s} for i, s in enumerate(seeds)]
        table = pa.Table.from_batches([brief.batch(items)])
        config = stages.WhereConfig(notes=str(tmp_path / "notes"), pause=pause)
        groups = compose(brief, "items", [("only", [Verb(kind, config) for kind in kinds])])
        groups = (*groups[:-1], type(groups[-1])(groups[-1].name, groups[-1].steps, keep=True))
        shards = write_items(storage, "work/items/x", table, 1)
        return storage, Plan("prefer", storage.uri, "brief", "work/items/x", groups, shards, 0, {})

    make.notes = tmp_path / "notes"
    return make


def last_rows(storage, plan):
    return [part.marker["sha256"] for part in committed_parts(storage, work_table(plan, plan.groups[-1]))]


class Watching(Silent):
    """Does something when so many shards are done."""

    def __init__(self, **actions):
        super().__init__()
        self.actions = {int(name.removeprefix("at")): action for name, action in actions.items()}

    def shard_done(self, plan, report):
        super().shard_done(plan, report)
        self.actions.pop(len(self.reports), lambda: None)()


def test_dask_writes_the_same_bytes_as_local(planned, local_cluster):  # noqa: F811
    storage, plan = planned(SEEDS, out="local")
    carried_out(plan, "local", 2, Silent())
    elsewhere, same_plan = planned(SEEDS, out="dask")
    listener = Silent()
    assert execute(same_plan, local_cluster, listener) == []
    assert kept_rows(elsewhere, same_plan) == kept_rows(storage, plan)
    assert sorted(report["shard"] for report in listener.reports) == [0, 1, 2, 3]


def test_a_shard_that_kills_every_worker_is_dead_and_the_rest_is_committed(planned, local_cluster):  # noqa: F811
    storage, plan = planned([1, 2, probe.CRASH, 4, 5, 6, 7, 8])
    dead = execute(plan, local_cluster, Silent())
    assert [(report["shard"], report["attempts"] >= 3) for report in dead] == [(1, True)]
    assert "killed 3 workers" in dead[0]["reason"]
    assert len(kept_rows(storage, plan)) == 3


def test_a_worker_that_dies_once_is_survived(planned, tmp_path, local_cluster):  # noqa: F811
    storage, plan = planned([1, 2, probe.FAIL_ONCE, 4, 5, 6], notes=str(tmp_path / "flag"))
    assert execute(plan, local_cluster, Silent()) == []
    assert len(kept_rows(storage, plan)) == 3


def test_a_configuration_error_in_a_worker_ends_the_run_and_the_runner_can_go_on(planned, local_cluster):  # noqa: F811
    _, plan = planned([1, 2, probe.END])
    with pytest.raises(ConfigError, match="asked to end"):
        execute(plan, local_cluster, Silent())
    _, mended = planned([1, 2, probe.END], mode="careful")
    assert execute(mended, local_cluster, Silent()) == []


def test_a_summary_is_counted_in_the_workers_and_joined_in_order(passed_on, local_cluster):
    storage, plan = passed_on(9, "summed", ["where-cpu"])
    assert execute(plan, local_cluster, Silent()) == []
    parts = [part.name for part in committed_parts(storage, work_table(plan, plan.groups[-1]))]
    here = stages.BytesOfParts().join([stages.BytesOfParts().count(storage, part) for part in parts])
    assert local_cluster.summarise(stages.BytesOfParts(), storage, parts) == here
    assert local_cluster.summarise(stages.BytesOfParts(), storage, []) == []
    with pytest.raises(StorageError, match="no such part"):
        local_cluster.summarise(stages.BytesOfParts(), storage, [*parts, "none"])


def test_a_worker_killed_in_the_middle_of_a_shard_costs_another_try(passed_on, local_cluster):
    storage, plan = passed_on(4, "undisturbed", ["where-cpu"])
    carried_out(plan, "local", 1, Silent())
    notes = set(passed_on.notes.glob("*"))
    elsewhere, same_plan = passed_on(4, "disturbed", ["where-cpu"], pause=1.0)

    def kill_the_first():
        wait_until(lambda: set(passed_on.notes.glob("*")) - notes)
        note = (set(passed_on.notes.glob("*")) - notes).pop()
        os.kill(int(note.name.split()[-1]), signal.SIGKILL)

    killer = threading.Thread(target=kill_the_first)
    killer.start()
    assert execute(same_plan, local_cluster, Silent()) == []
    killer.join()
    assert last_rows(elsewhere, same_plan) == last_rows(storage, plan)
    assert len(set(passed_on.notes.glob("*")) - notes) == 5


def test_scaling_up_and_down_changes_nothing_in_the_output(passed_on, local_cluster):
    storage, plan = passed_on(24, "steady", ["where-cpu"])
    carried_out(plan, "local", 1, Silent())
    elsewhere, same_plan = passed_on(24, "scaled", ["where-cpu"], pause=0.5)
    cluster = local_cluster.cluster.client.cluster
    seen = set()
    listener = Watching(
        at1=lambda: cluster.scale(1),
        at4=lambda: cluster.scale(3),
        at18=lambda: (seen.update(cluster.scheduler_info["workers"]), cluster.scale(1)),
    )
    try:
        assert execute(same_plan, local_cluster, listener) == []
    finally:
        cluster.scale(2)
    assert len(seen) == 3
    assert last_rows(elsewhere, same_plan) == last_rows(storage, plan)


def test_a_shard_that_needs_more_memory_than_a_worker_has_is_dead_and_says_so(passed_on):
    storage, plan = passed_on(3, "hungry", ["where-cpu"], hungry=[1])
    dead = carried_out(plan, "dask", 1, Silent(), {"memory_limit": "600MiB"})
    assert [report["shard"] for report in dead] == [1]
    assert "exceeded the memory limit" in dead[0]["reason"]
    assert "of 600 MiB" in dead[0]["reason"]
    assert len(last_rows(storage, plan)) == 2


def test_gpu_groups_run_on_gpu_workers_and_cpu_groups_do_not(passed_on, mixed_cluster):
    storage, plan = passed_on(6, "here")
    carried_out(plan, "local", 1, Silent())
    assert [stretch.gpus for stretch in plan.stretches] == [0, 1, 0]
    elsewhere, same_plan = passed_on(6, "there")
    options = {"scheduler_file": str(mixed_cluster.scheduler_file)}
    assert carried_out(same_plan, "dask", 1, Silent(), options) == []
    assert last_rows(elsewhere, same_plan) == last_rows(storage, plan)
    workers = {kind: {worker for _, worker in found} - {"nobody"} for kind, found in where(passed_on.notes).items()}
    assert workers["where-gpu"] == {"gpu0"}
    assert workers["where-cpu"] <= {"cpu0", "cpu1"}


def test_a_killer_among_workers_of_two_kinds_is_dead_and_never_goes_to_the_gpu(planned, mixed_cluster):  # noqa: F811
    storage, plan = planned([1, probe.CRASH, 3, 4, 5, 6], per_shard=1)
    dead = carried_out(plan, "dask", 1, Silent(), {"address": mixed_cluster.address})
    assert [report["shard"] for report in dead] == [1]
    assert len(kept_rows(storage, plan)) == 5
    restarts = [(mixed_cluster.folder / f"worker-{n}.log").read_text().count("Restarting worker") for n in (1, 2, 3)]
    assert restarts[0] == 0
    assert sum(restarts) >= 3


def test_two_runs_share_a_cluster(passed_on, mixed_cluster):
    made = [passed_on(5, f"run{number}", pause=0.05) for number in range(2)]
    outcomes = []

    def carry_out(plan):
        outcomes.append(carried_out(plan, "dask", 1, Silent(), {"address": mixed_cluster.address}))

    threads = [threading.Thread(target=carry_out, args=[plan]) for _, plan in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [[], []]
    assert last_rows(*made[0]) == last_rows(*made[1])
    assert len(last_rows(*made[0])) == 5


def test_resources_that_no_worker_offers_are_named(passed_on, mixed_cluster):
    _, plan = passed_on(2, "tpu")
    options = {"address": mixed_cluster.address, "gpu_resources": {"TPU": 2}, "wait_seconds": 1.5}
    with pytest.raises(ConfigError, match=r'none of the 3 workers offers TPU=2; .*--resources "TPU=2"'):
        carried_out(plan, "dask", 1, Silent(), options)


def test_a_worker_with_another_version_ends_the_run_before_it_writes(passed_on, mixed_cluster, monkeypatch):
    storage, plan = passed_on(2, "versions", ["where-cpu"])
    monkeypatch.setattr(data_engine, "__version__", "99.9")
    with pytest.raises(ConfigError, match=r"worker tcp://.*version of speech-data-engine is .* there and 99\.9 where"):
        carried_out(plan, "dask", 1, Silent(), {"address": mixed_cluster.address})
    assert last_rows(storage, plan) == []


def test_a_run_waits_for_workers_and_says_when_the_scheduler_is_lost(passed_on, tmp_path, capfd):
    storage, plan = passed_on(8, "lost", ["where-cpu"], pause=0.4)
    with CommandLineCluster(tmp_path / "cluster") as cluster:
        scheduler = cluster.scheduler()
        options = {"address": cluster.address, "connect_seconds": 10}
        with pytest.raises(ClusterError, match="the cluster has no workers"):
            carried_out(plan, "dask", 1, Silent(), {**options, "wait_seconds": 1})
        cluster.worker("late")
        with pytest.raises(ClusterError, match=r"lost the Dask scheduler .* run the same command to finish"):
            carried_out(plan, "dask", 1, Watching(at2=lambda: os.killpg(scheduler.pid, signal.SIGKILL)), options)
    assert 2 <= len(last_rows(storage, plan)) < 8
    assert carried_out(plan, "local", 2, Silent()) == []
    assert len(last_rows(storage, plan)) == 8
    assert "Traceback" not in capfd.readouterr().err


def test_a_scheduler_that_does_not_answer_is_a_configuration_error(planned, tmp_path):  # noqa: F811
    _, plan = planned([1])
    with pytest.raises(ConfigError, match="no Dask scheduler answers at 'tcp://127.0.0.1:9'"):
        carried_out(plan, "dask", 1, Silent(), {"address": "tcp://127.0.0.1:9", "connect_seconds": 0.5})
    with pytest.raises(ConfigError, match="there is no file .*dask scheduler --scheduler-file"):
        carried_out(plan, "dask", 1, Silent(), {"scheduler_file": str(tmp_path / "none.json")})
    with pytest.raises(ConfigError, match=r"runner\.options: .*lots"):
        carried_out(plan, "dask", 1, Silent(), {"memory_limit": "lots"})


def test_an_unknown_option_is_named():
    with pytest.raises(ConfigError, match=r"runner\.options: unknown key 'adress'.*address"):
        open_runner("dask", 1, {"adress": "tcp://x"})


INTERRUPTED = """
import pickle, sys
from pathlib import Path
from data_engine.runners.run import execute, open_runner
from tests.runners.test_local import Silent

if __name__ == "__main__":
    plan = pickle.loads(Path(sys.argv[1]).read_bytes())
    try:
        with open_runner("dask", 2, {}) as runner:
            execute(plan, runner, Silent())
    except KeyboardInterrupt:
        print("stopped")
"""


def test_ctrl_c_ends_everything_quietly(passed_on, tmp_path):
    import pickle

    storage, plan = passed_on(20, "interrupted", ["where-cpu"], pause=2.0)
    script, pickled = tmp_path / "run.py", tmp_path / "plan"
    script.write_text(INTERRUPTED)
    pickled.write_bytes(pickle.dumps(plan))
    path = os.pathsep.join([str(PLUGINS), str(CHECKOUT)])
    process = subprocess.Popen(
        [sys.executable, str(script), str(pickled)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": path}, start_new_session=True, preexec_fn=heed_ctrl_c,
    )  # fmt: skip
    wait_until(lambda: any(passed_on.notes.glob("*")))
    started = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: everybody gets it
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, "stopped\n")
    assert [line for line in errors.splitlines() if not line.startswith("Dask dashboard")] == []
    assert time.monotonic() - started < 20
    wait_until(lambda: not running_in_group(process.pid), seconds=15)


def running_in_group(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
