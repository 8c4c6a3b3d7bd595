"""The filter annotates and never drops; a policy is data, checked before any work."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_engine.core.config import validate
from data_engine.core.errors import ConfigError
from data_engine.stages.annotate import acoustic_columns, decode_clip
from data_engine.stages.filter import Filter
from data_engine.stages.rules.policy import Policy, Rule, evaluate, load_policy
from tests.stages.rows import MEASURED, column, ran, segment, table

POLICIES = Path(__file__).parents[2] / "configs" / "policies"
USES = ("asr", "tts", "dialogue")


def policy(*rules: dict, **changes) -> Policy:
    return validate(Policy, {"name": "test", "version": 1, "rules": list(rules)} | changes, "test")


def reasons(rule: dict, *rows: dict) -> list[list[str]]:
    return evaluate(policy({"reason": "BROKEN"} | rule), table(rows, "segment"))[1].to_pylist()


def test_each_row_stays_and_carries_policy_decision_and_reasons():
    rules = ({"column": "snr_db", "min": 20, "reason": "NOISY"}, {"column": "dnsmos_ovr", "min": 2, "reason": "POOR"})
    stage = Filter(Filter.Config(policy=policy(*rules)))
    rows = [segment(0), segment(1, snr_db=10.0), segment(2, snr_db=10.0, dnsmos_ovr=1.5)]
    out, run = ran(stage, rows, "segment")
    assert column(out, "segment_id") == column(rows, "segment_id")
    assert column(out, "policy") == ["test.1"] * 3
    assert column(out, "decision") == ["keep", "drop", "drop"]
    assert column(out, "reasons") == [[], ["NOISY"], ["NOISY", "POOR"]]
    assert run.stats.metrics == {"kept": 1, "dropped": 2}


def test_without_rules_everything_is_kept_under_a_name_that_says_so():
    out, _ = ran(Filter(Filter.Config()), [segment(0, text=None)], "segment")
    assert (out[0]["policy"], out[0]["decision"], out[0]["reasons"]) == ("keep_all.1", "keep", [])


def test_only_the_columns_the_policy_names_are_consumed():
    stage = Filter(Filter.Config(policy=policy({"column": "seconds", "min": 1, "reason": "SHORT"})))
    assert set(stage.spec.consumes.names) == {"segment_id", "num_samples", "sample_rate"}


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        ({"column": "snr_db", "min": 35.0}, {"snr_db": 35.0}, {"snr_db": 34.9}),
        ({"column": "snr_db", "max": 35.0}, {"snr_db": 35.0}, {"snr_db": 35.1}),
        ({"column": "dnsmos_ovr", "min": 2.4}, {"dnsmos_ovr": 2.4}, {"dnsmos_ovr": 2.39}),
        ({"column": "channel", "max": 0}, {"channel": 0}, {"channel": 1}),
        ({"column": "seconds", "min": 1.0, "max": 2.0}, {"num_samples": 16000}, {"num_samples": 15999}),
        ({"column": "is_synthetic", "equals": False}, {"is_synthetic": False}, {"is_synthetic": True}),
        ({"column": "language", "one_of": ["en", "zh"]}, {"language": "zh"}, {"language": "de"}),
        ({"column": "allowed_uses", "contains": "tts"}, {"allowed_uses": ["asr", "tts"]}, {"allowed_uses": []}),
    ],
)
def test_conditions_include_their_bounds(rule, good, bad):
    assert reasons(rule, segment(0, **good), segment(1, **bad)) == [[], ["BROKEN"]]


@pytest.mark.parametrize(("missing", "expected"), [("keep", []), ("drop", ["BROKEN"])])
def test_a_rule_says_what_happens_to_what_was_not_measured(missing, expected):
    rule = {"column": "snr_db", "min": 20, "missing": missing}
    assert reasons(rule, segment(0, snr_db=None), segment(1, snr_db=math.nan)) == [expected, expected]


def test_one_reason_of_two_rules_is_given_once():
    rules = [{"column": name, "min": 3, "reason": "POOR"} for name in ("dnsmos_sig", "dnsmos_ovr")]
    found = evaluate(policy(*rules), table([segment(dnsmos_sig=1.0, dnsmos_ovr=1.0)], "segment"))[1]
    assert found.to_pylist() == [["POOR"]]


@given(st.lists(st.one_of(st.none(), st.floats(-50, 100, width=32)), max_size=40), st.sampled_from(["keep", "drop"]))
@settings(deadline=None, max_examples=40)
def test_the_vectorised_decision_is_that_of_the_plain_rule(values, missing):
    rule = Rule(column="snr_db", min=10.0, max=60.0, missing=missing, reason="SNR")
    rows = [segment(i, snr_db=value) for i, value in enumerate(values)]
    decisions, _ = evaluate(Policy(name="p", version=1, rules=(rule,)), table(rows, "segment"))
    plain = ["keep" if (missing == "keep" if v is None else 10.0 <= v <= 60.0) else "drop" for v in values]
    assert decisions.to_pylist() == plain


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"column": "snr", "min": 3}, ["SNR_LOW", "no column 'snr'", "snr_db"]),
        ({"column": "language", "min": 3}, ["SNR_LOW", "'language' is string"]),
        ({"column": "language", "contains": "en"}, ["SNR_LOW", "needs a list"]),
        ({"column": "channel", "equals": "left"}, ["SNR_LOW", "'left'"]),
    ],
)
def test_a_wrong_rule_is_named_before_any_work(rule, words):
    with pytest.raises(ConfigError) as error:
        Filter(Filter.Config(policy=policy({"reason": "SNR_LOW"} | rule)))
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize(
    "rule", [{"column": "snr_db", "min": 5, "max": 3, "reason": "R"}, {"column": "snr_db", "reason": "R"}]
)
def test_a_rule_that_cannot_hold_or_says_nothing_is_refused(rule):
    with pytest.raises(ConfigError, match="R"):
        policy(rule)


def test_a_policy_file_with_an_unknown_key_is_refused_with_its_name(tmp_path):
    path = tmp_path / "odd.yaml"
    path.write_text("name: odd\nversion: 1\nrules: [{column: snr_db, minimum: 3, reason: R}]\n")
    with pytest.raises(ConfigError, match=r"odd\.yaml.*minimum"):
        load_policy(path)


@pytest.mark.parametrize("use", USES)
def test_the_shipped_policies_keep_clean_speech_and_drop_what_its_speaker_did_not_allow(use):
    stage = Filter(Filter.Config(policy=load_policy(POLICIES / f"{use}.yaml")))
    out, _ = ran(stage, [segment(0), segment(1, allowed_uses=["clone"])], "segment")
    assert out[0]["reasons"] == []
    assert out[1]["reasons"] == ["USE_NOT_ALLOWED"]


@pytest.mark.parametrize(
    ("name", "reason", "uses"),
    [
        ("clipped_speech.wav", "CLIPPED", ("tts", "dialogue", "asr")),
        ("mulaw_8k.wav", "NARROW_BAND", ("tts",)),
        ("white_noise_3s.wav", "TOO_NOISY", ("tts", "dialogue", "asr")),
        ("very_quiet_speech.wav", "TOO_QUIET", ("tts", "dialogue")),
    ],
)
def test_faulty_recordings_are_dropped_for_the_right_reason(shared_speech, name, reason, uses):
    clip = decode_clip({"bytes": (shared_speech / "edge" / name).read_bytes(), "path": None})
    row = segment(**{**MEASURED, **acoustic_columns(clip, "in being comparatively modern", "en")})
    for use in uses:
        assert reason in evaluate(load_policy(POLICIES / f"{use}.yaml"), table([row], "segment"))[1].to_pylist()[0]


def test_the_clean_reference_recording_is_kept(shared_speech):
    clip = decode_clip({"bytes": (shared_speech / "edge" / "ok_reference_16k.wav").read_bytes(), "path": None})
    row = segment(**{**MEASURED, **acoustic_columns(clip, "in being comparatively modern", "en")})
    for use in USES:
        assert evaluate(load_policy(POLICIES / f"{use}.yaml"), table([row], "segment"))[1].to_pylist() == [[]]
