"""The whole curate pipeline without speech recognition, on the local runner with two processes, over real time."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from data_engine.core.plan import Plan
from pipelines.run import RunConfig, run
from tests.bench.measure import Row, seconds
from tests.bench.models import RATE, conversation

CHECKOUT = Path(__file__).parents[2]


class _Silent:
    def planned(self, plan: Plan, committed: int) -> None:
        pass

    def shard_done(self, plan: Plan, report: Any) -> None:
        assert report["status"] == "committed", report


def write_recordings(folder: Path, count: int, minutes: float) -> None:
    """Writes conversations: the sample, turned and at another level each time, so that none is a copy."""
    speech, random = conversation(), np.random.default_rng(0)
    length = int(minutes * 60 * RATE)
    for number in range(count):
        turns = [np.roll(speech, int(random.integers(len(speech)))) for _ in range(-(-length // len(speech)))]
        wave = np.concatenate(turns)[:length] * random.uniform(0.4, 0.9)
        soundfile.write(folder / f"{number:03}.wav", wave, RATE)


def curate_hours(quality: str = "dnsmos", count: int = 32, minutes: float = 2.0) -> Row:
    """Start and end of the processes, loading of the models and the report are included."""
    with tempfile.TemporaryDirectory() as folder:
        sounds = Path(folder) / "sounds"
        sounds.mkdir()
        write_recordings(sounds, count, minutes)
        config = RunConfig.model_validate({
            "name": "bench", "output": f"{folder}/out", "source": {"path": str(sounds)},
            "curate": {"recordings_per_shard": max(1, count // 8), "annotate": {"quality": {"name": quality}}},
            "runner": {"kind": "local", "workers": 2},
        })  # fmt: skip
        wall = seconds(lambda: run(config, CHECKOUT / "configs", _Silent()))
    return Row(
        f"curate {count * minutes:.0f} min without ASR, `{quality}`, two processes", "real time",
        f"{wall:.1f} s", f"{count * minutes * 60:.0f} s", f"{count * minutes * 60 / wall:.1f}x real time", ">= 40x",
    )  # fmt: skip


if __name__ == "__main__":
    from tests.bench.measure import print_table

    print_table([curate_hours(*sys.argv[1:2], *map(int, sys.argv[2:]))])
