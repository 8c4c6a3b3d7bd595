"""Live progress on stderr: shards, hours in and out, rejects by code, real-time factor, time left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from data_engine.core.plan import Plan


class ProgressDisplay:
    """A `Listener` that draws; on a terminal a live bar, elsewhere one line per shard."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._progress: Progress | None = None
        self._task: Any = None
        self._rejects: Counter[str] = Counter()
        self._seconds = {"in": 0.0, "out": 0.0}
        self._wall = 0.0

    def planned(self, plan: Plan, committed: int) -> None:
        """Starts the bar of a pipeline."""
        self.stop()
        self._rejects.clear()
        self._seconds, self._wall = {"in": 0.0, "out": 0.0}, 0.0
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
        for record in report.get("groups", ()):
            for stats in record["stages"]:
                self._rejects.update(stats["reject_codes"])
            self._wall += record["wall_seconds"]
            self._seconds["out"] += record["stages"][-1]["seconds_in"]
            self._seconds["in"] += max(s["seconds_out"] for s in record["stages"])
        if report["status"] == "dead":
            self.console.print(f"  [red]shard {report['shard']} is dead[/] after {report['attempts']} attempts: ", end="")
            self.console.print(report["reason"], markup=False, highlight=False)
        if self._progress is not None:
            self._progress.update(self._task, advance=1, facts=self.facts())
        elif report["status"] != "dead":
            self.console.print(f"  {plan.pipeline} shard {report['shard']} {report['status']}  {self.facts()}")

    def facts(self) -> str:
        """Returns hours, real-time factor and rejects so far, in one line."""
        audio = self._seconds["in"]
        speed = f", {audio / self._wall:.1f}x real time per process" if audio and self._wall else ""
        rejects = " ".join(f"{code}={count}" for code, count in self._rejects.most_common(4))
        return f"{audio / 3600:.3f} h of audio{speed}" + (f", rejects: {rejects}" if rejects else "")

    def stop(self) -> None:
        """Ends the bar."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
