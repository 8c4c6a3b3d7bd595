"""Measurements of a run and OUTPUT/metrics.prom."""

import json
import math

import pytest

from data_engine.io.storage import Storage
from data_engine.telemetry.measurements import METRICS, measure
from data_engine.telemetry.prometheus import METRICS_FILE, PrometheusFile, render, series_name
from tests.telemetry.runs import RUN, parse_prometheus


def value(values, name, **labels):
    return values["speech_data_engine_" + name, frozenset({"run": "nightly", **labels}.items())]


@pytest.fixture(scope="module")
def values():
    return parse_prometheus(render(measure(RUN), {"run": "nightly"}))[0]


def test_shards_of_every_pipeline_are_there_also_when_none_is_dead(values):
    assert value(values, "shards_planned", pipeline="curate") == 3
    assert value(values, "shards_committed", pipeline="curate") == 2
    assert value(values, "shards_dead", pipeline="curate") == 1
    assert value(values, "shards_dead", pipeline="synthesize") == 0
    assert value(values, "run_complete") == 0


def test_audio_is_in_seconds_per_stage_and_table(values):
    assert value(values, "stage_audio_in_seconds_total", pipeline="curate", stage="cut") == 3600
    assert value(values, "stage_audio_out_seconds_total", pipeline="curate", stage="cut") == 1800.5
    assert value(values, "table_audio_seconds", table="segments") == 1800.5
    assert value(values, "table_rows", table="segments") == 40
    assert value(values, "table_audio_seconds", table="scripts") == 0


def test_the_real_time_factor_is_work_over_audio_and_absent_without_audio(values):
    assert value(values, "stage_real_time_factor_ratio", pipeline="curate", stage="decode") == 0.01
    assert not any(name.endswith("factor_ratio") and ("stage", "script") in labels for name, labels in values)


def test_rejects_are_counted_by_code_and_rows_left_out_by_reason(values):
    labels = {"pipeline": "curate", "stage": "decode"}
    assert value(values, "stage_rows_rejected_total", **labels, code="NOT_AUDIO") == 1
    assert value(values, "stage_rows_rejected_total", **labels, code="DUPLICATE") == 1
    assert value(values, "stage_rows_unused_total", pipeline="curate", stage="voices", reason="not_best") == 38


def test_names_have_the_prefix_a_base_unit_and_total_for_counters():
    text = render(measure(RUN), {})
    _, types = parse_prometheus(text)
    assert set(types) == {series_name(metric) for metric in METRICS}
    for name, kind in types.items():
        assert name.startswith("speech_data_engine_")
        assert name.endswith("_total") == (kind == "counter")


def test_quotes_backslashes_and_newlines_in_labels_survive():
    odd = 'C:\\data\n"best", {1}'
    values, _ = parse_prometheus(render(measure(RUN), {"output": odd}))
    assert all(("output", odd) in labels for _, labels in values)


def test_numbers_keep_every_digit():
    run = {**RUN, "tables": {"segments": [{"rows": 2**53 - 1, "seconds": 0.1}]}}
    values, _ = parse_prometheus(render(measure(run), {"run": "nightly"}))
    assert value(values, "table_rows", table="segments") == 2**53 - 1
    assert value(values, "table_audio_seconds", table="segments") == 0.1
    assert all(math.isfinite(v) for v in values.values())


def test_the_file_is_refreshed_now_and_then_and_at_the_end(tmp_path):
    now = [0.0]
    file = PrometheusFile(Storage(str(tmp_path)), {}, lambda: now[0])
    other = json.loads(json.dumps(RUN)) | {"state": "complete"}

    def complete():
        values, _ = parse_prometheus((tmp_path / METRICS_FILE).read_text())
        return values["speech_data_engine_run_complete", frozenset()]

    file.update(measure(RUN))
    assert complete() == 0
    now[0] = 1.0
    file.update(measure(other))
    assert complete() == 0, "not after every shard"
    now[0] = 60.0
    file.update(measure(other))
    assert complete() == 1
    file.close(measure(RUN))
    assert complete() == 0, "the last word is always written"


def test_nothing_measured_leaves_no_file(tmp_path):
    PrometheusFile(Storage(str(tmp_path / "out")), {}).close([])
    assert not (tmp_path / "out").exists()
