"""curate: recordings -> segments and voices."""

from __future__ import annotations

from pathlib import Path

from data_engine.core.config import Settings, speed_knob
from data_engine.core.plan import Partition, Plan
from data_engine.core.schema import load_schema
from data_engine.io.exchange import write_index
from data_engine.io.items import write_items
from data_engine.io.sources import SourceConfig, list_source, source_digest
from data_engine.io.storage import Storage
from data_engine.runners.shard import work_table
from data_engine.stages.annotate import AnnotateConfig
from data_engine.stages.cut import CutConfig
from data_engine.stages.decode import DecodeConfig
from data_engine.stages.diarize import DiarizeConfig
from data_engine.stages.extract import ExtractConfig
from data_engine.stages.filter import Filter
from data_engine.stages.rules.policy import load_policy
from data_engine.stages.segment import SegmentConfig
from data_engine.stages.shortlist import ShortlistSegments
from data_engine.stages.tokenize import TokenizeConfig
from data_engine.stages.transcribe import TranscribeConfig
from data_engine.stages.voices import Voices
from pipelines.compose import Verb, compose
from pipelines.locate import find_config, resolve_package

SHARDS_PER_PARTITION = 16
"""A partition of speakers per so many shards."""


class CurateConfig(Settings):
    """Settings of the curate pipeline, one section per stage."""

    recordings_per_shard: int = speed_knob(16, ge=1)
    decode: DecodeConfig = DecodeConfig()
    segment: SegmentConfig = SegmentConfig()
    diarize: DiarizeConfig = DiarizeConfig()
    cut: CutConfig = CutConfig()
    extract: ExtractConfig = ExtractConfig()
    transcribe: TranscribeConfig = TranscribeConfig()
    annotate: AnnotateConfig = AnnotateConfig()
    tokenize: TokenizeConfig = TokenizeConfig()
    policy: str = "policies/tts.yaml"
    voices: Voices.Config = Voices.Config()


def plan_curate(config: CurateConfig, source: SourceConfig, base: Path, storage: Storage, seed: int) -> Plan:
    """Lists the source, divides it into shards once, and returns the plan.

    Args:
        config: Settings.
        source: Where the recordings are.
        base: Folder that relative paths in the config start from.
        storage: Output folder; the item files are written there.
        seed: Seed of the run.
    """
    found = source.model_copy(update={"path": resolve_package(source.path)})
    items = list_source(found, base)
    policy = load_policy(find_config(config.policy, base))
    num_shards = -(-items.num_rows // config.recordings_per_shard)
    groups = compose(
        load_schema("source"),
        f"{source_digest(items)} {config.recordings_per_shard}",
        [
            ("analyse", [
                Verb("decode", config.decode),
                Verb("segment", config.segment),
                Verb("diarize", config.diarize, table="recordings"),
                Verb("cut", config.cut),
                Verb("extract", config.extract),
                Verb("transcribe", config.transcribe),
                Verb("annotate", config.annotate),
                Verb("tokenize", config.tokenize),
            ]),
            ("decide", [
                Verb("filter", Filter.Config(policy=policy), table="segments"),
                Verb("shortlist", ShortlistSegments.Config(
                    max_seconds=config.voices.max_seconds, min_segment_seconds=config.voices.min_segment_seconds
                )),
            ]),
        ],
        Partition("speaker_id", max(1, -(-num_shards // SHARDS_PER_PARTITION))),
    )  # fmt: skip
    folder = f"work/items/curate-{groups[0].signature[:12]}"
    write_items(storage, folder, items, config.recordings_per_shard)
    return Plan("curate", storage.uri, "source", folder, groups, num_shards, seed, {})


def plan_voices(config: Voices.Config, curate: Plan, storage: Storage) -> Plan:
    """Returns the plan that pools the shortlisted segments of each speaker over all shards into voices."""
    last = curate.groups[-1]
    assert last.partition is not None
    table = work_table(curate, last)
    voices = [Verb("voices", config, table="voices")]
    groups = compose(load_schema("segment"), write_index(storage, table), [("pool", voices)])
    key, count = last.partition.key, last.partition.count
    return Plan("voices", storage.uri, "segment", table, groups, count, curate.seed, {}, exchange=key)
