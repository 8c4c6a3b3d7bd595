"""The Beam runner: the same bytes as local in every mode, crashes that Beam never sees, workers that die under it."""

import dataclasses
import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from data_engine.core.errors import ClusterError, ConfigError
from data_engine.core.plan import Partition, Plan
from data_engine.core.schema import load_schema
from data_engine.io.exchange import write_index
from data_engine.io.shards import Part, committed_parts, read_batches
from data_engine.runners.beam import beam_arguments
from data_engine.runners.beam.runner import next_job
from data_engine.runners.books import claim, folder_state
from data_engine.runners.run import execute, open_runner
from data_engine.runners.shard import work_table
from pipelines.compose import Verb, compose
from tests.conftest import PLUGINS
from tests.plugins import probe_stages as probe
from tests.runners.test_local import Silent, carried_out, kept_rows, planned  # noqa: F401

pytestmark = pytest.mark.xdist_group("beam")
SEEDS = [1, 2, 3, probe.REJECT, 5, 6, 7]
ORPHANED = [1, 2, probe.ORPHAN_ONCE, 4, probe.REJECT, 6]


@pytest.fixture(scope="module")
def in_memory():
    """One runner for all tests, as one run has it for all its pipelines."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(PLUGINS), *sys.path])
        options = {"accelerator": "type:nvidia-l4;count:1", "min_ram": "1GB"}
        with open_runner("beam", 2, options) as runner:
            yield runner


def local_bytes(planned, seeds=SEEDS):  # noqa: F811
    storage, plan = planned(seeds, out="local")
    carried_out(plan, "local", 1, Silent())
    return kept_rows(storage, plan)


def test_in_process_writes_the_same_bytes_as_local_and_reports_every_shard(planned, in_memory):  # noqa: F811
    storage, plan = planned(SEEDS, out="beam")
    listener = Silent()
    assert execute(plan, in_memory, listener) == []
    assert kept_rows(storage, plan) == local_bytes(planned)
    assert sorted(report["shard"] for report in listener.reports) == [0, 1, 2, 3]
    assert all(len(report["groups"]) == 1 and report["status"] == "committed" for report in listener.reports)
    assert storage.list("work/beam") == []


def test_beams_counters_equal_the_books(planned, in_memory):  # noqa: F811
    storage, plan = planned([1, 2, probe.REJECT, 4, 5], out="counted")
    claim(storage, plan, {}, overwrite=False)
    in_memory.counters.clear()
    execute(plan, in_memory, Silent())
    stage = folder_state(storage)["prefer"]["stages"][0]
    assert (stage["rows_in"], stage["rows_out"], stage["rejected"]) == (5, 4, 1)
    names = ("rows_in", "rows_out", "rejected")
    assert {name: in_memory.counters[f"probe.{name}"] for name in names} == {name: stage[name] for name in names}
    assert in_memory.counters["probe.rejected.INTERNAL"] == stage["reject_codes"]["INTERNAL"]


def test_a_shard_that_crashes_the_interpreter_is_dead_and_the_rest_is_committed(planned, in_memory):  # noqa: F811
    storage, plan = planned([1, 2, probe.CRASH, 4, 5, 6])
    dead = execute(plan, in_memory, Silent())
    assert [(report["shard"], report["attempts"]) for report in dead] == [(1, 3)]
    assert "exit code 7" in dead[0]["reason"]
    assert len(kept_rows(storage, plan)) == 2


def test_gpu_groups_are_steps_of_their_own_behind_a_reshuffle(planned, in_memory):  # noqa: F811
    storage, plan = planned([1, 2, 3, 4], out="beam")
    verbs = [("first", [Verb("probe", probe.ProbeConfig())]), ("second", [Verb("probe", probe.ProbeConfig())])]
    first, second = compose(load_schema("brief"), "items", verbs)
    groups = (first, dataclasses.replace(second, keep=True, gpus=1.0))
    plan = dataclasses.replace(plan, groups=groups)
    listener = Silent()
    assert execute(plan, in_memory, listener) == []
    assert [len(report["groups"]) for report in listener.reports] == [2, 2]
    assert len(committed_parts(storage, work_table(plan, groups[1]))) == 2


def divided(planned, out, partitions=7):  # noqa: F811
    """Two plans: one that divides its rows by `axis`, and one that reads them partition by partition."""
    storage, plan = planned([1, 2, 3, 1, 2, 5, 6, 1], out=out)
    groups = (dataclasses.replace(plan.groups[0], partition=Partition("axis", partitions)),)
    plan = dataclasses.replace(plan, groups=groups)
    execute_local(plan)
    table = work_table(plan, groups[0])
    verbs = [("gather", [Verb("probe", probe.ProbeConfig())])]
    gathering = compose(load_schema("brief"), write_index(storage, table), verbs)
    gathering = (dataclasses.replace(gathering[0], keep=True),)
    return storage, Plan("synthesize", storage.uri, "brief", table, gathering, partitions, 0, {}, exchange="axis")


def execute_local(plan):
    assert carried_out(plan, "local", 1, Silent()) == []


def gathered(storage, plan):
    return [part.marker["sha256"] for part in committed_parts(storage, work_table(plan, plan.groups[0]))]


def test_rows_grouped_by_beam_are_the_rows_that_local_reads(planned, in_memory):  # noqa: F811
    here, plan = divided(planned, "local")
    execute_local(plan)
    there, same_plan = divided(planned, "beam")
    assert execute(same_plan, in_memory, Silent()) == []
    assert gathered(there, same_plan) == gathered(here, plan)
    rows = [committed_parts(there, work_table(same_plan, same_plan.groups[0]))[p].marker["rows"] for p in range(7)]
    assert sum(rows) == 8
    assert 0 in rows, "an empty partition is a shard too"

    there.remove(f"rejects/{same_plan.pipeline}.gather/part-00003.json")
    listener = Silent()
    assert execute(same_plan, in_memory, listener) == []
    assert [report["shard"] for report in listener.reports] == [3], "only open partitions are grouped again"
    assert gathered(there, same_plan) == gathered(here, plan)


class Axes:
    """Sums that depend on the order of the parts; sets and tuples, which JSON does not know."""

    def count(self, storage, part):
        table, _, name = part.rpartition("/")
        marker = {"file": name, "schema": "brief.v1"}
        rows = [row for batch in read_batches(storage, Part(table, 0, marker)) for row in batch.to_pylist()]
        return sum(0.1 * row["seed"] for row in rows), {row["axis"] for row in rows}

    def join(self, counted):
        total = 0.0
        for value, _ in counted:
            total = total / 3 + value
        return total, frozenset().union(*(axes for _, axes in counted)), [len(axes) for _, axes in counted]


class Rows(Axes):
    def join(self, counted):
        return {"parts": len(counted), "rows": sum(len(axes) for _, axes in counted)}


@pytest.mark.parametrize("summary", [Axes(), Rows()], ids=["pickled", "JSON"])
def test_a_summary_equals_the_one_of_local(planned, in_memory, summary):  # noqa: F811
    storage, plan = planned([1, 2, 3, 4, 5, 6, 7], out="local")
    execute_local(plan)
    parts = [part.name for part in committed_parts(storage, work_table(plan, plan.groups[0]))]
    with open_runner("local", 1, {}) as local:
        expected = local.summarise(summary, storage, parts)
    assert in_memory.summarise(summary, storage, parts) == expected
    assert storage.list("work/beam") == []


def test_a_configuration_error_in_a_worker_ends_the_run(planned, in_memory):  # noqa: F811
    _, plan = planned([1, 2, probe.END])
    with pytest.raises(ConfigError, match="asked to end"):
        execute(plan, in_memory, Silent())


def test_multi_processing_writes_the_same_bytes_though_a_beam_worker_is_killed(planned, tmp_path):  # noqa: F811
    """Beam itself would wait for the dead worker for ever."""
    storage, plan = planned(ORPHANED, out="beam", notes=str(tmp_path / "flag"))
    assert carried_out(plan, "beam", 2, Silent(), {"direct_running_mode": "multi_processing"}) == []
    assert kept_rows(storage, plan) == local_bytes_once_killed(planned, tmp_path / "flag")


def test_a_portable_job_with_external_workers_writes_the_same_bytes_though_one_is_killed(planned, tmp_path):  # noqa: F811
    storage, plan = planned(ORPHANED, out="beam", notes=str(tmp_path / "flag"))
    with portable_service(tmp_path) as options:
        assert carried_out(plan, "beam", 1, Silent(), options) == []
    assert kept_rows(storage, plan) == local_bytes_once_killed(planned, tmp_path / "flag")
    assert storage.list("work/beam") == []


def local_bytes_once_killed(planned, flag):  # noqa: F811
    """What local makes of the same shards; the flag is there, so nobody is killed again."""
    assert flag.exists(), "the worker was never killed"
    storage, plan = planned(ORPHANED, out="local", notes=str(flag))
    execute_local(plan)
    return kept_rows(storage, plan)


@contextmanager
def portable_service(folder):
    """Beam's local job service and a worker pool, each a process of its own, as a cluster would have them."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        pool = free.getsockname()[1]
    bin_folder = str(Path(sys.executable).parent)  # the pool starts its workers as `python`
    environment = {**os.environ, "PATH": os.pathsep.join([bin_folder, os.environ["PATH"]])}
    modules = {
        "apache_beam.runners.portability.local_job_service_main": ["--port_file", str(folder / "port")],
        "apache_beam.runners.worker.worker_pool_main": [f"--service_port={pool}"],
    }
    with (folder / "log").open("wb") as log:
        processes = [
            subprocess.Popen([sys.executable, "-m", name, *arguments], env=environment, stdout=log, stderr=log)
            for name, arguments in modules.items()
        ]
    try:
        while not (folder / "port").exists():
            assert all(process.poll() is None for process in processes), (folder / "log").read_text()
            time.sleep(0.1)
        yield {
            "beam_runner": "PortableRunner", "job_endpoint": f"localhost:{(folder / 'port').read_text()}",
            "environment_type": "EXTERNAL", "environment_config": f"localhost:{pool}",
            "heartbeat_seconds": 0.5, "stall_seconds": 4, "log_level": "ERROR",
        }  # fmt: skip
    finally:
        for process in processes:
            process.terminate()
            process.wait()


