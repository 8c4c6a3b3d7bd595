"""The whole engine: the pipelines a config names, one after the other, into one output folder."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa

from data_engine.core.config import Settings, override, read_yaml, speed_knob, validate
from data_engine.core.errors import ConfigError, EngineError
from data_engine.core.plan import Listener, Plan
from data_engine.io.sources import SourceConfig
from data_engine.io.storage import Storage
from data_engine.report.page import write_report
from data_engine.report.totals import Totals, counted_parts
from data_engine.runners.books import claim, write_run_file
from data_engine.runners.protocol import Report
from data_engine.runners.redecide import renew_decisions
from data_engine.runners.request import note_request
from data_engine.runners.revoked import remove_obsolete
from data_engine.runners.run import execute, open_runner
from data_engine.standing import unfinished
from pipelines.curate import (
    CurateConfig,
    plan_curate,
    plan_decide,
    plan_duplicates,
    plan_speakers,
    plan_unite,
    plan_voices,
)
from pipelines.locate import output_uri
from pipelines.prefer import PreferConfig, plan_prefer
from pipelines.synthesize import SynthesizeConfig, plan_synthesize


class RunnerConfig(Settings):
    """How the run is executed; nothing here changes the output."""

    kind: str = speed_knob("local")
    workers: int | None = speed_knob(None, ge=1)
    """Processes; none: one per core."""
    options: dict[str, Any] = speed_knob({})
    """Options of the runner: a cluster's address, a Beam runner, ..."""


