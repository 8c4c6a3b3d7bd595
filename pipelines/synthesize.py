"""synthesize: briefs -> scripts -> spoken candidates -> AQAA examples."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
from pydantic import Field

from data_engine.core.config import Settings, speed_knob
from data_engine.core.ids import content_id, seed_of
from data_engine.core.plan import Plan
from data_engine.core.schema import load_schema
from data_engine.core.signature import digest
from data_engine.io.items import write_items
from data_engine.io.storage import Storage
from data_engine.stages.annotate import AnnotateConfig
from data_engine.stages.assemble import Assemble
from data_engine.stages.cast import Cast
from data_engine.stages.script import WriteScript
from data_engine.stages.select import Select
from data_engine.stages.speak import Speak
from data_engine.stages.tokenize import TokenizeConfig
from data_engine.stages.verify import Verify
from pipelines.compose import Verb, compose, table_reference

AXES = (
    "instruction_following", "voice_understanding", "logical_reasoning", "role_play", "creativity", "singing",
    "language_ability", "emotion_control", "gaming", "tool_call",
)  # fmt: skip
"""The nine axes of StepEval-Audio-360 (Step-Audio, arXiv 2502.11946, sec. 6) and tool calls."""


class BriefsConfig(Settings):
    """What to ask the writer for: how many dialogues, in which languages, on which axes."""

    count: int = 12
    languages: dict[str, float] = Field({"en": 1.0}, min_length=1)
    axes: tuple[str, ...] = AXES


class SynthesizeConfig(Settings):
    """Settings of the synthesize pipeline, one section per stage."""

    briefs: BriefsConfig = BriefsConfig()
    voices: str | None = None
    """Output folder whose voices speak; none: this run's own."""
    dialogues_per_shard: int = speed_knob(4, ge=1)
    script: WriteScript.Config = WriteScript.Config()
    cast: Cast.Config = Cast.Config()
    speak: Speak.Config = Speak.Config()
    annotate: AnnotateConfig = AnnotateConfig(record="candidate")
    tokenize: TokenizeConfig = TokenizeConfig(record="candidate")
    verify: Verify.Config = Verify.Config()
    select: Select.Config = Select.Config()
    assemble: Assemble.Config = Assemble.Config()


def write_briefs(config: BriefsConfig, seed: int) -> pa.Table:
    """Returns `count` briefs: languages by their shares, axes in turn, a seed for each."""
    total = sum(config.languages.values())
    names = sorted(config.languages)
    rows, given = [], dict.fromkeys(names, 0)
    for index in range(config.count):
        language = max(names, key=lambda n: (index + 1) * config.languages[n] / total - given[n])
        axis = config.axes[given[language] % len(config.axes)]
        given[language] += 1
        brief_seed = seed_of(seed, "brief", index)
        brief_id = content_id("brief", language, axis, brief_seed)
        rows.append({"brief_id": brief_id, "language": language, "axis": axis, "seed": brief_seed})
    return pa.Table.from_batches([load_schema("brief").batch(rows)])


def plan_synthesize(config: SynthesizeConfig, base: Path, storage: Storage, seed: int) -> Plan:
    """Writes the briefs, divides them into shards once, and returns the plan."""
    voices = {"voices": table_reference(Storage(config.voices) if config.voices else storage, "voices")}
    briefs = write_briefs(config.briefs, seed)
    groups = compose(
        load_schema("brief"),
        digest([briefs.column("brief_id").to_pylist(), config.dialogues_per_shard, seed]),
        [
            ("speak", [
                Verb("script", config.script, table="scripts"),
                Verb("cast", _with(config.cast, {**voices, "tts": config.speak.tts.model_dump()})),
                Verb("speak", _with(config.speak, voices)),
                Verb("annotate", config.annotate),
                Verb("tokenize", config.tokenize),
                Verb("verify", _with(config.verify, voices)),
            ]),
            ("decide", [
                Verb("select", config.select, table="candidates"),
                Verb("assemble", _with(config.assemble, voices), table="aqaa"),
            ]),
        ],
    )  # fmt: skip
    folder = f"work/items/synthesize-{groups[0].signature[:12]}"
    num_shards = write_items(storage, folder, briefs, config.dialogues_per_shard)
    return Plan("synthesize", storage.uri, "brief", folder, groups, num_shards, seed, {})


def _with(settings: Settings, changes: Mapping[str, object]) -> Settings:
    return type(settings).model_validate({**settings.model_dump(mode="json"), **changes})
