"""A Dask cluster started by its command lines, as a user would, for the tests of the Dask runner."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from tests.conftest import CHECKOUT, PLUGINS


class CommandLineCluster:
    """`dask scheduler` and `dask worker` processes; a context manager that leaves none behind.

    Args:
        folder: For the scheduler file, logs and scratch.
        inside: Command prefix per process, for example to enter a network namespace.
        settings: Dask configuration as environment variables.
    """

    def __init__(self, folder, inside=(), settings=None):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.inside, self.processes = folder, tuple(inside), []
        self.scheduler_file = folder / "scheduler.json"
        path = os.pathsep.join([str(PLUGINS), str(CHECKOUT), os.environ.get("PYTHONPATH", "")])
        self.environment = {
            **os.environ, "PYTHONPATH": path, "DASK_TEMPORARY_DIRECTORY": str(folder / "scratch"),
            "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False", **(settings or {}),
        }  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 15)
        for process in self.processes:
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                process.wait()

    @property
    def address(self):
        return json.loads(self.scheduler_file.read_text())["address"]

    def scheduler(self, *options, inside=None):
        if not {"--host", "--port"} & set(options):
            options += ("--host", "127.0.0.1", "--port", "0")
        found = self._start("scheduler", "--no-dashboard", "--scheduler-file", str(self.scheduler_file), *options,
                            inside=inside)  # fmt: skip
        wait_until(lambda: self.scheduler_file.is_file() and self.scheduler_file.read_text().strip())
        return found

    def worker(self, name, *options, inside=None):
        return self._start("worker", self.address, "--nthreads", "1", "--name", name, "--no-dashboard", *options,
                           inside=inside)  # fmt: skip

    def wait_for_workers(self):
        """Returns when all workers have met the scheduler."""
        logs = list(self.folder.glob("worker-*.log"))
        wait_until(lambda: all("Registered to:" in log.read_text() for log in logs))

    def _start(self, kind, *options, inside):
        command = [*(self.inside if inside is None else inside), sys.executable, "-m", "dask", kind, *options]
        log = (self.folder / f"{kind}-{len(self.processes)}.log").open("wb")
        process = subprocess.Popen(
            command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            cwd=self.folder,
        )  # fmt: skip
        self.processes.append(process)
        return process


def wait_until(condition, seconds=90):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def where(notes):
    """{stage: {(row, worker)}} of what the stages of tests/plugins/cluster_stages.py noted."""
    found = {}
    for note in Path(notes).glob("*"):
        stage, row, worker, _ = note.name.split()
        found.setdefault(stage, set()).add((row, worker))
    return found