class RunConfig(Settings):
    """A run: what goes in, which pipelines, where to."""

    name: str
    output: str
    seed: int = 0
    source: SourceConfig | None = None
    curate: CurateConfig | None = None
    synthesize: SynthesizeConfig | None = None
    prefer: PreferConfig | None = None
    runner: RunnerConfig = RunnerConfig()
    report: bool = True


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended."""

    output: str
    run: Mapping[str, Any]
    dead: Sequence[Mapping[str, Any]]


def read_run_config(path: Path, assignments: Sequence[str]) -> RunConfig:
    """Returns the validated config of a run.

    Raises:
        ConfigError: Naming the file, the key and what was expected.
    """
    config = validate(RunConfig, override(read_yaml(path), assignments), str(path))
    if config.curate and not config.source:
        raise ConfigError(f"{path}: 'curate' needs a 'source' section, e.g. --set source.path=FOLDER")
    if not (config.curate or config.synthesize or config.prefer):
        raise ConfigError(f"{path}: names no pipeline; add a section 'curate', 'synthesize' or 'prefer'")
    return config


def open_output(config: RunConfig) -> Storage:
    """Returns the output folder."""
    return Storage(output_uri(config.output))


Only = str | Collection[str] | None
"""Section or sections to run, of `curate`, `synthesize` and `prefer`; none: all that the config has."""


def asked_sections(config: RunConfig, only: Only) -> list[str]:
    """Returns the sections to run, in order.

    Raises:
        ConfigError: The config has no such section.
    """
    present = [name for name in ("curate", "synthesize", "prefer") if getattr(config, name) is not None]
    wanted = present if only is None else [only] if isinstance(only, str) else only
    for section in wanted:
        if section not in present:
            raise ConfigError(f"the config has no section '{section}' to run alone")
    return [name for name in present if name in wanted]


def sections_left(config: RunConfig, only: Only) -> list[str]:
    """Returns the sections of the config that are not asked for, in order."""
    asked = asked_sections(config, only)
    return [section for section in asked_sections(config, None) if section not in asked]


def require_earlier(config: RunConfig, storage: Storage, only: Only) -> None:
    """Checks that what the asked sections read is all there: half of it would make another, smaller output.

    Raises:
        EngineError: A section before them is not finished; not a wrong configuration, for it may be finished later.
    """
    first = asked_sections(config, only)[0]
    present = asked_sections(config, None)
    earlier = [section for section in sections_left(config, only) if present.index(section) < present.index(first)]
    if first == "synthesize" and config.synthesize and config.synthesize.voices:
        earlier = []
    for section in unfinished(storage, earlier):
        raise EngineError(
            f"'{first}' reads what '{section}' makes, which is not finished in '{storage.uri}': run it first, or wait "
            f"until `data-engine status {storage.uri} --only {section}` ends with exit code 0"
        )


def plans(
    config: RunConfig, base: Path, storage: Storage, only: Only = None, listed: pa.Table | None = None
) -> Iterator[tuple[Plan, dict[str, Any]]]:
    """Yields each pipeline's plan and its part of the config when the one before is done, for it may read its output.

    Args:
        config: The run.
        base: Folder that relative paths in the config start from.
        storage: Output folder.
        only: What to run of it.
        listed: Recordings as they were listed before; none: lists the source.

    Raises:
        ConfigError: The config has no such section.
    """
    asked = asked_sections(config, only)
    if config.curate and "curate" in asked:
        assert config.source is not None
        settings = {"source": config.source.model_dump(mode="json"), "curate": config.curate.model_dump(mode="json")}
        curate = plan_curate(config.curate, config.source, base, storage, config.seed, listed)
        yield curate, settings
        yield plan_duplicates(config.curate, curate, storage), settings
        decide = plan_decide(config.curate, curate, base, storage)
        yield decide, settings
        voices = plan_voices(config.curate, decide, storage)
        yield voices, settings
        yield plan_speakers(config.curate, voices, storage), settings
        yield plan_unite(voices, storage), settings
    if config.synthesize and "synthesize" in asked:
        plan = plan_synthesize(config.synthesize, base, storage, config.seed)
        yield plan, {"synthesize": config.synthesize.model_dump(mode="json")}
    if config.prefer and "prefer" in asked:
        yield plan_prefer(config.prefer, storage, config.seed), {"prefer": config.prefer.model_dump(mode="json")}


def run(
    config: RunConfig,
    base: Path,
    listener: Listener,
    overwrite: bool = False,
    only: Only = None,
    listed: pa.Table | None = None,
) -> Outcome:
    """Runs a config to its end, or finishes it when it was begun before.

    Args:
        config: What to run.
        base: Folder that relative paths in the config start from.
        listener: Is told of every shard.
        overwrite: Replace public tables of another configuration in the same folder.
        only: What to run of it.
        listed: Recordings as they were listed before; none: lists the source.

    Returns:
        What `run.json` says, and the dead shards; a pipeline with dead shards keeps later ones from starting.

    Raises:
        EngineError: A section that an asked one reads from is not finished.
    """
    storage = open_output(config)
    require_earlier(config, storage, only)
    described = config.model_dump(mode="json")
    dead: list[Report] = []
    workers = config.runner.workers or os.cpu_count() or 1
    with ExitStack() as claims, open_runner(config.runner.kind, workers, config.runner.options) as runner:
        for plan, settings in plans(config, base, storage, only, listed):
            claims.enter_context(claim(storage, plan, {"seed": config.seed, **settings}, overwrite))
            note_request(storage, described, base, asked_sections(config, only))
            dead = execute(plan, runner, listener)
            if dead:
                break
        renew_decisions(runner, storage)
        complete = not dead and not unfinished(storage, sections_left(config, only))
        written = write_run_file(storage, described, "complete" if complete else "incomplete")
        if not dead:
            remove_obsolete(storage)
        if config.report:
            write_report(storage, written, runner.summarise(Totals(), storage, counted_parts(written)))
    return Outcome(storage.uri, written, dead)


def describe_plan(config: RunConfig, base: Path) -> list[dict[str, Any]]:
    """Returns pipelines with their stages, signatures and shard counts, without running anything.

    The plan is made in a temporary folder; later pipelines are planned as if earlier ones had no output yet.
    """
    with TemporaryDirectory() as folder:
        return [
            {
                "pipeline": plan.pipeline,
                "shards": None if plan.pipeline == "prefer" and config.synthesize else plan.num_shards,
                "stages": [
                    {"group": g.name, "stage": s.stage, "table": s.table, "signature": s.signature}
                    for g in plan.groups
                    for s in g.steps
                ],
            }
            for plan, _ in plans(config, base, Storage(folder))
        ]
