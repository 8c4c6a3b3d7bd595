"""Start-up of the library and of the command line, over a bare interpreter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.bench.measure import Row, in_turn


def _start(*arguments: str) -> None:
    subprocess.run(arguments, check=True, capture_output=True)


def import_time() -> Row:
    """`import data_engine` against `pass`."""
    ours, bare, ratio = in_turn(
        lambda: _start(sys.executable, "-c", "import data_engine"), lambda: _start(sys.executable, "-c", "pass"), 9
    )
    times = f"{ours:.3f} s", f"{bare:.3f} s", f"{1 / ratio:.2f}"
    return Row("import data_engine", "bare interpreter", *times, "< 0.15 s")


def help_time() -> Row:
    """`data-engine --help` against a bare interpreter."""
    command = str(Path(sys.executable).parent / "data-engine")
    ours, bare, ratio = in_turn(lambda: _start(command, "--help"), lambda: _start(sys.executable, "-c", "pass"), 9)
    times = f"{ours:.3f} s", f"{bare:.3f} s", f"{1 / ratio:.2f}"
    return Row("data-engine --help", "bare interpreter", *times, "< 0.5 s")
