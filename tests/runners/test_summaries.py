"""Global summaries have one definition and three executions: mixtures, quantiles and totals are equal."""

import hashlib
import json
from importlib.util import find_spec

import numpy as np
import pyarrow as pa
import pytest

from data_engine.core.errors import ConfigError, StorageError
from data_engine.export.mixture import MixtureConfig, draw_mixture, frame_of
from data_engine.export.mixture_rows import CountStrata, DrawRows, FindCaps, row_hash
from data_engine.io.decisions import read_decisions
from data_engine.io.mixtures import read_mixture, read_mixture_rows
from data_engine.io.shards import committed_parts
from data_engine.io.storage import Storage
from data_engine.quantiles import CountBins, bins_of, column_quantiles, lower_edge, thresholds
from data_engine.report.totals import Totals, count_totals, counted_parts
from data_engine.runners.redecide import DecideParts
from data_engine.runners.run import open_runner
from data_engine.stages.rules.policy import Policy
from tests.rows import example, segment, write_output

pytestmark = pytest.mark.xdist_group("dask")
RUNNERS = ["dask", *(["beam"] if find_spec("apache_beam") else [])]
ROWS = 240
EMOTIONS, SPEEDS = ("neutral", "happy", "sad"), ("normal", "slow1", "fast1")