def test_a_job_service_that_is_not_there_is_named(planned):  # noqa: F811
    _, plan = planned([1])
    options = {"beam_runner": "PortableRunner", "job_endpoint": "localhost:1", "options": {"job_server_timeout": 1}}
    with pytest.raises(ClusterError, match=r"PortableRunner did not take the job: .*job_endpoint"):
        carried_out(plan, "beam", 1, Silent(), {**options, "log_level": "ERROR"})


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"beam_runer": "FlinkRunner"}, r"runner\.options: unknown key 'beam_runer'.*beam_runner"),
        ({"beam_runner": "DirectRunner"}, r"Beam's DirectRunner may try to download.*FnApiRunner"),
        ({"beam_runner": "FlynkRunner"}, r"runner\.options\.beam_runner: .*FlynkRunner"),
        ({"options": {"number_of_workers": 3}}, r"Beam has no option 'number_of_workers'"),
        ({"options": {"direct_runner_bundle_repeat": "often"}}, r"Beam refuses them: .*direct_runner_bundle_repeat"),
    ],
)
def test_options_that_nobody_knows_are_refused_before_any_work(options, sentence):
    with pytest.raises(ConfigError, match=sentence), open_runner("beam", 1, options):
        pass


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ("", {}),
        ("--beam_runner FlinkRunner --flink_master=host:8081",
         {"beam_runner": "FlinkRunner", "options": {"flink_master": "host:8081"}}),
        ("--streaming --stall_seconds 60", {"stall_seconds": "60", "options": {"streaming": True}}),
        ("--experiments a --experiments=b --experiments c", {"options": {"experiments": ["a", "b", "c"]}}),
    ],
)  # fmt: skip
def test_arguments_of_the_command_line_are_options(arguments, options):
    assert beam_arguments(arguments.split()) == options


def test_an_argument_that_stands_alone_is_refused():
    with pytest.raises(ConfigError, match="'FlinkRunner' belongs to no option"):
        beam_arguments(["FlinkRunner"])


def test_suspects_run_alone_and_last():
    assert next_job({4: 1, 2: 3, 1: 2}) == [(1, 2), (4, 1)]
    assert next_job({4: 3, 2: 3}) == [(2, 3)]
