"""The two Beam pipelines: shards of a plan, and a summary over many parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from data_engine.core.plan import Plan
from data_engine.runners.beam.notes import Notes
from data_engine.runners.beam.options import BeamOptions
from data_engine.runners.protocol import Summary

if TYPE_CHECKING:
    import apache_beam as beam
    from apache_beam.utils.shared import Shared


class Job(Protocol):
    """What the driver builds a pipeline from; picklable."""

    @property
    def name(self) -> str:
        """Name of the job, as Beam's runners allow it."""
        ...

    def build(self, pipeline: beam.Pipeline, settings: BeamOptions, tasks: int, guards: Shared) -> None:
        """Adds its steps to an empty pipeline.

        Args:
            pipeline: Empty.
            settings: Options of the runner.
            tasks: Shards at a time in one worker process.
            guards: Handle of the guards of a worker process.
        """
        ...


@dataclass(frozen=True, slots=True)
class RunShards:
    """`Create | Reshuffle | ParDo` per stretch; a plan with `exchange` begins with a CoGroupByKey.

    Attributes:
        plan: What to run.
        work: (shard, attempt to begin with).
        notes: Where its workers leave word.
    """

    plan: Plan
    work: Sequence[tuple[int, int]]
    notes: Notes

    @property
    def name(self) -> str:
        """The engine and the pipeline."""
        return f"speech-data-engine-{self.plan.pipeline}"

    def build(self, pipeline: beam.Pipeline, settings: BeamOptions, tasks: int, guards: Shared) -> None:
        """Adds one ParDo per stretch, each after a Reshuffle so that a shard is a bundle's own choice of worker."""
        import apache_beam as beam

        from data_engine.runners.beam.steps import RunStretch

        work = self._grouped(pipeline) if self.plan.exchange else self._listed(pipeline)
        for number, stretch in enumerate(self.plan.stretches):
            names = " ".join(group.name for group in self.plan.groups[stretch.first : stretch.stop])
            step = beam.ParDo(RunStretch(self.plan, number, self.notes, settings, tasks, guards))
            hints = settings.gpu_hints if stretch.gpus else settings.hints
            work = work | f"hand over to {names}" >> beam.Reshuffle() if number or not self.plan.exchange else work
            work = work | names >> (step.with_resource_hints(**hints) if hints else step)

    def _listed(self, pipeline: beam.Pipeline) -> Any:
        import apache_beam as beam

        return pipeline | "shards" >> beam.Create([(shard, attempt, None) for shard, attempt in self.work])

    def _grouped(self, pipeline: beam.Pipeline) -> Any:
        """Reads every part once and brings the rows of each open partition together; empty partitions come too."""
        import apache_beam as beam

        from data_engine.runners.beam.steps import grouped_work, read_parts, read_rows

        plan, numbers = self.plan, sorted(shard for shard, _ in self.work)
        rows = (
            pipeline
            | "divided table" >> beam.Create([plan.input])
            | "parts" >> beam.FlatMap(read_parts, plan.output, plan.storage_options)
            | "spread" >> beam.Reshuffle()
            | "rows by partition" >> beam.FlatMap(read_rows, plan, numbers, self.notes)
        )
        shards = pipeline | "open partitions" >> beam.Create(list(self.work))
        found = {"rows": rows, "open": shards} | "group by partition" >> beam.CoGroupByKey()
        return found | "rows in order of parts" >> beam.Map(grouped_work)


@dataclass(frozen=True, slots=True)
class Summarise:
    """`Create | Reshuffle | Map(count) | CombineGlobally(join)`; the result is left in the notes.

    Attributes:
        summary: What to count and join.
        uri: Output folder.
        parts: Files inside it.
        notes: Where the result goes.
    """

    summary: Summary
    uri: str
    parts: Sequence[str]
    notes: Notes

    @property
    def name(self) -> str:
        """The engine and what is counted."""
        return "speech-data-engine-summary"

    def build(self, pipeline: beam.Pipeline, settings: BeamOptions, tasks: int, guards: Shared) -> None:
        """Adds the steps."""
        import apache_beam as beam

        from data_engine.runners.beam.steps import JoinInOrder, count_part

        (
            pipeline
            | "list parts" >> beam.Create(list(enumerate(self.parts)))
            | "spread" >> beam.Reshuffle()
            | "count" >> beam.Map(count_part, self.summary, self.uri, self.notes)
            | "join" >> beam.CombineGlobally(JoinInOrder(self.summary.join))
            | "result" >> beam.Map(self.notes.write_result)
        )