def spoken(number, **changes):
    """An example in one of two languages (three quarters English), with 40 ms to 400 ms of query and answer."""
    codes = {"vq06_q": [1] * (number % 5), "vq06_a": [2] * (1 + number % 6)}
    controls = {
        "emotion": EMOTIONS[number % 3],
        "speed": SPEEDS[number // 3 % 3],
        "language": "zh" if number % 4 == 0 else "en",
    }
    return example(number, voice_a=f"v{number % 7}", **codes, **controls) | changes


def clip(number):
    measured = {
        "dnsmos_ovr": None if number % 10 == 0 else 1 + (number * 37 % 100) / 25,
        "snr_db": float(number % 60 - 10),
    }
    facts = {"language": ("en", "zh", None)[number % 3], "speaker_id": f"p{number % 4}"}
    kept = number % 5 > 0
    decision = {
        "decision": "keep" if kept else "drop",
        "reasons": [] if kept else ["NOISE", "LENGTH"][: 1 + number % 2],
    }
    return segment(
        number % 9, segment_id=f"s{number:05d}", num_samples=16001 + 160 * number, **measured, **facts, **decision
    )


def folder(root, numbers, parts):
    """An output folder with the same rows, however they are divided into parts."""
    shared = [numbers[start::parts] for start in range(parts)]
    examples = [[spoken(number) for number in part] for part in shared]
    return write_output(root, {"aqaa": examples, "segments": [[clip(number) for number in part] for part in shared]})


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return Storage(folder(tmp_path_factory.mktemp("summaries") / "out", list(range(ROWS)), 5))


@pytest.fixture(scope="module")
def local():
    with open_runner("local", 1, {}) as runner:
        yield runner


@pytest.fixture(scope="module", params=RUNNERS)
def runner(request):
    with open_runner(request.param, 2, {}) as opened:
        yield opened


QUOTAS = {"language": {"en": 0.5, "zh": 0.5}, "emotion": {"neutral": 0.5, "*": 0.5}}


def config(**changes):
    return MixtureConfig.model_validate({"table": "aqaa", "size": {"rows": 80}, "quotas": QUOTAS} | changes)


MIXTURES = {
    "rows": config(),
    "hours": config(size={"hours": 20 / 3600}, seed=3),
    "capped": config(max_per={"voice_a": 6}, size={"rows": 40}),
    "segments": config(table="segments", quotas={"language": {"en": 0.6, "unknown": 0.4}}, max_per={"speaker_id": 20}),
    "everything": config(quotas={}, size={"rows": 10_000}),
}


@pytest.mark.parametrize("name", ["hours", "capped"])
def test_a_mixture_is_the_same_file_on_every_runner(output, local, runner, name):
    here = draw_mixture(local, output, "here", MIXTURES[name])
    there = draw_mixture(runner, output, "there", MIXTURES[name])
    assert there["sha256"] == here["sha256"]
    assert {**there, "name": "", "file": ""} == {**here, "name": "", "file": ""}


def test_quantiles_are_the_same_on_every_runner(output, local, runner):
    asked = ("segments", ["dnsmos_ovr", "snr_db", "seconds", "num_samples"], {"decision": "keep"})
    assert column_quantiles(runner, output, *asked) == column_quantiles(local, output, *asked)


def test_another_policy_decides_the_same_on_every_runner(output, local, runner):
    rules = [{"column": "snr_db", "min": 10.0, "reason": "NOISE"}, {"column": "seconds", "max": 2, "reason": "LENGTH"}]
    policy = Policy.model_validate({"name": "strict", "version": 1, "rules": rules})
    parts = [part.name for part in committed_parts(output, "segments")]
    here = local.summarise(DecideParts(policy, "run", "decisions/here"), output, parts)
    assert runner.summarise(DecideParts(policy, "run", "decisions/there"), output, parts) == here
    for part in parts:
        assert read_decisions(output, "decisions/there", part).equals(read_decisions(output, "decisions/here", part))


def test_report_totals_are_the_same_on_every_runner(output, runner):
    run = output.read_json("run.json")
    totals = runner.summarise(Totals(), output, counted_parts(run))
    assert totals == count_totals(output, run)
    kept = [clip(n) for n in range(ROWS) if clip(n)["decision"] == "keep"]
    milliseconds = sum(int(row["num_samples"] * 1000 / row["sample_rate"] + 0.5) for row in kept)
    assert totals["segments"]["by"]["decision"]["keep"] == [len(kept), milliseconds]
    assert totals["segments"]["by"]["reasons"]["LENGTH"][0] == sum("LENGTH" in clip(n)["reasons"] for n in range(ROWS))
    assert totals["segments"]["by"]["language"]["unknown"][0] == ROWS // 3
    assert totals["segments"]["speakers"] == 4
    assert totals["aqaa"]["rows"] == sum(rows for rows, _ in totals["aqaa"]["by"]["emotion"].values()) == ROWS
    codes = sum(len(spoken(n)["vq06_q"]) + len(spoken(n)["vq06_a"]) for n in range(ROWS))
    assert totals["aqaa"]["milliseconds"] == 40 * codes


def drawn(local, output, name="x", **changes):
    report = draw_mixture(local, output, name, config(**changes))
    rows, _ = read_mixture_rows(output, name)
    return rows.to_pylist(), report


def test_a_mixture_has_its_shares_and_each_stratum_its_smallest_hashes(output, local):
    rows, report = drawn(local, output)
    assert report["short"] == []
    assert (report["got"], report["rows"], len(rows)) == (80, 80, 80)
    for column in QUOTAS:
        assert [value["got"] for value in report["quotas"][column].values()] == [40, 40]
    of = {spoken(number)["example_id"]: spoken(number) for number in range(ROWS)}
    taken = {row["record_id"] for row in rows}
    for language in ("en", "zh"):
        for neutral in (True, False):
            ids = [
                i for i, row in of.items() if row["language"] == language and (row["emotion"] == "neutral") == neutral
            ]
            nearest = sorted(ids, key=lambda i: row_hash(0, i))[: len(taken & set(ids))]
            assert taken & set(ids) == set(nearest)
    assert {row["stratum"] for row in rows} == {
        f"language={a} emotion={b}" for a in ("en", "zh") for b in ("neutral", "*")
    }
    assert [row["record_id"] for row in rows] == sorted(taken, key=lambda i: row_hash(0, i))


def test_how_rows_are_divided_into_parts_leaves_no_trace(tmp_path, output, local):
    reference = {name: draw_mixture(local, output, "a", mixture)["sha256"] for name, mixture in MIXTURES.items()}
    for turn, parts in enumerate((1, 3, 16)):
        numbers = np.random.default_rng(turn).permutation(ROWS).tolist()
        other = Storage(folder(tmp_path / str(parts), numbers, parts))
        assert {
            name: draw_mixture(local, other, "a", mixture)["sha256"] for name, mixture in MIXTURES.items()
        } == reference


def test_partial_results_are_plain_json_and_join_in_any_grouping(output):
    frame = frame_of(config())
    summaries = [
        CountStrata(frame), FindCaps(frame, {"voice_a": 3}), Totals(),
        DrawRows(frame, {0: 5, 1: 5, 2: 0, 3: 100}, False), DrawRows(frame, {0: 900, 3: 2000}, True),
    ]  # fmt: skip
    parts = [f"aqaa/{name}" for name in output.list("aqaa") if name.endswith(".arrow")]
    for summary in summaries:
        counted = [summary.count(output, part) for part in parts]
        assert json.loads(json.dumps(counted)) == counted
        assert summary.join(counted[::-1]) == summary.join(counted)


def test_another_seed_draws_another_sample_and_more_rows_contain_fewer(output, local):
    few, _ = drawn(local, output, quotas={}, size={"rows": 30})
    many, _ = drawn(local, output, quotas={}, size={"rows": 60})
    other, _ = drawn(local, output, quotas={}, size={"rows": 30}, seed=1)
    assert many[:30] == few
    assert {row["record_id"] for row in other} != {row["record_id"] for row in few}


def test_more_data_changes_little(tmp_path, local):
    small = Storage(folder(tmp_path / "small", list(range(200)), 4))
    large = Storage(folder(tmp_path / "large", list(range(220)), 4))
    before, after = (
        {row["record_id"] for row in drawn(local, o, quotas={}, size={"rows": 50})[0]} for o in (small, large)
    )
    assert len(before - after) <= 12


def test_hours_are_kept_within_a_clip_and_silent_rows_left_out(tmp_path, local):
    rows = [spoken(n) if n % 2 else spoken(n, vq06_q=None, vq06_a=None) for n in range(ROWS)]
    output = Storage(write_output(tmp_path / "out", {"aqaa": [rows[:100], rows[100:]]}))
    found, report = drawn(local, output, quotas={"speed": {"normal": 0.5, "fast1": 0.5}}, size={"hours": 8 / 3600})
    assert all(row["milliseconds"] > 0 for row in found)
    for value in report["quotas"]["speed"].values():
        assert 4000 - 440 < value["got"] <= 4000
    assert sum(row["milliseconds"] for row in found) == report["got"] == report["milliseconds"]


def test_no_voice_has_more_rows_than_allowed(output, local):
    rows, _ = drawn(local, output, max_per={"voice_a": 6}, quotas={}, size={"rows": 1000})
    voices = [int(row["record_id"][1:]) % 7 for row in rows]
    assert sorted(map(voices.count, range(7))) == [6] * 7
    for voice in range(7):
        ids = [f"e{number:05d}" for number in range(ROWS) if number % 7 == voice]
        assert {r["record_id"] for r in rows} & set(ids) == set(sorted(ids, key=lambda i: row_hash(0, i))[:6])


def test_what_cannot_be_met_is_reported_and_the_weights_make_up_for_it(output, local):
    rows, report = drawn(local, output, quotas={"language": {"en": 0.3, "zh": 0.7}}, size={"rows": 120})
    english, chinese = (report["quotas"]["language"][value] for value in ("en", "zh"))
    assert (chinese["asked"], chinese["got"], chinese["available"]) == (84, 60, 60)
    assert (english["asked"], english["got"]) == (36, 60)
    assert report["short"] == ["language=zh: asked 84, got 60 of 60"]
    weight = {row["stratum"]: row["weight"] for row in rows}
    assert weight["language=zh"] * 60 / 120 == pytest.approx(0.7)


def test_a_null_is_unknown_and_values_without_a_share_are_left_out(output, local):
    rows, report = drawn(local, output, table="segments", quotas={"language": {"unknown": 1.0}}, size={"rows": 1000})
    assert {int(row["record_id"][1:]) % 3 for row in rows} == {2}
    assert all(int(row["record_id"][1:]) % 5 for row in rows)  # decision: keep is the default
    assert report["short"] == [f"{what}: asked 1000, got 64 of 64" for what in ("size", "language=unknown")]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"table": "segments", "quotas": {"speed": {"slow": 1.0}}},
            "no column 'speed'.*recorded segments have none",
        ),
        ({"quotas": {"language": {"en": 0.7, "zh": 0.7}}}, "quotas.language: shares .* these to 1.4"),
        ({"size": {"rows": 1, "hours": 1}}, "either rows or hours"),
        ({"size": {}}, "either rows or hours"),
        ({"where": {"split": "trian"}}, "'split' is never"),
        ({"quotas": {"language": {"de": 1.0}}}, "no row of 'aqaa' qualifies"),
        ({"table": "voices"}, "table"),
    ],
)
def test_a_wrong_mixture_is_a_sentence(output, local, changes, sentence):
    with pytest.raises((ConfigError, ValueError), match=sentence):
        draw_mixture(local, output, "x", config(**changes))


