"""Prints the measures of curation, per file and in total: `python -m tests.evaluate [measurement ...]`."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.evaluate.table import Figure, Measurement, lines

MEASUREMENTS = ("diarization", "alignment", "duplicates", "emotion", "voices", "memory")
"""Modules of this package, each with a function `figures` (a `Measurement`), in the order of the table."""


def measured(names: Sequence[str], speech: Path) -> Iterator[Figure]:
    """Yields the figures of the measurements of these names."""
    for name in names:
        module = importlib.import_module(f"tests.evaluate.{name}")
        measure: Measurement = module.figures
        yield from measure(speech)


def main() -> None:
    """Measures and prints row by row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(MEASUREMENTS)}; all by default")
    parser.add_argument("--speech", type=Path, default=Path(__file__).parents[3] / "shared" / "speech")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(MEASUREMENTS):
        parser.error(f"there is no measurement {', '.join(sorted(unknown))}")
    for line in lines(measured(arguments.names or MEASUREMENTS, arguments.speech)):
        print(line, flush=True)


if __name__ == "__main__":
    main()
