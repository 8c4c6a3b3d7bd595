"""Object-store faults at every request of a small run, one at a time: never a wrong or partial table."""

import socket

import pytest

from data_engine.backends.catalog import BackendCache
from data_engine.core.errors import ShardError, TransientStorageError
from data_engine.core.harness import StageRun
from data_engine.io.shards import marker_name
from data_engine.io.storage import Storage
from data_engine.runners.attempts import classify
from data_engine.runners.run import execute, open_runner
from data_engine.runners.shard import run_shard
from tests.io.conftest import QUICK
from tests.io.faults import KINDS, once
from tests.io.small_run import SEEDS, Watcher, briefs, objects_of, plan_in, run_through, tables_of, write_input
from tests.plugins import probe_stages as probe


@pytest.fixture
def expected(plugin, tmp_path):
    """What a run on a local disk makes: rows by table and shard, and every file."""
    storage, plan = plan_in(str(tmp_path / "right"))
    run_through(storage, plan)
    tables = tables_of(storage, plan)
    assert [[len(rows) for rows in parts.values()] for parts in tables.values()] == [[1, 2], [1, 0]]
    return tables, objects_of(storage)


def sweep(s3, proxy, options, kinds_of, expected):
    """Breaks each request of a run in turn; yields the error of each broken run, None where it went through.

    After each, the run is begun again without faults and must end with exactly the right files.
    """
    tables, objects = expected
    known = set()
    proxy.reset()
    run_through(*plan_in(f"{s3}/clean", {**options, "retry": QUICK["retry"]}))
    for number in range(1, len(proxy.requests) + 1):
        for kind in kinds_of(number):
            uri, error = f"{s3}/{number}-{kind}", None
            direct, plan = plan_in(uri)
            watcher = Watcher(direct, plan, tables, known)
            proxy.reset(once(kind, number), watcher)
            try:
                run_through(*plan_in(uri, options))
            except ShardError as caught:
                error = caught
            proxy.reset(watch=watcher)
            run_through(*plan_in(uri, {**options, "retry": QUICK["retry"]}))
            assert objects_of(direct) == objects, (number, kind)
            assert (watcher.looks > 0, watcher.wrong) == (True, []), (number, kind)
            yield error


def test_one_fault_at_any_request_ends_the_attempt_and_the_next_run_finishes(s3, proxy, faulty, expected):
    def kinds(number):
        return sorted({"lost", KINDS[number % 6]})

    errors = list(sweep(s3, proxy, {**faulty, "retry": {"attempts": 1}}, kinds, expected))
    assert {type(error) for error in errors} == {TransientStorageError}
    assert {classify(error)[0] for error in errors} == {"failed"}


def test_one_fault_at_any_request_is_retried_and_nobody_notices(s3, proxy, faulty, expected):
    errors = list(sweep(s3, proxy, faulty, lambda number: [KINDS[(number + 1) % 6]], expected))
    assert set(errors) == {None}


@pytest.mark.parametrize("kind", KINDS)
def test_one_fault_at_any_request_of_a_reader_is_an_error_or_nothing(s3, proxy, faulty, expected, monkeypatch, kind):
    monkeypatch.setattr("data_engine.io.storage._READERS", 1)  # requests in one order
    tables, _ = expected
    direct, plan = plan_in(s3)
    run_through(direct, plan)
    proxy.reset()
    patient, _ = plan_in(s3, faulty)
    hasty, _ = plan_in(s3, {**faulty, "retry": {"attempts": 1}})
    assert tables_of(patient, plan) == tables
    for number in range(1, len(proxy.requests) + 1):
        proxy.reset(once(kind, number))
        with pytest.raises(TransientStorageError):
            tables_of(hasty, plan)
        proxy.reset(once(kind, number))
        assert tables_of(patient, plan) == tables


