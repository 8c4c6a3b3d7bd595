"""prefer: the candidates of one turn -> scored pairs -> preference examples."""

from __future__ import annotations

from data_engine.core.config import Settings
from data_engine.core.plan import Plan
from data_engine.core.schema import load_schema
from data_engine.core.signature import digest
from data_engine.io.shards import committed_parts
from data_engine.io.storage import Storage
from data_engine.stages.pair import Pair
from pipelines.compose import Verb, compose


class PreferConfig(Settings):
    """Settings of the prefer pipeline."""

    pair: Pair.Config = Pair.Config()


def plan_prefer(config: PreferConfig, storage: Storage, seed: int) -> Plan:
    """Returns the plan over the candidates that `synthesize` committed, shard by shard."""
    parts = committed_parts(storage, "candidates")
    upstream = digest([part.marker["sha256"] for part in parts])
    pair = [Verb("pair", config.pair, table="preferences")]
    groups = compose(load_schema("candidate"), upstream, [("pair", pair)])
    return Plan("prefer", storage.uri, "candidate", "candidates", groups, len(parts), seed, {})
