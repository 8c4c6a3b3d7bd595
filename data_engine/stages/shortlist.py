"""Shortlist: of each speaker in a shard the best segments for a voice prompt, so that little travels between shards."""

from __future__ import annotations

import pyarrow as pa
from pydantic import Field

from data_engine.core.config import Settings, speed_knob
from data_engine.core.schema import load_schema
from data_engine.core.stage import BatchHint, StageResult, StageSpec, Worker, iterate_rows
from data_engine.stages.rules.voice_prompt import PromptRules, Shortlists


class ShortlistSegments:
    """Passes on the best segments of each speaker and consent record, twice the longest prompt of them.

    Whatever is best over all shards is among the best of its own, so `voices` chooses as if it had seen them all.

    Consumes: segment.v1
    Produces: segment.v1
    Rejects: none
    """

    class Config(Settings):
        """Settings of the shortlist; those of `voices`.

        Attributes:
            max_seconds: The longest prompt.
            min_segment_seconds: Shorter segments are not used.
            rules: What else a segment must be.
            batch_rows: Rows at once.
        """

        max_seconds: float = Field(default=15.0, gt=0)
        min_segment_seconds: float = Field(default=0.8, ge=0)
        rules: PromptRules = PromptRules()
        batch_rows: int = speed_knob(64, ge=1)

    def __init__(self, config: Config) -> None:
        self.config, segment = config, load_schema("segment")
        self.spec = StageSpec(
            name="shortlist",
            version="2",
            consumes=segment,
            produces=segment,
            shape="fold",
            parents="segment_id",
            batch=BatchHint(max_rows=config.batch_rows),
        )
        self._speakers = Shortlists(config.min_segment_seconds, config.max_seconds, config.rules)

    def open(self, worker: Worker) -> None:
        """Needs nothing."""
        self._speakers.take()

    def process(self, batch: pa.RecordBatch) -> StageResult:
        """Takes segments; returns no row."""
        unused = self._speakers.add(iterate_rows(batch))
        return StageResult(self.spec.produces.batch([]), unused=unused)

    def finish(self) -> StageResult:
        """Returns what was held, by speaker."""
        rows = [row for shortlist in self._speakers.take() for _, row in shortlist.held]
        return StageResult(self.spec.produces.batch(rows))

    def close(self) -> None:
        """Holds nothing else."""
        self._speakers.take()
