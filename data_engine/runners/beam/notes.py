"""Notes that Beam's workers leave in the output folder, since results leave a Beam job only through storage.

What is committed is told by the commit markers. Notes tell the rest: which shards are in flight, which are dead, and
that the run cannot go on. They live as long as their job.
"""

from __future__ import annotations

import json
import os
import pickle
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from data_engine.io.storage import Storage
from data_engine.runners.attempts import RUN_ENDING, Task
from data_engine.runners.protocol import Report


@dataclass(frozen=True, slots=True)
class Notes:
    """The notes of one job; picklable.

    Attributes:
        uri: Output folder.
        storage_options: Options of its file system.
        job: Unique name of the job.
    """

    uri: str
    storage_options: Mapping[str, Any] = field(default_factory=dict)
    job: str = ""

    @property
    def storage(self) -> Storage:
        """The output folder."""
        return Storage(self.uri, self.storage_options)

    def _name(self, *parts: str) -> str:
        return "/".join(("work/beam", self.job, *parts))

    def started(self, task: Task, beat: int = 0) -> None:
        """Says that an attempt is in flight; said again with another `beat`, that it still is."""
        worker = f"{socket.gethostname()}-{os.getpid()}"
        note = {"shard": task.shard, "stretch": task.stretch, "attempt": task.attempt, "beat": beat, "worker": worker}
        self.storage.write_json(self._running(task), note)

    def stopped(self, task: Task) -> None:
        """Says that an attempt has come to an end, whichever."""
        self.storage.remove(self._running(task))

    def _running(self, task: Task) -> str:
        return self._name("running", f"{task.shard:05d}.{task.stretch}.json")

    def running(self) -> list[dict[str, Any]]:
        """Returns the attempts in flight."""
        return self._read_all("running")

    def died(self, report: Report) -> None:
        """Says that a shard is dead."""
        self.storage.write_json(self._name("dead", f"{report['shard']:05d}.json"), report)

    def dead(self) -> list[Report]:
        """Returns the reports of dead shards."""
        return self._read_all("dead")

    def _read_all(self, folder: str) -> list[dict[str, Any]]:
        storage = self.storage
        found = [storage.read_json(self._name(folder, name)) for name in storage.list(self._name(folder))]
        return [note for note in found if note]  # one that was removed meanwhile reads as nothing

    def ended(self, name: str, message: str) -> None:
        """Says that the run cannot go on."""
        self.storage.write_json(self._name("end.json"), [name, message])

    def raise_end(self) -> None:
        """Raises what a worker found to end the run.

        Raises:
            ConfigError, ContractError, StorageError: A worker said so.
        """
        found = self.storage.read_json(self._name("end.json"))
        if found:
            raise RUN_ENDING[found[0]](found[1])

    def write_result(self, result: Any) -> None:
        """Keeps what a job has computed: as JSON when JSON can tell it."""
        text = _as_json(result)
        if text is None:
            self.storage.write(self._name("result.pickle"), pickle.dumps(result))
        else:
            self.storage.write(self._name("result.json"), text.encode())

    def read_result(self) -> Any:
        """Returns what a job has computed.

        Raises:
            FileNotFoundError: It has computed nothing.
        """
        storage = self.storage
        if storage.exists(self._name("result.json")):
            return storage.read_json(self._name("result.json"))
        with storage.open(self._name("result.pickle")) as file:
            return pickle.load(file)  # noqa: S301 - written a moment ago by this very job, under a name of its own

    def remove(self) -> None:
        """Removes the notes."""
        self.storage.remove(self._name())


def _as_json(result: Any) -> str | None:
    """Returns JSON that reads back as exactly `result`, None when there is none."""
    try:
        text = json.dumps(result)
    except (TypeError, ValueError):
        return None
    return text if _same(json.loads(text), result) else None


def _same(a: Any, b: Any) -> bool:
    """Tells whether two values are equal and of equal types all the way down."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b)
