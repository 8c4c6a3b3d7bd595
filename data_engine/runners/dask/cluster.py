"""A Dask cluster as the runner sees it: connected to or started here, with workers that come and go."""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import sys
import time
import uuid
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_engine.core.errors import ClusterError, ConfigError, MissingExtraError
from data_engine.runners.dask.options import DaskOptions
from data_engine.runners.dask.worker import leave

if TYPE_CHECKING:
    from distributed import Client

REFRESH_SECONDS = 1.0
CLOSE_SECONDS = 10.0
ALLOWED_FAILURES = 2
"""Of a local cluster: a task that was present at more deaths of workers than this is given up by the scheduler."""


@dataclass(frozen=True, slots=True)
class Member:
    """A worker process of the cluster.

    Attributes:
        address: Where it listens.
        resources: What it offers.
        usable: It takes tasks, or is busy with one; false when it only waits for memory to be freed.
    """

    address: str
    resources: Mapping[str, float]
    usable: bool

    def offers(self, wanted: Mapping[str, float]) -> bool:
        """Tells whether a task that wants these resources can ever run here."""
        return all(self.resources.get(name, 0.0) >= amount for name, amount in wanted.items())


class Cluster:
    """A connection, and the cluster itself where it was started for it.

    Args:
        settings: Options of the runner.
        workers: Processes of a local cluster.

    Attributes:
        client: The connection.
        run: Identity of this use of the cluster, which may serve several runs at a time.
        flights: Numbers for `Flight`s.

    Raises:
        ConfigError: No scheduler answers, or an option cannot be used.
        MissingExtraError: Dask is not installed.
    """

    def __init__(self, settings: DaskOptions, workers: int) -> None:
        self.settings = settings
        self.run = uuid.uuid4().hex[:8]
        self.flights = itertools.count(1)
        self._stack = ExitStack()
        self._members: tuple[Member, ...] = ()
        self._asked = float("-inf")
        self._takers: dict[float, list[Member]] = {}
        self._apart = False
        try:
            self.client = self._connect(workers)
        except BaseException:
            self._stack.close()
            raise
        print(f"Dask dashboard: {self.client.dashboard_link}", file=sys.stderr)

    def close(self) -> None:
        """Leaves the cluster; a local one ends. Says nothing about connections that break on the way."""
        level = logging.getLogger("distributed").level
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        try:
            self._stack.close()
        finally:
            logging.getLogger("distributed").setLevel(level)

    @property
    def members(self) -> tuple[Member, ...]:
        """The workers there are, at most a second ago."""
        if time.monotonic() - self._asked > REFRESH_SECONDS:
            self.check_connected()
            found = self.client.scheduler_info(n_workers=-1).get("workers", {})
            self._members = tuple(_member(address, worker) for address, worker in sorted(found.items()))
            self._takers.clear()
            self._asked = time.monotonic()
            self._mend()
        return self._members

    def _mend(self) -> None:
        """Has a local cluster replace workers that nobody starts again: their nannies died with them."""
        cluster = self.client.cluster
        if self.settings.is_local and cluster is not None and len(cluster.workers) < len(cluster.worker_spec):
            cluster.scale(len(cluster.worker_spec))

    def check_connected(self) -> None:
        """Refuses to go on without a scheduler.

        Raises:
            ClusterError: The connection is lost.
        """
        if self.client.status != "running":
            raise lost_scheduler(f"connection {self.client.status}")

    def takers(self, gpus: float) -> list[Member]:
        """Returns the workers that tasks with so many GPUs are for; without GPU, none that has one once others came."""
        members = self.members
        if gpus not in self._takers:
            able = [member for member in members if member.offers(self.wanted(gpus))]
            if not gpus and not self.settings.cpu_resources:
                others = [m for m in able if not m.resources.keys() & self.settings.gpu_resources.keys()]
                self._apart = self._apart or 0 < len(others) < len(able)
                able = others if self._apart else able
            self._takers[gpus] = able
        return self._takers[gpus]

    def apart(self, gpus: float) -> bool:
        """Tells whether tasks are kept from GPU workers by address, for no resource does it."""
        return self._apart and not self.wanted(gpus)

    def pins(self, gpus: float) -> frozenset[str]:
        """Returns the addresses a task has to be kept to, where resources do not say it; else none."""
        takers = self.takers(gpus)
        return frozenset(member.address for member in takers) if self.apart(gpus) else frozenset()

    def wanted(self, gpus: float) -> dict[str, float]:
        """Returns the resources that a task with so many GPUs occupies."""
        if gpus:
            return {name: amount * gpus for name, amount in self.settings.gpu_resources.items()}
        return dict(self.settings.cpu_resources)

    def _connect(self, workers: int) -> Client:
        try:
            from distributed import Client
        except ImportError as error:
            raise MissingExtraError("distributed", "dask", "runner 'dask'") from error
        options = self.settings
        where = self._start(workers) if options.is_local else options.address
        if options.scheduler_file and not Path(options.scheduler_file).is_file():
            raise ConfigError(
                f"runner.options.scheduler_file: there is no file '{options.scheduler_file}'; start a scheduler with: "
                f"dask scheduler --scheduler-file {options.scheduler_file}"
            )
        try:
            client = Client(
                where, scheduler_file=options.scheduler_file, timeout=options.connect_seconds, set_as_default=False
            )
        except (OSError, ValueError, TimeoutError) as error:
            raise ConfigError(
                f"no Dask scheduler answers at '{options.address or options.scheduler_file}' "
                f"({str(error).splitlines()[0]}); start one with `dask scheduler`, or correct runner.options.address"
            ) from error
        self._stack.callback(_close_quietly, client, None if options.is_local else self.run)
        return client

    def _start(self, workers: int) -> Any:
        import dask
        from distributed import LocalCluster

        self._stack.enter_context(dask.config.set({"distributed.deploy.lost-worker-timeout": "30s"}))
        # as a rule only the running task is at a worker, so that a death is not put down to tasks that waited there
        with dask.config.set({"distributed.scheduler.worker-saturation": 1.0}):
            try:
                cluster = LocalCluster(
                    n_workers=workers, threads_per_worker=1, memory_limit=self.settings.memory_limit,
                    resources=self.settings.worker_resources or None, dashboard_address=":0",
                    scheduler_kwargs={"allowed_failures": ALLOWED_FAILURES}, silence_logs=logging.CRITICAL,
                    preload="data_engine.runners.dask.worker",
                )  # fmt: skip
            except ValueError as error:
                raise ConfigError(f"runner.options: {error}") from error
            except RuntimeError as error:
                raise ClusterError(f"the local Dask cluster did not start: {error}") from error
        self._stack.callback(_end, cluster)
        return cluster


def lost_scheduler(why: str) -> ClusterError:
    """Returns the error of a run whose scheduler is gone."""
    return ClusterError(
        f"lost the Dask scheduler in the middle of the run ({why}). Committed shards are kept: when the cluster is up "
        "again, run the same command to finish"
    )


def _member(address: str, worker: Mapping[str, Any]) -> Member:
    busy = bool(worker.get("metrics", {}).get("task_counts", {}).get("executing"))
    return Member(address, worker.get("resources") or {}, worker.get("status") == "running" or busy)


def _end(cluster: Any) -> None:
    """Ends a local cluster; one whose workers are being started again just now never ends by itself."""
    try:
        cluster.close(timeout=CLOSE_SECONDS)
    except TimeoutError:
        for process in multiprocessing.active_children():
            if process.name.startswith("Dask Worker process"):
                process.kill()


def _close_quietly(client: Client, run: str | None) -> None:
    """Closes a connection; workers that stay are told to free the models of the run."""
    with suppress(OSError, TimeoutError, RuntimeError):
        if run and client.status == "running":
            client.run(leave, run, on_error="ignore")
        client.close()
