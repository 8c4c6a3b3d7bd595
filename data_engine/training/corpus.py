"""Makes the training corpus: each part that teachers speak is a plan of the engine, into an output folder of its own.

So a run that was stopped goes on where it was, what could not be spoken is in the rejects, and any runner does it. Real
speech comes in through `curate` instead, by `configs/training/curate-real.yaml`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pyarrow as pa
from rich.console import Console

from data_engine.core.config import Settings, override, read_yaml, validate
from data_engine.core.errors import EngineError
from data_engine.core.ids import content_id
from data_engine.core.plan import Group, Listener, Plan, Step
from data_engine.core.schema import load_schema
from data_engine.core.signature import signature
from data_engine.io.items import write_items
from data_engine.io.storage import Storage
from data_engine.progress import ProgressDisplay
from data_engine.runners.books import claim, write_run_file
from data_engine.runners.protocol import Report, Runner
from data_engine.runners.run import execute, open_runner
from data_engine.stages.catalog import build_stage, stage_signature_parts
from data_engine.training.speech.lessons import Drawn, LessonSettings, PartSettings, texts_digest

TABLE = "segments"


class CorpusSettings(Settings):
    """Where texts and recordings are, and which parts to make.

    Attributes:
        output: Folder; each part is an output folder of its own inside it.
        seed: Seed of every draw.
        lists: Folder of FastSpeech 2's `preprocessed_data`.
        speechocean: Repository folder of speechocean762.
        recordings: Folder with `manifest.jsonl`.
        parts: Parts by name.
    """

    output: Path
    seed: int = 1
    lists: Path
    speechocean: Path
    recordings: Path
    parts: dict[str, PartSettings]

    def lessons(self, name: str) -> LessonSettings:
        """Returns what the lessons of a part depend on; those of drawn parts do not depend on how many there are."""
        part = self.parts[name]
        return LessonSettings(
            part=part.model_copy(update={"shards": 1}) if part.kind in get_args(Drawn) else part,
            seed=self.seed, lists=self.lists.absolute(), speechocean=self.speechocean.absolute(),
            recordings=self.recordings.absolute(),
        )  # fmt: skip


def plan_part(config: CorpusSettings, name: str) -> Plan:
    """Returns the plan of a part, one lesson per shard; the items are written into its output folder."""
    storage, lessons = Storage(str((config.output / name).absolute())), config.lessons(name)
    upstream, steps = texts_digest(lessons), []
    for stage, settings, table in (("teach", lessons.model_dump(mode="json"), None), ("admit", {}, TABLE)):
        version = build_stage(stage, settings).spec.version
        upstream = signature(stage, version, *stage_signature_parts(stage, settings), upstream)
        steps.append(Step(stage, settings, table, upstream))
    group = Group("teach", tuple(steps))
    folder, count = f"work/items/teach-{group.signature[:12]}", config.parts[name].shards
    rows = [{"lesson_id": content_id("lesson", name, n), "part": name, "number": n} for n in range(count)]
    write_items(storage, folder, pa.Table.from_batches([load_schema("lesson").batch(rows)]), rows_per_shard=1)
    return Plan("teach", storage.uri, "lesson", folder, (group,), count, config.seed, {})


def make_part(config: CorpusSettings, name: str, runner: Runner, listener: Listener, overwrite: bool) -> list[Report]:
    """Makes a part, or finishes it; returns the reports of its dead shards."""
    plan = plan_part(config, name)
    storage, described = Storage(plan.output), config.lessons(name).model_dump(mode="json")
    with claim(storage, plan, described, overwrite):
        dead = execute(plan, runner, listener)
        write_run_file(storage, described, "incomplete" if dead else "complete")
    return dead


def make(config: CorpusSettings, arguments: argparse.Namespace, names: Sequence[str]) -> bool:
    """Makes parts one after the other; tells whether all of their shards are committed."""
    console = Console(stderr=True)
    display, dead = ProgressDisplay(console), 0
    with open_runner(arguments.runner, arguments.workers, override({}, arguments.runner_option)) as runner:
        for name in names:
            console.print(name, highlight=False)
            dead += len(make_part(config, name, runner, display, arguments.overwrite))
    display.stop()
    return not dead


def main() -> None:
    """Runs `python -m data_engine.training.corpus --config FILE [--runner NAME] [--workers N] [PART ...]`."""
    parser = argparse.ArgumentParser(description="Makes the training corpus of the small speech models.")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--runner", default="local", help="local, dask or beam")
    parser.add_argument("--workers", "--processes", type=int, default=2)
    parser.add_argument("--runner-option", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--overwrite", action="store_true", help="replace parts of another configuration")
    parser.add_argument("parts", nargs="*")
    arguments = parser.parse_args()
    try:
        config = validate(CorpusSettings, read_yaml(arguments.config), str(arguments.config))
        raise SystemExit(0 if make(config, arguments, arguments.parts or list(config.parts)) else 1)
    except EngineError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
