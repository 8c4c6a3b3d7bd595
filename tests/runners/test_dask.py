"""The Dask runner: the same bytes as local, dead shards instead of failed runs, errors that end a run."""

import pytest

from data_engine.core.errors import ConfigError
from tests.plugins import probe_stages as probe
from tests.runners.test_local import Silent, carried_out, kept_rows, planned  # noqa: F401

pytestmark = pytest.mark.xdist_group("dask")
SEEDS = [1, 2, 3, probe.REJECT, 5, 6, 7]


def test_dask_writes_the_same_bytes_as_local(planned):  # noqa: F811
    storage, plan = planned(SEEDS, out="local")
    carried_out(plan, "local", 2, Silent())
    elsewhere, same_plan = planned(SEEDS, out="dask")
    listener = Silent()
    assert carried_out(same_plan, "dask", 2, listener) == []
    assert kept_rows(elsewhere, same_plan) == kept_rows(storage, plan)
    assert sorted(report["shard"] for report in listener.reports) == [0, 1, 2, 3]


def test_a_shard_that_kills_every_worker_is_dead_and_the_rest_is_committed(planned):  # noqa: F811
    storage, plan = planned([1, 2, probe.CRASH, 4, 5, 6, 7, 8])
    dead = carried_out(plan, "dask", 2, Silent())
    assert [report["shard"] for report in dead] == [1]
    assert "died" in dead[0]["reason"] or "Killed" in dead[0]["reason"]
    assert len(kept_rows(storage, plan)) == 3


def test_a_worker_that_dies_once_is_survived(planned, tmp_path):  # noqa: F811
    storage, plan = planned([1, 2, probe.FAIL_ONCE, 4, 5, 6], notes=str(tmp_path / "flag"))
    assert carried_out(plan, "dask", 2, Silent()) == []
    assert len(kept_rows(storage, plan)) == 3


def test_a_configuration_error_in_a_worker_ends_the_run(planned):  # noqa: F811
    _, plan = planned([1, 2, probe.END])
    with pytest.raises(ConfigError, match="asked to end"):
        carried_out(plan, "dask", 2, Silent())


def test_an_unknown_option_is_named(planned):  # noqa: F811
    _, plan = planned([1])
    with pytest.raises(ConfigError, match=r"runner\.options: unknown key 'adress'.*address"):
        carried_out(plan, "dask", 1, Silent(), {"adress": "tcp://x"})