def test_a_reader_trusts_only_the_file_the_report_names(tmp_path, local):
    output = Storage(folder(tmp_path / "out", list(range(40)), 2))
    rows, report = drawn(local, output, "good", size={"rows": 10})
    mixture = read_mixture(output, "good")
    ids = pa.array([f"e{number:05d}" for number in range(40)])
    assert set(ids.filter(pa.array(mixture.contains(ids))).to_pylist()) == {row["record_id"] for row in rows}
    with output.open("mixtures/good.arrow") as file:
        assert hashlib.sha256(file.read()).hexdigest() == report["sha256"]
    output.write("mixtures/good.arrow", b"something else")
    with pytest.raises(StorageError, match="not the file its report names"):
        read_mixture(output, "good")
    with pytest.raises(ConfigError, match="no mixture 'bad'; it has good"):
        read_mixture(output, "bad")


def test_a_damaged_part_is_named(tmp_path, local):
    output = Storage(folder(tmp_path / "out", list(range(40)), 2))
    part = next(f"aqaa/{name}" for name in output.list("aqaa") if name.endswith(".arrow"))
    output.write(part, b"ARROW1 and no more")
    with pytest.raises(StorageError, match=part):
        draw_mixture(local, output, "x", config(size={"rows": 10}))


def test_bins_keep_the_order_of_values_and_an_edge_is_its_bins_least_value():
    values = np.sort(
        np.concatenate([np.random.default_rng(0).normal(size=500) * 10.0 ** np.arange(-4, 6).repeat(50), [0.0, -0.0]])
    )
    bins = bins_of(values)
    assert (np.diff(bins) >= 0).all()
    edges = np.array([lower_edge(number) for number in bins])
    assert (edges <= values).all()
    assert (np.abs(values - edges) <= np.abs(values) / 1024).all()
    assert (bins_of(edges) == bins).all()


