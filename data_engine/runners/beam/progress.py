"""How far a Beam job is, seen from outside: by commit markers and notes in the output folder."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from data_engine.core.plan import Plan
from data_engine.io.shards import marker_name
from data_engine.io.storage import Storage
from data_engine.runners.beam.notes import Notes
from data_engine.runners.protocol import Report
from data_engine.runners.shard import group_marker, group_table


class Progress:
    """Watches the shards of a job.

    Args:
        plan: What runs.
        notes: What its workers say.
        shards: Those of the job.

    Attributes:
        open: Shards without a report.
        seconds_to_look: How long the last look took: on an object store not a matter to repeat all the time.
    """

    def __init__(self, plan: Plan, notes: Notes, shards: Sequence[int]) -> None:
        self.plan, self.notes, self.open = plan, notes, list(shards)
        self.seconds_to_look = 0.0
        self._storage = Storage(plan.output, plan.storage_options)
        self._seen: Any = None
        self._changed: float | None = None

    def look(self) -> Iterator[Report]:
        """Yields the reports that have come up since the last look."""
        started = time.monotonic()
        found = [*self._committed(), *(report for report in self.notes.dead() if report["shard"] in self.open)]
        gone = {report["shard"] for report in found}
        self.open = [shard for shard in self.open if shard not in gone]
        names = ("shard", "stretch", "attempt", "beat")
        flying = sorted(tuple(note[name] for name in names) for note in self.notes.running())
        seen = (len(self.open), flying)
        if found or flying or self._changed is not None:  # alive once; before that, a job may wait for machines
            self._changed = started if seen != self._seen or self._changed is None else self._changed
        self._seen = seen
        self.seconds_to_look = time.monotonic() - started
        yield from found

    def quiet_seconds(self) -> float:
        """Returns how long nothing has changed, heartbeats included, since the first sign of life."""
        return 0.0 if self._changed is None else time.monotonic() - self._changed

    def _committed(self) -> Iterator[Report]:
        last = self.plan.groups[-1]
        present = set(self._storage.list(group_table(self.plan, last)))
        for shard in self.open:
            if marker_name("", shard).lstrip("/") in present and group_marker(self._storage, self.plan, last, shard):
                groups = [group_marker(self._storage, self.plan, group, shard) for group in self.plan.groups]
                yield {"shard": shard, "status": "committed", "groups": groups}
