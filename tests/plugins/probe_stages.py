"""A third party's stage, found through its entry point: misbehaves on request, by the seed of the brief."""

import os
import time
from pathlib import Path
from typing import Literal

from data_engine.core.config import Settings
from data_engine.core.errors import ConfigError, RecordError
from data_engine.core.schema import load_schema
from data_engine.core.stage import BatchHint, StageSpec, each

CRASH, REJECT, FAIL_ONCE, SLEEP, END = 13, 14, 15, 16, 17


class ProbeConfig(Settings):
    notes: str = ""
    mode: Literal["careful", "careless"] = "careless"


class Probe:
    """Consumes: seed. Produces: axis. Rejects: INTERNAL."""

    Config = ProbeConfig

    def __init__(self, config):
        self.config = config
        brief = load_schema("brief")
        self.spec = StageSpec("probe", "1", brief, brief.pick("axis"), "map", batch=BatchHint(max_rows=2))

    def open(self, worker):
        pass

    def process(self, batch):
        return each(batch, self.spec.produces, self._handle)

    def close(self):
        pass

    def _handle(self, row):
        if self.config.mode == "careful":
            return {"axis": "careful"}
        if row["seed"] == CRASH:
            os._exit(7)
        if row["seed"] == REJECT:
            raise RecordError("INTERNAL", "asked to reject")
        if row["seed"] == END:
            raise ConfigError("asked to end")
        if row["seed"] == SLEEP:
            time.sleep(30)
        if row["seed"] == FAIL_ONCE:
            flag = Path(self.config.notes)
            if not flag.exists():
                flag.touch()
                os._exit(9)
        return {"axis": f"seen {row['seed']}"}
