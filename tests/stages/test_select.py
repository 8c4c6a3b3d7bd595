"""Select keeps every candidate as a row, says which gates it failed, and marks one take per text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_engine.core.errors import ContractError
from data_engine.stages.rules.gates import COMPONENTS, MEASURES, Gates, Weights, components, composite, gate
from data_engine.stages.select import Select, decide
from tests.stages.rows import candidate, column, ran, table, worker


def selected(rows, tmp_path, batch_rows=None, **config):
    stage = Select(Select.Config(**config))
    stage.open(worker(tmp_path))
    return ran(stage, rows, "candidate", batch_rows)


@pytest.mark.parametrize(
    ("measure", "reason"),
    [
        ({"word_error_rate": 1.5}, "WER_TOO_HIGH"),
        ({"rate_ratio": 2.0}, "RATE_OFF"),
        ({"rate_ratio": 0.5}, "RATE_OFF"),
        ({"pitch_ratio": 1.6}, "PITCH_OFF"),
        ({"pitch_ratio": 0.6}, "PITCH_OFF"),
        ({"speaker_similarity": 0.1}, "VOICE_OFF"),
        ({"dnsmos_ovr": 1.1}, "LOW_QUALITY"),
        ({"clipping_ratio": 0.1}, "CLIPPED"),
        ({"longest_silence": 3.0}, "TOO_SILENT"),
        ({"silence_ratio": 0.9}, "TOO_SILENT"),
        ({"repetition": 0.8}, "REPETITIVE"),
        ({"num_groups": 0}, "TOO_FEW_TOKENS"),
        ({"num_groups": None}, "TOO_FEW_TOKENS"),
    ],
)
def test_each_gate_names_what_failed(measure, reason):
    assert gate(candidate() | measure, Gates()) == [reason]


def test_what_was_asked_for_and_measured_so_passes_every_gate():
    assert gate(candidate(), Gates()) == []


def test_what_was_not_measured_fails_no_gate_unless_it_is_required():
    row = candidate() | dict.fromkeys(MEASURES)
    assert gate(row, Gates()) == []
    assert gate(row, Gates(required=("word_error_rate",))) == ["NOT_MEASURED"]


def test_a_gate_can_be_turned_off():
    assert gate(candidate(word_error_rate=9.0), Gates(max_word_error_rate=None)) == []


@given(st.fixed_dictionaries({name: st.one_of(st.none(), st.floats(-5, 50)) for name in MEASURES}))
@settings(deadline=None, max_examples=80)
def test_components_and_composite_stay_between_0_and_1(measures):
    scores = components(candidate() | measures)
    assert set(scores) <= set(COMPONENTS)
    assert all(0 <= score <= 1 for score in scores.values())
    assert 0 <= composite(scores, Weights()) <= 1


def test_too_fast_and_too_slow_by_one_factor_score_alike():
    fast, slow = (components(candidate(rate_ratio=ratio))["rate"] for ratio in (1.25, 0.8))
    assert fast == pytest.approx(slow)


def test_takes_of_one_text_are_ranked_passing_first_then_by_score(tmp_path):
    rows = [
        candidate(1, 0, word_error_rate=0.4),
        candidate(1, 1, word_error_rate=0.1),
        candidate(1, 2, word_error_rate=0.0, speaker_similarity=0.0),
        candidate(1, 0, variant=1, word_error_rate=0.4),
    ]
    out, run = selected(rows, tmp_path)
    assert column(out, "candidate_id") == column(rows, "candidate_id")
    assert column(out, "rank") == [1, 0, 2, 0]
    assert column(out, "selected") == [False, True, False, True]
    assert column(out, "decision") == ["keep", "keep", "drop", "keep"]
    assert column(out, "reasons") == [[], [], ["VOICE_OFF"], []]
    assert run.stats.metrics == {"kept": 3, "dropped": 1, "selected": 2}


def test_a_turn_without_a_passing_take_selects_none(tmp_path):
    out, _ = selected([candidate(0, take, repetition=1.0) for take in range(3)], tmp_path)
    assert not any(column(out, "selected"))
    assert sorted(column(out, "rank")) == [0, 1, 2]


def test_equal_takes_are_ranked_by_their_number():
    rows = [candidate(0, take) for take in (2, 0, 1)]
    assert column(decide(rows, Gates(), Weights()), "rank") == [2, 0, 1]


places = st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 1))


@given(st.lists(places, min_size=1, max_size=20, unique=True))
@settings(deadline=None, max_examples=20)
def test_rows_come_out_whole_and_the_same_however_they_arrive(tmp_path_factory, keys):
    rows = [candidate(turn, take, dialogue=f"d{d}") for d, turn, take in sorted(keys)]
    folder = tmp_path_factory.mktemp("select")
    at_once, _ = selected(rows, folder)
    one_by_one, run = selected(rows, folder, batch_rows=1)
    assert at_once == one_by_one
    assert [row["audio"] for row in at_once] == [row["audio"] for row in rows]
    assert run.stats.rows_in == run.stats.rows_out == len(rows)
    for row in at_once:
        takes = [r for r in at_once if (r["dialogue_id"], r["turn"]) == (row["dialogue_id"], row["turn"])]
        assert sum(column(takes, "selected")) == 1


def test_only_one_dialogue_is_held(tmp_path):
    stage = Select(Select.Config(batch_rows=2))
    stage.open(worker(tmp_path))
    rows = [candidate(turn, take, dialogue=f"d{d}") for d in range(3) for turn in range(2) for take in range(2)]
    batch = table(rows, "candidate").select(list(stage.spec.consumes.names))
    emitted = [stage.process(batch.slice(start, 2)).rows.num_rows for start in range(0, 12, 2)]
    assert emitted == [0, 0, 4, 0, 4, 0]
    assert stage.finish().rows.num_rows == 4


def test_a_dialogue_in_two_places_stops_the_run(tmp_path):
    rows = [candidate(0, dialogue="a"), candidate(0, dialogue="b"), candidate(1, dialogue="a")]
    with pytest.raises(ContractError, match="next to each other"):
        selected(rows, tmp_path)


def test_an_unknown_required_measure_is_refused():
    with pytest.raises(ValueError, match="loudness"):
        Gates(required=("loudness",))
