"""One thread per process: processes are the parallelism, and another number of threads changes last bits of sums."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Variables that numerical libraries read when a process loads them."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Lets processes that are started inside compute with one thread, unless the user set otherwise; undone after."""
    added = [name for name in ONE_THREAD if name not in os.environ]
    os.environ.update({name: ONE_THREAD[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]
