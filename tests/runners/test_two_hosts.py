"""Two hosts on one machine: the cable of one is pulled in the middle of a run and put back; the bytes are the same."""

import json
import os
import pickle
import shutil
import subprocess
import sys

import pyarrow as pa
import pytest

from data_engine.core.plan import Plan
from data_engine.core.schema import load_schema
from data_engine.io.items import write_items
from data_engine.io.shards import committed_parts
from data_engine.io.storage import Storage
from data_engine.runners.shard import work_table
from pipelines.compose import Verb, compose
from tests.conftest import CHECKOUT, PLUGINS
from tests.plugins import cluster_stages as stages
from tests.runners.dask_cluster import CommandLineCluster, wait_until, where
from tests.runners.test_local import Silent, carried_out

pytestmark = pytest.mark.xdist_group("dask")

ROWS, PAUSE = 48, 0.4
IMPATIENT = {
    "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "1s",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "12s",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "4s",
}
RUN = """
import json, pickle, sys
from pathlib import Path
from data_engine.runners.run import execute, open_runner

class Told:
    def planned(self, plan, committed): pass
    def shard_done(self, plan, report): print(json.dumps(report["shard"]), flush=True)

if __name__ == "__main__":
    plan = pickle.loads(Path(sys.argv[1]).read_bytes())
    with open_runner("dask", 1, {"address": sys.argv[2]}) as runner:
        print(json.dumps({"dead": execute(plan, runner, Told())}))
"""


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@pytest.fixture
def hosts():
    """Names of two network namespaces, joined by a cable: 10.203.x.1 and 10.203.x.2."""
    if shutil.which("ip") is None:
        pytest.skip("needs the `ip` command (iproute2) to make network namespaces")
    number = os.getpid() % 250
    first, second, network = f"de{os.getpid()}a", f"de{os.getpid()}b", f"10.203.{number}"
    made = []
    try:
        for name in (first, second):
            try:
                ip("netns", "add", name)
            except subprocess.CalledProcessError as error:
                pytest.skip(f"network namespaces are not allowed here: {error.stderr.strip()}")
            made.append(name)
            ip("-n", name, "link", "set", "lo", "up")
        try:
            ip("link", "add", "cable", "netns", first, "type", "veth", "peer", "name", "cable", "netns", second)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"virtual network cables (veth) are not allowed here: {error.stderr.strip()}")
        for name, host in ((first, 1), (second, 2)):
            ip("-n", name, "address", "add", f"{network}.{host}/24", "dev", "cable")
            ip("-n", name, "link", "set", "cable", "up")
        yield (first, f"{network}.1"), (second, f"{network}.2")
    finally:
        for name in made:
            ip("netns", "delete", name)


def planned(folder, notes, pause):
    storage, brief = Storage(str(folder)), load_schema("brief")
    rows = [{"brief_id": f"b{i}", "language": "en", "axis": "x", "seed": i} for i in range(ROWS)]
    config = stages.WhereConfig(notes=str(notes), pause=pause)
    (group,) = compose(brief, "items", [("only", [Verb("where-cpu", config)])])
    group = type(group)(group.name, group.steps, keep=True)
    shards = write_items(storage, "work/items/x", pa.Table.from_batches([brief.batch(rows)]), 1)
    return storage, Plan("prefer", storage.uri, "brief", "work/items/x", (group,), shards, 0, {})


def last_rows(storage, plan):
    return [part.marker["sha256"] for part in committed_parts(storage, work_table(plan, plan.groups[-1]))]


def test_a_host_that_is_cut_off_in_the_middle_of_a_run_and_comes_back_changes_nothing(hosts, tmp_path, plugin):
    (first, address), (second, elsewhere) = hosts
    notes = tmp_path / "notes"
    storage, plan = planned(tmp_path / "quiet", notes, 0.0)
    carried_out(plan, "local", 2, Silent())
    disturbed, same_plan = planned(tmp_path / "disturbed", notes, PAUSE)
    on_first, on_second = ("ip", "netns", "exec", first), ("ip", "netns", "exec", second)
    with CommandLineCluster(tmp_path / "cluster", inside=on_first, settings=IMPATIENT) as cluster:
        cluster.scheduler("--host", address, "--port", "0")
        cluster.worker("near", "--host", address)
        far = cluster.worker("far", "--host", elsewhere, inside=on_second)
        run = started(cluster, tmp_path, same_plan, on_first)
        try:
            wait_until(lambda: (rows_by(notes, "far") >= 3 and rows_by(notes, "near") >= 3) or run.poll() is not None)
            assert run.poll() is None, run.communicate()[1]
            ip("-n", second, "link", "set", "cable", "down")
            wait_until(lambda: f"Remove worker addr: tcp://{elsewhere}" in scheduler_log(cluster))
            before = rows_by(notes, "near")
            wait_until(lambda: rows_by(notes, "near") >= before + 3)  # the other one goes on without it
            ip("-n", second, "link", "set", "cable", "up")
            # Dask ends a worker that it had given up; whatever supervises the host (here: this test) starts it again
            wait_until(lambda: far.poll() is not None or run.poll() is not None)
            cluster.worker("back", "--host", elsewhere, inside=on_second)
            wait_until(lambda: rows_by(notes, "back") or run.poll() is not None)
            output, errors = run.communicate(timeout=60)
        finally:
            run.kill()
    assert run.returncode == 0, errors
    assert json.loads(output.splitlines()[-1]) == {"dead": []}
    assert sorted(json.loads(line) for line in output.splitlines()[:-1]) == list(range(ROWS))
    assert last_rows(disturbed, same_plan) == last_rows(storage, plan)


def started(cluster, folder, plan, inside):
    script, pickled = folder / "run.py", folder / "plan"
    script.write_text(RUN)
    pickled.write_bytes(pickle.dumps(plan))
    path = os.pathsep.join([str(PLUGINS), str(CHECKOUT)])
    return subprocess.Popen(
        [*inside, sys.executable, str(script), str(pickled), cluster.address], env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def rows_by(notes, worker):
    return sum(name == worker for _, name in where(notes).get("where-cpu", ()))


def scheduler_log(cluster):
    return (cluster.folder / "scheduler-0.log").read_text()
