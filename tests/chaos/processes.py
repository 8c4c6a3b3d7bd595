"""Processes of this machine, from /proc: who descends from whom, and who still lives."""

import os
import signal
import time
from pathlib import Path


def _stat(pid):
    """Returns (parent, start time) of a living process, None when it is gone or only waits to be collected."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else (int(fields[1]), fields[19])


def descendants(pid):
    """Returns {pid: start time} of all living descendants."""
    table = {int(p.name): found for p in Path("/proc").iterdir() if p.name.isdigit() and (found := _stat(p.name))}
    family, grown = {pid}, True
    while grown:
        more = {child for child, (parent, _) in table.items() if parent in family} - family
        family |= more
        grown = bool(more)
    return {child: table[child][1] for child in family if child in table and child != pid}


def workers(pid):
    """Returns the pids of a driver's worker processes: its own children, but not the one that tracks resources."""
    children = [child for child in descendants(pid) if (found := _stat(child)) and found[0] == pid]
    return sorted(child for child in children if b"resource_tracker" not in _command(child))


def _command(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b"resource_tracker"  # gone: nobody to be killed


def kill(pid):
    """Sends SIGKILL; a process that is gone already was not killed."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def outlived(family, seconds):
    """Returns the processes of {pid: start time} that still live after so many seconds, and ends them."""
    stop = time.monotonic() + seconds
    while time.monotonic() < stop and any((found := _stat(pid)) and found[1] == at for pid, at in family.items()):
        time.sleep(0.05)
    left = [pid for pid, at in family.items() if (found := _stat(pid)) and found[1] == at]
    for pid in left:
        kill(pid)
    return left
