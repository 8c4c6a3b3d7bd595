"""Filter: writes what the policy decides about each segment. It drops nothing; readers go by `decision`."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from data_engine.core.config import Settings, speed_knob
from data_engine.core.schema import load_schema
from data_engine.core.stage import BatchHint, StageResult, StageSpec, Worker
from data_engine.stages.rules.policy import Policy, check_policy, evaluate


class Filter:
    """Annotates segments with the decision of a policy; it also reads every column the policy names.

    Consumes: segment_id
    Produces: segment_id, policy, decision, reasons
    Rejects: none
    """

    class Config(Settings):
        """Settings of the filter.

        Attributes:
            policy: Rules, as in `configs/policies/*.yaml`; without any, everything is kept.
            batch_rows: Rows at once.
        """

        policy: Policy = Policy(name="keep_all", version=1)
        batch_rows: int = speed_knob(64, ge=1)

    def __init__(self, config: Config) -> None:
        """Checks the policy against the segment schema.

        Raises:
            ConfigError: A rule names an unknown column or a condition its type cannot meet.
        """
        self.config, schema = config, load_schema("segment")
        check_policy(config.policy, schema)
        self.spec = StageSpec(
            name="filter",
            version="1",
            consumes=schema.pick(*config.policy.columns),
            produces=schema.pick("policy", "decision", "reasons"),
            shape="map",
            batch=BatchHint(max_rows=config.batch_rows),
        )

    def open(self, worker: Worker) -> None:
        """Needs nothing."""

    def process(self, batch: pa.RecordBatch) -> StageResult:
        """Returns decision and reasons of each row."""
        decisions, reasons = evaluate(self.config.policy, batch)
        label = pa.array([self.config.policy.label] * batch.num_rows, pa.string())
        columns = [batch.column(self.spec.produces.id), label, decisions, reasons]
        rows = pa.RecordBatch.from_arrays(columns, schema=pa.schema([f.arrow() for f in self.spec.produces.fields]))
        kept = pc.sum(pc.equal(decisions, "keep")).as_py() or 0
        return StageResult(rows, metrics={"kept": kept, "dropped": batch.num_rows - kept})

    def close(self) -> None:
        """Holds nothing."""
