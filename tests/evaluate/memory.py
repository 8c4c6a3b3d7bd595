"""Peak memory of the whole curate pipeline over one long recording against a short one. Hours for a file of eight."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from tests.evaluate.diarization import RATE, sample
from tests.evaluate.table import Figure

CHECKOUT = Path(__file__).parents[2]
SHORT, LONG = 10.0, 480.0
"""Minutes of the two recordings."""


def write_recording(path: Path, minutes: float) -> None:
    """Writes conversations one after the other, each at another level and turned, so that none is a copy."""
    call, random, left = sample(), np.random.default_rng(0), int(minutes * 60 * RATE)
    assert call is not None
    speech = soundfile.read(call.path, dtype="float32")[0]
    with soundfile.SoundFile(path, "w", RATE, 1, subtype="PCM_16") as file:
        while left > 0:
            part = np.roll(speech, int(random.integers(len(speech)))) * random.uniform(0.3, 0.9)
            file.write(part[:left])
            left -= len(part)


def peak_mib(minutes: float) -> float:
    """Returns the most memory that a process of `data-engine run` held, in MiB; no language, so no transcripts."""
    with tempfile.TemporaryDirectory() as folder:
        write_recording(Path(folder) / "long.wav", minutes)
        command = [
            sys.executable, "-m", "data_engine.cli", "run", str(CHECKOUT / "configs" / "curate.yaml"),
            "--set", f"source.path={folder}/long.wav", "--set", "runner.workers=1", "--output", f"{folder}/out",
        ]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=CHECKOUT)
        _, status, used = os.wait4(process.pid, 0)  # of the largest of its processes
        assert os.waitstatus_to_exitcode(status) == 0, command
    return used.ru_maxrss / 1024


def figures(folder: Path, short: float = SHORT, long: float = LONG) -> Iterator[Figure]:
    """Yields both peaks and their ratio; the recordings are made of the sample, `folder` is not read."""
    peaks = {minutes: peak_mib(minutes) for minutes in (short, long)}
    for minutes, peak in peaks.items():
        yield Figure("peak memory of curate, largest process", f"one recording of {minutes:g} min", peak, unit="MiB")
    yield Figure("peak memory of curate, ratio", f"{long:g} against {short:g} min", peaks[long] / peaks[short], 1.3)


def main() -> None:
    """Prints the peaks of recordings of so many minutes: `python -m tests.evaluate.memory 10 60`."""
    for minutes in map(float, sys.argv[1:]):
        print(f"{minutes:g} min: {peak_mib(minutes):.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
