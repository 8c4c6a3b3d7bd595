"""Claims: which live processes may write into an output folder, on any file system, with no lock service.

A run that starts writes a claim file of its own under `work/claims/` and refreshes it while it lives. Lamport's
bakery (CACM 17(8), 1974) orders runs that start at once: it needs no atomic operation, only that what was written is
seen by whoever lists afterwards, which holds for local disks, S3, GCS and Azure. Claims of dead processes are told by
their process where that is visible, else by their silence.
"""

from __future__ import annotations

import atexit
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from data_engine.core.errors import BusyError
from data_engine.io.storage import Storage

FOLDER = "work/claims"
BEAT_SECONDS = 10.0
SILENT_BEATS = 6
"""A claim without so many beats, by the clock of its reader, is watched for two more and then dropped."""
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Owner:
    """A process, told apart from a later one with the same number.

    Attributes:
        host: Name, boot and process namespace of the machine: equal for processes that see each other.
        pid: Process number.
        start: When it started, in ticks since boot; empty where the system does not say.
    """

    host: str
    pid: int
    start: str


@dataclass(frozen=True, slots=True)
class ClaimFile:
    """What a claim file says.

    Attributes:
        owner: Who wrote it.
        pipeline: What is claimed.
        signature: Signature of its plan.
        ticket: 0 while a number is being chosen, then the place in the queue.
        held: The claim is through the queue.
        beat: Grows while the owner lives.
        time: Wall clock of the owner at the last beat, seconds since 1970.
    """

    owner: Owner
    pipeline: str
    signature: str
    ticket: int = 0
    held: bool = False
    beat: int = 0
    time: float = field(default_factory=time.time)


def this_process() -> Owner:
    """Returns the owner that this process is."""
    pid = os.getpid()
    return Owner(_host(), pid, _start_of(pid) or "")


def _host() -> str:
    boot, space = "", ""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()[:8]
        space = str(Path("/proc/self/ns/pid").readlink()).strip("pid:[]")
    return f"{socket.gethostname()} {boot} {space}"


def _start_of(pid: int) -> str | None:
    """Returns when a process of this machine started; None when there is none, or nobody can say."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if stat[0] in "ZX" else stat[19]


class Claim:
    """A claim on an output folder; refreshed by a thread until it is released or the process ends.

    Use it as a context manager, or keep it: the end of the process releases it too.

    Args:
        storage: Output folder.
        pipeline: What is going to run.
        signature: Signature of its plan; claims with equal ones share the folder.
        beat_seconds: Time between refreshes.
    """

    def __init__(self, storage: Storage, pipeline: str, signature: str, beat_seconds: float = BEAT_SECONDS) -> None:
        self.storage = storage
        self.file = ClaimFile(this_process(), pipeline, signature)
        self.name = f"{FOLDER}/{self.file.owner.pid}-{uuid.uuid4().hex[:12]}.json"
        self.lost = False
        self._beat_seconds, self._lock, self._ended = beat_seconds, threading.Lock(), threading.Event()
        self._write()
        threading.Thread(target=self._refresh, name="claim", daemon=True).start()
        atexit.register(self.release)

    def _write(self, **changes: object) -> None:
        with self._lock:
            if self._ended.is_set():
                return
            self.file = replace(self.file, beat=self.file.beat + 1, time=time.time(), **changes)  # type: ignore[arg-type]
            self.storage.write_json(self.name, asdict(self.file))

    def _refresh(self) -> None:
        while not self._ended.wait(self._beat_seconds):
            with suppress(Exception):  # a storage that is away for a while is the run's business; silence tells others
                self.lost = not self.storage.exists(self.name)
                if self.lost:
                    return  # the folder was taken over or removed: never come back
                self._write()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Waits in the queue of all runs that are starting; inside, no other run is in its turn.

        Raises:
            BusyError: A live run of another configuration holds the folder.
        """
        try:
            self._write(ticket=1 + max((other.ticket for other in self.others()), default=0))
            while any(self._is_before(other) for other in self.others()):
                time.sleep(_POLL_SECONDS)
            self.check_rivals()
            yield
            self._write(held=True)
        except BaseException:
            self.release()
            raise

    def _is_before(self, other: ClaimFile) -> bool:
        if other.held:
            return False
        return other.ticket == 0 or (other.ticket, _order(other)) < (self.file.ticket, _order(self.file))

    def others(self) -> list[ClaimFile]:
        """Returns the claims of other live processes, and removes those of dead ones."""
        found = {n: c for n, c in read_claims(self.storage).items() if c.owner != self.file.owner}
        alive = {name: is_alive(claim, self._beat_seconds) for name, claim in found.items()}
        if None in alive.values():
            time.sleep(2 * self._beat_seconds)  # clocks may differ: only a beat that stands still is death
            later = read_claims(self.storage)
            for name in (n for n, state in alive.items() if state is None):
                alive[name] = name in later and later[name].beat != found[name].beat
        for name in (n for n, state in alive.items() if not state):
            self.storage.remove_file(name)
        return [claim for name, claim in found.items() if alive[name]]

    def check_rivals(self) -> None:
        """Refuses when a live process runs something else in this folder.

        Two processes agree when they share a pipeline and the signatures of all pipelines they share are equal.

        Raises:
            BusyError: Saying who holds the folder.
        """
        mine = {**self._held_by(self.file.owner), self.file.pipeline: self.file.signature}
        for other in self.others():
            theirs = self._held_by(other.owner)
            shared = theirs.keys() & mine.keys()
            if theirs and (not shared or any(theirs[name] != mine[name] for name in shared)):
                raise BusyError(
                    f"'{self.storage.uri}' is being written by another run: process {other.owner.pid} on "
                    f"{other.owner.host.split(' ')[0]} runs {', '.join(sorted(theirs))} there"
                    f"{' with another configuration' if shared else ''}, last seen "
                    f"{max(0, time.time() - other.time):.0f} s ago. Wait for it, stop it, or use another --output."
                )

    def _held_by(self, owner: Owner) -> dict[str, str]:
        claims = read_claims(self.storage).values()
        return {claim.pipeline: claim.signature for claim in claims if claim.owner == owner and claim.held}

    def release(self) -> None:
        """Gives the folder free; a second call does nothing."""
        if not self._ended.is_set():
            self._ended.set()
            atexit.unregister(self.release)
            with self._lock, suppress(Exception):
                self.storage.remove_file(self.name)

    def __enter__(self) -> Claim:
        """Returns the claim itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Gives the folder free."""
        self.release()


def _order(claim: ClaimFile) -> tuple[str, int, str]:
    return claim.owner.host, claim.owner.pid, claim.owner.start


def read_claims(storage: Storage) -> dict[str, ClaimFile]:
    """Returns the claims in an output folder, those of dead processes too, by file name."""
    names = [f"{FOLDER}/{name}" for name in storage.list(FOLDER) if name.endswith(".json")]
    found = {}
    for name in names:
        said: Any = storage.read_json(name)
        with suppress(TypeError, KeyError):  # gone by now, or no claim
            found[name] = ClaimFile(**{**said, "owner": Owner(**said["owner"])})
    return found


def is_alive(claim: ClaimFile, beat_seconds: float = BEAT_SECONDS) -> bool | None:
    """Tells whether the owner of a claim lives; None when it cannot be seen and has been silent for long."""
    if claim.owner.host == _host() and claim.owner.start:
        return _start_of(claim.owner.pid) == claim.owner.start
    return True if time.time() - claim.time < SILENT_BEATS * beat_seconds else None
