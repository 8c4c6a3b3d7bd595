"""Runs `python -m data_engine.training.evaluation --config FILE [--set a.b=value] [ROW ...]`."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from data_engine.core.config import override, read_yaml, validate
from data_engine.core.errors import ConfigError
from data_engine.training.evaluation import table
from data_engine.training.evaluation.bench import Bench
from data_engine.training.evaluation.figures import Found, NotMeasuredError
from data_engine.training.evaluation.rows import ROWS
from data_engine.training.evaluation.settings import EvaluationSettings


def measured(bench: Bench, row: str) -> Mapping[str, Found] | str:
    """Returns what a row found, or why nothing was measured."""
    module, function = ROWS[row].function.split(":")
    try:
        work = getattr(importlib.import_module(f"data_engine.training.evaluation.{module}"), function)
        found: Mapping[str, Found] = work(bench)
    except NotMeasuredError as error:
        return str(error)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("data_engine"):
            raise
        return f"{error.name} is not installed; it comes with the extras train and embedded"
    return found


def evaluate(settings: EvaluationSettings, rows: list[str]) -> table.Results:
    """Measures rows, adds them to the stored results and returns all of them."""
    bench = Bench(settings)
    results = table.read(settings.output)
    tokenizer_hash = bench.tokenizer_hash
    for row in rows:
        began, spent = time.perf_counter(), time.process_time()
        found = measured(bench, row)
        results = table.merged(results, table.entries(row, found, tokenizer_hash), tokenizer_hash)
        context = {"tokenizer_hash": tokenizer_hash, "settings": settings.model_dump(mode="json")}
        table.write(settings.output, results, context)
        wall, processor = time.perf_counter() - began, time.process_time() - spent
        print(f"{row}: {wall:.0f} s, {processor:.0f} s of processor time", file=sys.stderr, flush=True)
    return results


def main() -> None:
    """Measures the rows named, or all of them, and prints the table."""
    parser = argparse.ArgumentParser(description="Measures the small speech models.")
    parser.add_argument("--config", type=Path, default=Path("configs/training/evaluate.yaml"))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="sets")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; all by default")
    arguments = parser.parse_args()
    unknown = [row for row in arguments.rows if row not in ROWS]
    if unknown:
        raise ConfigError(f"there is no row {', '.join(unknown)}; known: {', '.join(ROWS)}")
    values = override(read_yaml(arguments.config), arguments.sets)
    settings = validate(EvaluationSettings, values, str(arguments.config))
    results = evaluate(settings, arguments.rows or list(ROWS))
    print(table.markdown(results, arguments.rows or list(ROWS)), end="")


if __name__ == "__main__":
    main()
