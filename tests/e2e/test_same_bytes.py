"""The same bytes for one and two processes, and after SIGKILL at random moments."""

import os
import random
import signal
import subprocess
import time

import pytest

from tests.e2e.conftest import CHECKOUT, COMMAND, data_hashes, engine
from tests.runners.test_beam import portable_service

pytestmark = [pytest.mark.xdist_group("small"), pytest.mark.timeout(1500)]


def test_one_process_writes_the_same_bytes_as_two(small_config, small_run, tmp_path):
    finished = engine("run", small_config, "--output", tmp_path / "one", "--workers", 1)
    assert finished.returncode == 0, finished.stderr
    assert data_hashes(tmp_path / "one") == data_hashes(small_run)


def test_a_run_killed_five_times_ends_with_the_same_bytes(small_config, small_run, tmp_path):
    moments = random.Random(20250611)
    command = [str(COMMAND), "run", str(small_config), "--output", str(tmp_path / "out")]
    kills = 0
    for _ in range(5):
        process = subprocess.Popen(
            command, cwd=CHECKOUT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        time.sleep(moments.uniform(2.0, 9.0))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills >= 2, "the run is too quick to be killed; make the moments earlier"
    finished = engine("run", small_config, "--output", tmp_path / "out")
    assert finished.returncode == 0, finished.stderr
    assert data_hashes(tmp_path / "out") == data_hashes(small_run)
    assert engine("validate", tmp_path / "out").returncode == 0


def test_dask_writes_the_same_bytes_as_the_local_runner(small_config, small_run, tmp_path):
    finished = engine("run", small_config, "--output", tmp_path / "dask", "--runner", "dask", "--workers", 2)
    assert finished.returncode == 0, finished.stderr
    assert "dashboard" in finished.stderr
    assert data_hashes(tmp_path / "dask") == data_hashes(small_run)


@pytest.mark.parametrize("mode", ["in_memory", "multi_processing"])
def test_beam_writes_the_same_bytes_as_the_local_runner(small_config, small_run, tmp_path, mode):
    options = ["--runner", "beam", "--workers", 2, "--set", f"runner.options.direct_running_mode={mode}"]
    finished = engine("run", small_config, "--output", tmp_path / "beam", *options)
    assert finished.returncode == 0, finished.stderr
    assert data_hashes(tmp_path / "beam") == data_hashes(small_run)


def test_a_portable_beam_job_with_external_workers_writes_the_same_bytes(small_config, small_run, tmp_path):
    with portable_service(tmp_path) as options:
        sets = [word for name, value in options.items() for word in ("--set", f"runner.options.{name}={value}")]
        finished = engine("run", small_config, "--output", tmp_path / "beam", "--runner", "beam", *sets)
    assert finished.returncode == 0, finished.stderr
    assert data_hashes(tmp_path / "beam") == data_hashes(small_run)
