"""curate: recordings -> segments and voices. Six plans: three of them work shard by shard, three over all shards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from data_engine.core.config import Settings, speed_knob
from data_engine.core.plan import Partition, Plan
from data_engine.core.schema import load_schema
from data_engine.io.exchange import write_index
from data_engine.io.items import write_items
from data_engine.io.sources import SourceConfig, list_source, source_digest
from data_engine.io.storage import Storage
from data_engine.runners.shard import work_table
from data_engine.stages.align import AlignConfig
from data_engine.stages.annotate import AnnotateConfig
from data_engine.stages.catalog import build_stage
from data_engine.stages.cut import CutConfig
from data_engine.stages.decode import DecodeConfig
from data_engine.stages.diarize import DiarizeConfig
from data_engine.stages.extract import ExtractConfig
from data_engine.stages.filter import Filter
from data_engine.stages.fingerprint import Fingerprint
from data_engine.stages.link import Link
from data_engine.stages.mark import Mark
from data_engine.stages.match import Match
from data_engine.stages.privacy import PrivacyConfig
from data_engine.stages.rules.consent import TableReference
from data_engine.stages.rules.policy import load_policy
from data_engine.stages.segment import SegmentConfig
from data_engine.stages.separate import SeparateConfig
from data_engine.stages.shortlist import ShortlistSegments
from data_engine.stages.tokenize import TokenizeConfig
from data_engine.stages.transcribe import TranscribeConfig
from data_engine.stages.unite import Unite
from data_engine.stages.voiceprint import Voiceprint
from data_engine.stages.voices import Voices
from pipelines.compose import Verb, compose, table_reference
from pipelines.locate import find_config, resolve_package

SHARDS_PER_PARTITION, MAX_PARTITIONS = 16, 1024
"""Rows that are grouped by a key are divided into a partition per so many shards; each shard writes to all of them."""


class CurateConfig(Settings):
    """Settings of the curate pipeline, one section per stage; `align` is left out unless it has one."""

    recordings_per_shard: int = speed_knob(16, ge=1)
    decode: DecodeConfig = DecodeConfig()
    segment: SegmentConfig = SegmentConfig()
    diarize: DiarizeConfig = DiarizeConfig()
    cut: CutConfig = CutConfig()
    extract: ExtractConfig = ExtractConfig()
    separate: SeparateConfig | None = None
    transcribe: TranscribeConfig = TranscribeConfig()
    align: AlignConfig | None = None
    privacy: PrivacyConfig = PrivacyConfig()
    annotate: AnnotateConfig = AnnotateConfig()
    tokenize: TokenizeConfig = TokenizeConfig()
    fingerprint: Fingerprint.Config = Fingerprint.Config()
    match: Match.Config = Match.Config()
    policy: str = "policies/tts.yaml"
    voices: Voices.Config = Voices.Config()
    link: Link.Config = Link.Config()


def plan_curate(
    config: CurateConfig,
    source: SourceConfig,
    base: Path,
    storage: Storage,
    seed: int,
    listed: pa.Table | None = None,
) -> Plan:
    """Lists the source, divides it into shards once, and returns the plan of everything that models do.

    Args:
        config: Settings.
        source: Where the recordings are.
        base: Folder that relative paths in the config start from.
        storage: Output folder; the item files are written there.
        seed: Seed of the run.
        listed: Recordings as they were listed before; none: lists the source.
    """
    load_policy(find_config(config.policy, base))  # a wrong one is found before any work
    items = listed
    if items is None:
        items = list_source(source.model_copy(update={"path": resolve_package(source.path)}), base)
    num_shards = -(-items.num_rows // config.recordings_per_shard)
    groups = compose(
        load_schema("source"),
        f"{source_digest(items)} {config.recordings_per_shard}",
        [
            ("analyse", [
                Verb("decode", config.decode),
                Verb("segment", config.segment),
                Verb("diarize", config.diarize, table="recordings", withheld=withheld_texts(config)),
                Verb("cut", config.cut),
                Verb("extract", config.extract),
                *separate_verbs(config),
                Verb("transcribe", config.transcribe),
                *align_verbs(config),
                Verb("privacy", privacy_after(config)),  # before anything is made of the sound
                Verb("annotate", config.annotate),
                Verb("tokenize", config.tokenize),
            ]),
            ("fingerprint", [Verb("fingerprint", config.fingerprint)]),
        ],
        partition_by("bucket", num_shards),
    )  # fmt: skip
    folder = f"work/items/curate-{groups[0].signature[:12]}"
    write_items(storage, folder, items, config.recordings_per_shard)
    return Plan("curate", storage.uri, "source", folder, groups, num_shards, seed, {})


def separate_verbs(config: CurateConfig) -> list[Verb]:
    """Returns the stage `separate` when it is asked for; all that is heard and measured later is what it leaves."""
    return [Verb("separate", config.separate)] if config.separate else []


def align_verbs(config: CurateConfig) -> list[Verb]:
    """Returns the stage `align` when it is asked for; it runs before `privacy`, which needs to know when words are."""
    return [Verb("align", config.align)] if config.align else []


def privacy_after(config: CurateConfig) -> PrivacyConfig:
    """Returns the settings of `privacy`; where phones have times, it takes those of personal data out, too."""
    return config.privacy.model_copy(update={"with_phones": True}) if config.align else config.privacy


def withheld_texts(config: CurateConfig) -> tuple[str, ...]:
    """Returns what `recordings` must not publish: texts the source declared, where personal data is taken out."""
    return () if config.privacy.action == "mark" else ("text", "attributes")


def plan_duplicates(config: CurateConfig, curate: Plan, storage: Storage) -> Plan:
    """Returns the plan that compares the fingerprints of all shards, bucket by bucket."""
    return plan_exchange("duplicates", curate, [("pool", [Verb("match", config.match, table="duplicates")])], storage)


def plan_decide(config: CurateConfig, curate: Plan, base: Path, storage: Storage) -> Plan:
    """Returns the plan that decides about segments, once it is known which recordings are copies of others."""
    analysed = curate.groups[-2]
    policy = load_policy(find_config(config.policy, base))
    voices = config.voices
    groups = compose(
        load_schema("segment"),
        analysed.signature,
        [
            ("decide", [
                Verb("mark", Mark.Config(duplicates=TableReference(**table_reference(storage, "duplicates")))),
                Verb("filter", Filter.Config(policy=policy), table="segments"),
                Verb("shortlist", ShortlistSegments.Config(
                    max_seconds=voices.max_seconds, min_segment_seconds=voices.min_segment_seconds, rules=voices.rules
                )),
            ]),
        ],
        partition_by("speaker_id", curate.num_shards),
    )  # fmt: skip
    table = work_table(curate, analysed)
    return Plan("decide", storage.uri, "segment", table, groups, curate.num_shards, curate.seed, {})


def plan_voices(config: CurateConfig, decide: Plan, storage: Storage) -> Plan:
    """Returns the plan that pools the shortlisted segments of each speaker over all shards into voices."""
    groups = [("pool", [Verb("voices", config.voices)]), ("print", [Verb("voiceprint", Voiceprint.Config())])]
    return plan_exchange("voices", decide, groups, storage, partition_by("consent", decide.num_shards))


def plan_speakers(config: CurateConfig, voices: Plan, storage: Storage) -> Plan:
    """Returns the plan that finds people under several speaker ids, among voices of equal consent records."""
    return plan_exchange("speakers", voices, [("pool", [Verb("link", config.link, table="speakers")])], storage)


def plan_unite(voices: Plan, storage: Storage) -> Plan:
    """Returns the plan that publishes the voices, one of each person and language."""
    pooled = voices.groups[0]
    speakers = TableReference(**table_reference(storage, "speakers"))
    verbs = [Verb("unite", Unite.Config(speakers=speakers), table="voices")]
    groups = compose(load_schema("voice"), pooled.signature, [("unite", verbs)])
    table = work_table(voices, pooled)
    return Plan("unite", storage.uri, "voice", table, groups, voices.num_shards, voices.seed, {})


def partition_by(key: str, num_shards: int) -> Partition:
    """Returns how rows are divided by a key: into a partition per `SHARDS_PER_PARTITION` shards."""
    return Partition(key, min(MAX_PARTITIONS, max(1, -(-num_shards // SHARDS_PER_PARTITION))))


def plan_exchange(
    pipeline: str,
    before: Plan,
    groups: Sequence[tuple[str, Sequence[Verb]]],
    storage: Storage,
    partition: Partition | None = None,
) -> Plan:
    """Returns a plan over the rows that the last group of another plan divided by a key."""
    last = before.groups[-1]
    assert last.partition is not None
    table = work_table(before, last)
    schema = build_stage(last.steps[-1].stage, last.steps[-1].config).spec.produces
    composed = compose(schema, write_index(storage, table), groups, partition)
    key, count = last.partition.key, last.partition.count
    return Plan(pipeline, storage.uri, schema.name, table, composed, count, before.seed, {}, exchange=key)
