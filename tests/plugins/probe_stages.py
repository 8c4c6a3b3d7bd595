"""A third party's stage, found through its entry point: misbehaves on request, by the seed of the brief."""

import os
import signal
import time
from pathlib import Path
from typing import Literal

from data_engine.core.config import Settings, speed_knob
from data_engine.core.errors import ConfigError, RecordError
from data_engine.core.schema import load_schema
from data_engine.core.stage import BatchHint, StageSpec, each

CRASH, REJECT, FAIL_ONCE, SLEEP, END, BURN, ORPHAN_ONCE = 13, 14, 15, 16, 17, 18, 19
SEGFAULT, UNTIL_MENDED, NUMPY, ARROW, ONNX = 21, 22, 23, 24, 25
CRASHES = {SEGFAULT: "segfault", NUMPY: "numpy", ARROW: "arrow", ONNX: "onnx"}


class ProbeConfig(Settings):
    notes: str = ""
    mode: Literal["careful", "careless"] = "careless"
    pause: float = speed_knob(0.0)


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
        mended = self.config.notes and Path(self.config.notes).exists()
        if row["seed"] == UNTIL_MENDED and not mended:
            raise RecordError("INTERNAL", "asked to reject until it is mended")
        if row["seed"] in CRASHES and not mended:
            import crashes

            crashes.WAYS[CRASHES[row["seed"]]]()
        time.sleep(self.config.pause)
        if row["seed"] == END:
            raise ConfigError("asked to end")
        if row["seed"] == SLEEP:
            time.sleep(30)
        if row["seed"] == BURN:
            stop = time.process_time() + 1.0
            while time.process_time() < stop:
                pass
        if row["seed"] in (FAIL_ONCE, ORPHAN_ONCE):
            flag = Path(self.config.notes)
            if not flag.exists():
                flag.touch()
                if row["seed"] == ORPHAN_ONCE:
                    os.kill(os.getppid(), signal.SIGKILL)
                    time.sleep(30)
                os._exit(9)
        return {"axis": f"seen {row['seed']}"}
