"""Mixture sampling over an output folder: its YAML file may have a `runner` section, as a run's config has."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_engine.core.config import override, read_yaml, validate
from data_engine.export.mixture import MixtureConfig, draw_mixture
from data_engine.io.storage import Storage
from data_engine.quantiles import column_quantiles
from data_engine.runners.protocol import Runner
from data_engine.runners.run import open_runner
from pipelines.locate import output_uri
from pipelines.run import RunnerConfig


def mix(output: str, path: Path, name: str | None, assignments: Sequence[str]) -> dict[str, Any]:
    """Draws the mixture of a YAML file and returns its report.

    Args:
        output: Output folder of a run.
        path: The file.
        name: Name of the mixture; none: that of the file.
        assignments: `key=value` overrides; `runner.*` as in a run's config.

    Raises:
        ConfigError: A key is wrong, or the folder does not hold what is asked for.
    """
    values = override(read_yaml(path), assignments)
    runner = validate(RunnerConfig, values.pop("runner", {}), f"{path}: runner")
    config = validate(MixtureConfig, values, str(path))
    with opened(runner) as engine:
        return draw_mixture(engine, Storage(output_uri(output)), name or path.stem, config)


def quantiles_of(output: str, table: str, columns: str, where: Sequence[str]) -> dict[str, Any]:
    """Returns quantiles of comma-separated columns; see `data_engine.quantiles`.

    Args:
        output: Output folder of a run.
        table: Table.
        columns: Numeric columns.
        where: `column=value` conditions; values are read as YAML.

    Raises:
        ConfigError: A column or condition is wrong.
    """
    names = [name.strip() for name in columns.split(",")]
    with opened(RunnerConfig()) as engine:
        return column_quantiles(engine, Storage(output_uri(output)), table, names, override({}, where))


def opened(runner: RunnerConfig) -> Runner:
    """Returns the runner a config names, to be used as a context manager."""
    return open_runner(runner.kind, runner.workers or os.cpu_count() or 1, runner.options)
