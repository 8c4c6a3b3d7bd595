"""A Python process of our own at the other end of a socket.

Started by `exec`, never by `fork`: Beam's processes are full of gRPC threads. Its standard output is ours of errors,
since Beam's worker pool never reads what its workers print.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection

from data_engine.runners.threads import ONE_THREAD


@dataclass(slots=True)
class Child:
    """A running process.

    Attributes:
        process: The process.
        connection: Our end of the socket.
    """

    process: subprocess.Popen[bytes]
    connection: Connection

    @classmethod
    def start(cls, module: str, own_session: bool = False) -> Child:
        """Starts `python -m module SOCKET`.

        Args:
            module: What to run; it calls `parent` first.
            own_session: True when all it starts shall end with it, by `end`.
        """
        ours, theirs = socket.socketpair()
        path = os.pathsep.join(dict.fromkeys(entry for entry in sys.path if entry))
        environment = {**ONE_THREAD, **os.environ, "PYTHONPATH": path}
        command = [sys.executable, "-m", module, str(theirs.fileno())]
        process = subprocess.Popen(  # noqa: S603 - our own module
            command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=2, env=environment,
            start_new_session=own_session,
        )  # fmt: skip
        theirs.close()
        return cls(process, Connection(ours.detach()))

    def died(self) -> int:
        """Waits for a process that has hung up and returns its exit code, negative for a signal."""
        self.connection.close()
        try:
            return self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:  # it closed the socket and lives on
            self.process.kill()
            return self.process.wait()

    def end(self, seconds: float = 5.0) -> None:
        """Asks a process with a session of its own to end, then ends it and all it started."""
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.connection.close()


def parent(group: bool = False) -> Connection:
    """Returns the child's end of the socket, and sees to it that the child does not outlive its parent.

    Args:
        group: End the whole process group with it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    threading.Thread(target=_end_with, args=(os.getppid(), group), daemon=True).start()
    return Connection(int(sys.argv[1]))


def _end_with(parent_pid: int, group: bool) -> None:
    while os.getppid() == parent_pid:
        time.sleep(0.5)
    if group:
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
