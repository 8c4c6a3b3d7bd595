"""A third party's stages for tests of clusters: they note where they ran, take their time, eat memory on request."""

import os
import time
from pathlib import Path

from data_engine.core.config import Settings, speed_knob
from data_engine.core.errors import StorageError
from data_engine.core.schema import load_schema
from data_engine.core.stage import BatchHint, Resources, StageSpec, each

HUNGRY = 31


class WhereConfig(Settings):
    notes: str
    pause: float = speed_knob(0.0)


class WhereCpu:
    """Consumes: seed, axis. Produces: axis."""

    Config = WhereConfig
    name, resources = "where-cpu", Resources()

    def __init__(self, config):
        self.config = config
        brief = load_schema("brief")
        hint = BatchHint(max_rows=2)
        produces = brief.pick("axis")
        self.spec = StageSpec(self.name, "1", brief, produces, "map", resources=self.resources, batch=hint)

    def open(self, worker):
        pass

    def process(self, batch):
        return each(batch, self.spec.produces, self._handle)

    def close(self):
        pass

    def _handle(self, row):
        note = Path(self.config.notes) / f"{self.name} {row['brief_id']} {worker_name()} {os.getpid()}"
        note.parent.mkdir(parents=True, exist_ok=True)
        note.touch()
        time.sleep(self.config.pause)
        if row["seed"] == HUNGRY:
            eat()
        return {"axis": f"{row['axis']} {self.name}"}


class WhereGpu(WhereCpu):
    """Consumes: seed, axis. Produces: axis."""

    name, resources = "where-gpu", Resources(gpus=1)


def worker_name():
    try:
        from distributed import get_worker

        return str(get_worker().name)
    except (ImportError, ValueError):
        return "nobody"


def eat():
    """Takes 32 MiB every 30 ms until somebody minds; gives up at 3 GiB."""
    eaten = []
    for _ in range(96):
        eaten.append(b"\1" * (32 << 20))
        time.sleep(0.03)


class BytesOfParts:
    """A summary: the sizes of parts, in order."""

    def count(self, storage, part):
        if part.endswith("none"):
            raise StorageError("there is no such part")
        return part, storage.fs.size(storage.path(part))

    def join(self, counted):
        return list(counted)