@pytest.mark.parametrize("kind", ["503", "refused", "lost"])
def test_a_store_that_goes_down_in_a_run_costs_attempts_not_rows(s3, proxy, faulty, expected, kind):
    tables, objects = expected
    for number in (1, 3, 6, 8, 9):
        uri = f"{s3}/{kind}-from-{number}"
        storage, plan = plan_in(uri, {**faulty, "retry": {"attempts": 2, "first_seconds": 0.01}})
        proxy.reset(lambda n, at=number: kind if n >= at else None)
        with pytest.raises(TransientStorageError):
            run_through(storage, plan)
        direct, plan = plan_in(uri)
        watcher = Watcher(direct, plan, tables, set())
        watcher()
        assert watcher.wrong == []
        run_through(direct, plan)
        assert objects_of(direct) == objects


@pytest.mark.parametrize("size", [10, 40_000_000], ids=["says nothing", "stops reading"])
def test_an_upload_to_a_store_that_neither_reads_nor_answers_ends(s3, size):
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # the kernel accepts, nobody reads
        options = {**QUICK, "endpoint_url": f"http://127.0.0.1:{deaf.getsockname()[1]}"}
        storage = Storage(s3, {**options, "retry": {"attempts": 1, "attempt_seconds": 3}})
        with pytest.raises(TransientStorageError, match="ReadTimeoutError" if size == 10 else "no end after 3 s"):
            storage.write("object", b"x" * size)


def test_a_shard_costs_a_bounded_number_of_requests(plugin, s3, proxy, faulty):
    storage, plan = plan_in(s3, faulty)
    write_input(storage)
    proxy.reset()
    run_shard(plan, 0, 1, BackendCache())
    methods = [method for method, _ in proxy.requests]
    assert methods.count("PUT") == 4  # two data files, their markers
    assert len(methods) <= 8
    proxy.reset()
    run_shard(plan, 0, 1, BackendCache())
    assert len(proxy.requests) == 1
    proxy.reset()
    tables_of(storage, plan)
    assert len(proxy.requests) == 2 * 3  # of each table: the listing, a marker, a data file


def test_a_store_that_fails_inside_a_stage_fails_the_shard_and_rejects_nothing(s3, proxy, faulty):
    class Reads:
        spec = probe.Probe(probe.ProbeConfig()).spec

        def process(self, batch):
            Storage(s3, {**faulty, "retry": {"attempts": 1}}).read_json("voices.json")

    proxy.reset(lambda number: "503")
    run = StageRun(Reads(), "sig")
    with pytest.raises(TransientStorageError):
        list(run.run([briefs(SEEDS)]))
    assert run.rejects == []


class Unheard:
    """A listener that says nothing."""

    def planned(self, plan, committed):
        pass

    def shard_done(self, plan, report):
        pass


def carried_out(plan):
    with open_runner("local", 2, {}) as runner:
        return execute(plan, runner, Unheard())


def test_processes_on_an_unreliable_store_make_the_right_rows(s3, proxy, faulty, expected):
    storage, plan = plan_in(s3, faulty)
    proxy.reset(lambda number: ("500", "lost", "truncated")[number % 3] if number % 4 == 0 else None)
    write_input(storage)
    assert carried_out(plan) == []
    proxy.reset()
    assert tables_of(storage, plan) == expected[0]


def test_a_shard_that_cannot_be_committed_is_dead_and_later_finished(s3, proxy, faulty, expected):
    storage, plan = plan_in(s3, faulty)
    write_input(storage)
    marker = marker_name("rejects/prefer.only", 1)
    proxy.reset(lambda number: "503" if proxy.requests[number - 1][1].endswith(marker) else None)
    (dead,) = carried_out(plan)
    assert (dead["shard"], dead["status"], dead["attempts"]) == (1, "dead", 3)
    assert "part-00001.json' could not be reached in 6 attempts" in dead["reason"]
    proxy.reset()
    assert tables_of(storage, plan)["rejects/prefer.only"] == {0: expected[0]["rejects/prefer.only"][0]}
    assert carried_out(plan) == []
    assert tables_of(storage, plan) == expected[0]
    assert storage.list("work/dead") == []
