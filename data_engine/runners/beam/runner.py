"""`--runner beam`: submits jobs, yields reports as commit markers appear, submits again what a broken job left.

Workers keep their own crashes to themselves (`guard`), so a job breaks only when a whole worker is lost where Beam
does not replace it. The commit markers make it harmless to run the same shards again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any
from uuid import uuid4

from data_engine.core.config import validate
from data_engine.core.errors import ClusterError
from data_engine.core.plan import Plan
from data_engine.io.storage import Storage
from data_engine.runners.attempts import MAX_ATTEMPTS, RUN_ENDING, Outcome
from data_engine.runners.beam.child import Child
from data_engine.runners.beam.jobs import Job, RunShards, Summarise
from data_engine.runners.beam.notes import Notes
from data_engine.runners.beam.options import BeamOptions
from data_engine.runners.beam.progress import Progress
from data_engine.runners.protocol import Report, Summary

_POLL_SECONDS = 0.25


class BeamRunner:
    """Runs plans as Beam jobs.

    Args:
        workers: Workers of Beam's in-process runner; other runners have their own.
        options: See `BeamOptions`.

    Attributes:
        counters: What Beam counted in the jobs so far: rows in and out, rejects by code, milliseconds, per stage.

    Raises:
        ConfigError: An option is unknown.
    """

    def __init__(self, workers: int, options: Mapping[str, Any]) -> None:
        self.workers = workers
        self.settings = validate(BeamOptions, options, "runner.options")
        self.counters: Counter[str] = Counter()
        self._driver: Child | None = None

    def __enter__(self) -> BeamRunner:
        """Starts the process that talks to Beam, which checks Beam's options before any work."""
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends it; a job that runs elsewhere is cancelled."""
        self._end()

    def run(self, plan: Plan, shards: Sequence[int]) -> Iterator[Report]:
        """Runs the shards of a plan and yields a report for each, in order of completion."""
        attempts = dict.fromkeys(shards, 1)
        fruitless = 0
        while attempts:
            notes = self._notes(plan.output, plan.storage_options, plan.pipeline)
            work = next_job(attempts)
            progress = Progress(plan, notes, [shard for shard, _ in work])
            reason = ""
            try:
                for found in self._follow(RunShards(plan, work, notes), progress):
                    if isinstance(found, str):
                        reason = found
                    else:
                        del attempts[found["shard"]]
                        yield found
                flying = {note["shard"]: note["attempt"] for note in notes.running() if note["shard"] in attempts}
            finally:
                notes.remove()
            fruitless = 0 if flying or len(progress.open) < len(work) else fruitless + 1
            attempts |= {shard: attempt + 1 for shard, attempt in flying.items()}
            given_up = set(progress.open) if fruitless >= MAX_ATTEMPTS else set()
            for shard in sorted(s for s in progress.open if s in given_up or attempts[s] > MAX_ATTEMPTS):
                done = MAX_ATTEMPTS if shard in given_up else attempts[shard] - 1
                del attempts[shard]
                yield {"shard": shard, "status": "dead", "reason": reason, "attempts": done}

    def summarise(self, summary: Summary, storage: Storage, parts: Sequence[str]) -> Any:
        """Counts the parts in Beam's workers and joins them in order in a global Combine."""
        notes = self._notes(storage.uri, {}, "summary")
        try:
            self._send(Summarise(summary, storage.uri, parts, notes))
            kind, value = self._answer()
            notes.raise_end()
            if kind == "end":
                raise RUN_ENDING[value[0]](value[1])
            if kind == "failed":
                raise ClusterError(f"the summary failed in Beam: {value}. Run again.")
            return notes.read_result()
        finally:
            notes.remove()

    def _notes(self, uri: str, storage_options: Mapping[str, Any], name: str) -> Notes:
        return Notes(uri, dict(storage_options), f"{name}-{uuid4().hex[:12]}")

    def _follow(self, job: RunShards, progress: Progress) -> Iterator[Report | str]:
        """Yields reports while a job runs, and at its end a sentence where shards are left without one."""
        self._send(job)
        outcome: Outcome | None = None
        try:
            while outcome is None:
                ended = self._ended_within(max(_POLL_SECONDS, 5 * progress.seconds_to_look))
                outcome = self._answer() if ended else None
                yield from progress.look()
                job.notes.raise_end()
                if outcome is None and progress.quiet_seconds() > self.settings.stall_seconds:
                    break
        finally:
            if outcome is None or outcome[0] != "done":  # a job nobody waits for is ended with all it started
                self._end()
        kind, value = outcome or ("failed", f"no sign of life for {self.settings.stall_seconds:.0f} s")
        if kind == "end":
            raise RUN_ENDING[value[0]](value[1])
        if progress.open:
            yield f"Beam's job broke: {value}" if kind == "failed" else "Beam's job ended without this shard"

    def _start(self) -> Child:
        if self._driver is None:
            self._driver = Child.start("data_engine.runners.beam.driver", own_session=True)
            self._driver.connection.send((self.settings, self.workers))
            kind, value = self._answer()
            if kind != "done":
                self._end()
                raise RUN_ENDING[value[0]](value[1]) if kind == "end" else ClusterError(str(value))
        return self._driver

    def _send(self, job: Job) -> None:
        self._start().connection.send(job)

    def _ended_within(self, seconds: float) -> bool:
        """Waits for the driver to say something."""
        assert self._driver is not None
        try:
            return self._driver.connection.poll(seconds)
        except OSError:
            return True

    def _answer(self) -> Outcome:
        """Returns what the driver says; waits for it."""
        assert self._driver is not None
        try:
            outcome: Outcome = self._driver.connection.recv()
        except (EOFError, OSError):
            return "failed", "the process that talks to Beam died"
        if outcome[0] == "done":
            self.counters.update(outcome[1])
        return outcome

    def _end(self) -> None:
        driver, self._driver = self._driver, None
        if driver is not None:
            driver.end()


def next_job(attempts: Mapping[int, int]) -> list[tuple[int, int]]:
    """Returns (shard, attempt) of the next job: all that have attempts to spare, then each suspect alone.

    A worker that dies takes the blame for every shard in flight; alone, the innocent ones are told from the guilty.
    """
    together = sorted((shard, attempt) for shard, attempt in attempts.items() if attempt < MAX_ATTEMPTS)
    return together or [min(attempts.items())]
