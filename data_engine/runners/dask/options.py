"""Options of the Dask runner."""

from __future__ import annotations

from pydantic import Field

from data_engine.core.config import Settings


class DaskOptions(Settings):
    """Options of the runner.

    Attributes:
        address: Scheduler address, `tcp://host:port` or `tls://host:port`; none: see `scheduler_file`, else a local
            cluster is started.
        scheduler_file: JSON file that a scheduler wrote.
        memory_limit: Memory of each worker of the local cluster, for example 4GiB.
        worker_resources: What each worker of the local cluster offers, for example {GPU: 1}.
        in_flight: Tasks submitted per worker at a time. Above 1 a cluster that scales itself sees that there is more.
        gpu_resources: What a task occupies of a worker per GPU it asks for. A worker that offers one of these is a GPU
            worker: tasks without GPU keep away from it as long as there is any other.
        cpu_resources: What a task without GPU occupies of a worker, for example {CPU: 1}; none: any worker will do.
        connect_seconds: How long to wait for the scheduler to answer.
        wait_seconds: How long to wait while no worker can take any task; none: for ever.
    """

    address: str | None = None
    scheduler_file: str | None = None
    memory_limit: str = "auto"
    worker_resources: dict[str, float] = Field(default_factory=dict)
    in_flight: int = Field(default=2, ge=1)
    gpu_resources: dict[str, float] = Field(default_factory=lambda: {"GPU": 1.0})
    cpu_resources: dict[str, float] = Field(default_factory=dict)
    connect_seconds: float = Field(default=30.0, gt=0)
    wait_seconds: float | None = Field(default=600.0, gt=0)

    @property
    def is_local(self) -> bool:
        """True when the runner starts a cluster of its own."""
        return not (self.address or self.scheduler_file)
