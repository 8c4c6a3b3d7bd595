"""Metrics while a run goes on: what is counted when, by file and by OTLP, and that they never cost the run anything."""

import socket
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from data_engine.core.errors import MissingExtraError
from data_engine.io.storage import Storage
from data_engine.runners.books import claim, write_run_file
from data_engine.runners.run import execute, open_runner
from data_engine.telemetry import opentelemetry
from data_engine.telemetry.listener import Listeners, open_telemetry
from data_engine.telemetry.live import LiveRun
from data_engine.telemetry.measurements import measure
from data_engine.telemetry.prometheus import METRICS_FILE
from tests.plugins import probe_stages as probe
from tests.runners.test_local import Silent
from tests.telemetry.runs import collector, exported, parse_prometheus, resource

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.fixture
def warnings():
    return []


@pytest.fixture(autouse=True)
def no_telemetry_outside(monkeypatch):
    """The SDK reads its variables from the environment itself; a collector that is down is not waited for so long."""
    monkeypatch.setattr(opentelemetry, "SECONDS_TO_SAY_GOODBYE", 1.0)
    for name in ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", ENDPOINT, "OTEL_RESOURCE_ATTRIBUTES", "OTEL_SERVICE_NAME"):
        monkeypatch.delenv(name, raising=False)


def run_plan(storage, plan, *listeners):
    claim(storage, plan, {}, overwrite=False)
    with open_runner("local", 1, {}) as runner:
        dead = execute(plan, runner, Listeners(*listeners))
    return write_run_file(storage, {}, "incomplete" if dead else "complete")


def numbers(run):
    return {(m.metric.name, frozenset(m.labels.items())): m.value for m in measure(run)}


def test_what_was_exported_is_what_run_json_says(planned, warnings, monkeypatch):
    storage, plan = planned([1, 2, probe.REJECT, 4, probe.CRASH, 6])
    with collector() as (url, received):
        monkeypatch.setenv(ENDPOINT, url)
        telemetry = open_telemetry("nightly", storage, {ENDPOINT: url}, warnings.append)
        run = run_plan(storage, plan, telemetry)
        telemetry.finish(run)
        telemetry.close()
    path, last = received[-1]
    values, kinds = exported(last)
    assert path == "/v1/metrics"
    assert values == numbers(run)
    labels = frozenset({("pipeline", "prefer"), ("stage", "probe"), ("code", "INTERNAL")})
    assert values["speech_data_engine.stage.rows.rejected", labels] == 1
    assert values["speech_data_engine.shards.dead", frozenset({("pipeline", "prefer")})] == 1
    assert kinds["speech_data_engine.stage.busy"] == (True, "s")
    assert kinds["speech_data_engine.shards.dead"] == (False, "{shard}")
    said = resource(last)
    assert (said["service.name"], said["speech_data_engine.run"]) == ("speech-data-engine", "nightly")
    assert said["speech_data_engine.output"] == storage.uri
    assert warnings == []


def test_the_file_says_the_same(planned, warnings):
    storage, plan = planned([1, probe.REJECT, 3])
    telemetry = open_telemetry("nightly", storage, {}, warnings.append)
    run = run_plan(storage, plan, telemetry)
    telemetry.finish(run)
    telemetry.close()
    values, _ = parse_prometheus(storage.fs.cat_file(storage.path(METRICS_FILE)).decode())
    assert sorted(values.values()) == sorted(numbers(run).values())
    assert all({("run", "nightly"), ("output", storage.uri)} <= labels for _, labels in values)


def test_metrics_are_exported_while_the_run_goes_on(planned, warnings, monkeypatch):
    storage, plan = planned([1, 2, 3, 4], per_shard=1)
    seen = []
    with collector() as (url, received):
        monkeypatch.setenv(ENDPOINT, url)
        monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "20")
        telemetry = open_telemetry("nightly", storage, {ENDPOINT: url}, warnings.append)

        def wait_for_export(plan, report):
            """Holds the run until the collector has heard of this shard."""
            done, until = len(seen) + 1, time.monotonic() + 20
            committed = ("speech_data_engine.shards.committed", frozenset({("pipeline", "prefer")}))
            while time.monotonic() < until:
                if received and exported(received[-1][1])[0].get(committed) == done:
                    seen.append(done)
                    return
                time.sleep(0.01)

        run_plan(storage, plan, telemetry, SimpleNamespace(planned=lambda *_: None, shard_done=wait_for_export))
        telemetry.close()
    assert seen == [1, 2, 3, 4]


