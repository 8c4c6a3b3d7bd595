"""Live progress on stderr: shards, hours in and out, rejects by code, real-time factor, time left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from data_engine.core.plan import Plan


class ProgressDisplay:
    """A `Listener` that draws; on a terminal a live bar, elsewhere one line per shard."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._progress: Progress | None = None
        self._task: Any = None
        self._rejects: Counter[str] = Counter()
        self._hours_in = self._hours_out = self._wall = 0.0

    def planned(self, plan: Plan, committed: int) -> None:
        """Starts the bar of a pipeline."""
        self.stop()
        self._rejects.clear()
        self._hours_in = self._hours_out = self._wall = 0.0
        note = f", {committed} already committed" if committed else ""
        self.console.print(f"[bold]{plan.pipeline}[/]: {plan.num_shards} shards{note}")
        if self.console.is_terminal:
            self._start(plan, committed)

    def _start(self, plan: Plan, committed: int) -> None:
        columns = (
            TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[facts]}"),
        )  # fmt: skip
        self._progress = Progress(*columns, console=self.console, transient=True)
        self._progress.start()
        self._task = self._progress.add_task(plan.pipeline, total=plan.num_shards, completed=committed, facts="")

    def shard_done(self, plan: Plan, report: Mapping[str, Any]) -> None:
        """Moves the bar by one shard."""
        stages = [stats for record in report.get("groups", ()) for stats in record["stages"]]
        for stats in stages:
            self._rejects.update(stats["reject_codes"])
        self._wall += sum(record["wall_seconds"] for record in report.get("groups", ()))
        if stages:
            self._hours_in += max(stats["seconds_out"] for stats in stages) / 3600
            self._hours_out += stages[-1]["seconds_in"] / 3600
        if report["status"] == "dead":
            dead = f"  [red]shard {report['shard']} is dead[/] after {report['attempts']} attempts: "
            self.console.print(dead, end="")
            self.console.print(report["reason"], markup=False, highlight=False)
        if self._progress is not None:
            self._progress.update(self._task, advance=1, facts=self.facts())
        elif report["status"] != "dead":
            line = f"  {plan.pipeline} shard {report['shard']} {report['status']}  {self.facts()}"
            self.console.print(line, soft_wrap=True, highlight=False)

    def facts(self) -> str:
        """Returns hours, real-time factor and rejects so far, in one line."""
        speed = f", {self._hours_in * 3600 / self._wall:.1f}x real time per process" if self._wall else ""
        rejects = " ".join(f"{code}={count}" for code, count in self._rejects.most_common(4))
        hours = f"{self._hours_in:.3f} h in, {self._hours_out:.3f} h out"
        return hours + speed + (f", rejects: {rejects}" if rejects else "")

    def warn(self, sentence: str) -> None:
        """Shows a warning above the bar."""
        self.console.print(f"[yellow]warning:[/] {escape(sentence)}", highlight=False, soft_wrap=True)

    def stop(self) -> None:
        """Ends the bar."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
