"""The local runner set OMP_NUM_THREADS and the like for good, so what the process started later computed otherwise."""

import os

from data_engine.runners.threads import ONE_THREAD
from tests.runners.test_local import Silent, carried_out, planned  # noqa: F401


def test_a_run_leaves_the_environment_as_it_was(planned, monkeypatch):  # noqa: F811
    for name in ONE_THREAD:
        monkeypatch.delenv(name, raising=False)
    before = dict(os.environ)
    _, plan = planned([1, 2])
    assert carried_out(plan, "local", 1, Silent()) == []
    assert {name: os.environ.get(name) for name in ONE_THREAD} == {name: before.get(name) for name in ONE_THREAD}