def test_the_live_state_is_that_of_the_markers_also_after_a_restart(planned):
    storage, plan = planned([1, 2, probe.REJECT, 4])
    first, again = LiveRun(storage), LiveRun(storage)
    run = run_plan(storage, plan, first)
    storage.remove("rejects/prefer.only/part-00001.json")
    run_again = run_plan(storage, plan, again)
    for live, written in ((first, run), (again, run_again)):
        found = numbers(live.run())
        assert found.pop(("speech_data_engine.run.complete", frozenset())) == 0
        expected = numbers(written)
        assert expected.pop(("speech_data_engine.run.complete", frozenset())) == 1
        assert found == pytest.approx(expected)


def test_a_collector_that_is_down_costs_one_warning(planned, warnings, monkeypatch):
    storage, plan = planned([1, 2])
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "20")
    telemetry = open_telemetry("nightly", storage, {ENDPOINT: "http://127.0.0.1:9"}, warnings.append)
    run = run_plan(storage, plan, telemetry)
    telemetry.finish(run)
    telemetry.close()
    assert run["state"] == "complete"
    assert len(warnings) == 1 and "metrics do not reach http://127.0.0.1:9" in warnings[0]


def test_a_collector_that_never_answers_is_not_waited_for(planned, warnings, monkeypatch):
    storage, plan = planned([1, 2])
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv(ENDPOINT, url)
        telemetry = open_telemetry("nightly", storage, {ENDPOINT: url}, warnings.append)
        telemetry.finish(run_plan(storage, plan, telemetry))
        closing = threading.Thread(target=telemetry.close)
        closing.start()
        closing.join(8.0)
        assert not closing.is_alive()


@pytest.mark.parametrize("variables", [
    {"OTEL_METRIC_EXPORT_INTERVAL": "0"},
    {"OTEL_EXPORTER_OTLP_COMPRESSION": "shredder"},
    {ENDPOINT: "collector without a scheme"},
])  # fmt: skip
def test_a_wrong_variable_costs_one_warning(planned, warnings, monkeypatch, variables):
    storage, plan = planned([1])
    for name, text in {ENDPOINT: "http://127.0.0.1:9", **variables}.items():
        monkeypatch.setenv(name, text)
    telemetry = open_telemetry("nightly", storage, {ENDPOINT: "it"}, warnings.append)
    telemetry.finish(run_plan(storage, plan, telemetry))
    telemetry.close()
    assert len(warnings) == 1


def test_a_folder_that_takes_no_file_costs_one_warning(planned, warnings):
    storage, plan = planned([1, 2], per_shard=1)
    storage.fs.makedirs(storage.path(METRICS_FILE))
    telemetry = open_telemetry("nightly", storage, {}, warnings.append)
    telemetry.finish(run_plan(storage, plan, telemetry))
    telemetry.close()
    assert len(warnings) == 1 and "PrometheusFile" in warnings[0]


def test_the_libraries_are_needed_only_with_an_endpoint(tmp_path, warnings, monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.metrics", None)
    storage = Storage(str(tmp_path))
    open_telemetry("nightly", storage, {}, warnings.append).close()
    open_telemetry("nightly", storage, {ENDPOINT: "http://x", "OTEL_SDK_DISABLED": "true"}, warnings.append).close()
    with pytest.raises(MissingExtraError, match=r"speech-data-engine\[telemetry\]"):
        open_telemetry("nightly", storage, {ENDPOINT: "http://x"}, warnings.append)


def test_every_listener_hears_of_everything(planned):
    storage, plan = planned([1, 2, 3])
    one, two = Silent(), Silent()
    run_plan(storage, plan, one, two)
    assert one.reports == two.reports and len(one.reports) == plan.num_shards
    assert one.committed == two.committed == 0