def test_a_threshold_drops_exactly_the_rows_it_says(output, local):
    found = column_quantiles(local, output, "segments", ["snr_db", "dnsmos_ovr"], {})
    values = {
        name: [np.float64(np.float32(v)) for n in range(ROWS) if (v := clip(n)[name]) is not None] for name in found
    }
    for name, column in found.items():
        assert (column["rows"], column["missing"]) == (len(values[name]), ROWS - len(values[name]))
        for entry in column["quantiles"]:
            assert sum(v < entry["value"] for v in values[name]) == entry["below"] <= entry["share"] * column["rows"]
    tenth = found["snr_db"]["quantiles"][2]
    assert tenth == {"share": 0.1, "value": -4.0, "below": 24}


def test_all_values_equal_drop_nothing():
    bins = [[int(bins_of(np.array([3.5]))[0]), 7]]
    assert thresholds(bins, (0.1, 0.9)) == [{"share": s, "value": 3.5, "below": 0} for s in (0.1, 0.9)]


def test_a_column_that_is_no_number_is_refused(output, local):
    with pytest.raises(ConfigError, match="no numeric column 'text'.*seconds"):
        column_quantiles(local, output, "segments", ["text"], {})
    with pytest.raises(ConfigError, match="no numeric column 'seconds'"):
        column_quantiles(local, output, "aqaa", ["seconds"], {})
    assert CountBins("segments", ("snr_db",), {}).join([]) == {"snr_db": {"missing": 0, "bins": []}}
