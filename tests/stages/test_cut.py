"""Cut: segments are bounded, apart and lose no speech; a transcript is kept only where it is true."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.core.errors import ConfigError
from data_engine.core.harness import StageRun
from data_engine.core.ids import content_id
from data_engine.stages.catalog import build_stage
from data_engine.stages.cut import cut_turns, pauses_between, split_span
from data_engine.stages.diarize import Turn

RATE = 16000
LENGTH = 600 * RATE


def seconds(*spans, channel=0):
    """Returns speech regions or, with a fourth element, turns from seconds."""
    keys = ("channel", "start", "num_samples", "speaker")
    rows = [(channel, round(a * RATE), round((b - a) * RATE), *speaker) for a, b, *speaker in spans]
    return [dict(zip(keys, row, strict=False)) for row in rows]


def recording(turns, speech=None, **columns):
    known = [{k: t[k] for k in ("channel", "start", "num_samples")} for t in turns]
    return {
        "recording_id": "rec", "sample_rate": RATE, "num_samples": LENGTH, "split": "test", "language": "en",
        "licence": "CC0", "consent_basis": "contract", "allowed_uses": ["asr", "tts"], "speaker": None, "text": None,
        "turns": turns, "speech": known if speech is None else speech,
        "num_speakers": len({t["speaker"] for t in turns}), **columns,
    }  # fmt: skip


def cut(*recordings, **config):
    stage = build_stage("cut", config)
    run = StageRun(stage, "signature")
    rows = [row for batch in run.run([stage.spec.consumes.batch(list(recordings))]) for row in batch.to_pylist()]
    return rows, run


def spans(rows):
    return [(row["start"] / RATE, (row["start"] + row["num_samples"]) / RATE) for row in rows]


def test_a_segment_inherits_what_its_recording_declares():
    (row,), _ = cut(recording(seconds((1, 3, 0))))
    assert row == {
        "segment_id": content_id("segment", "rec", 0, RATE, 2 * RATE), "recording_id": "rec", "channel": 0,
        "start": RATE, "num_samples": 2 * RATE, "sample_rate": RATE, "speaker_id": "rec:0", "split": "test",
        "language": "en", "licence": "CC0", "consent_basis": "contract", "allowed_uses": ["asr", "tts"],
        "is_synthetic": False, "text": None, "text_source": None,
    }  # fmt: skip


def test_turns_of_one_speaker_are_joined_across_a_short_gap():
    rows, _ = cut(recording(seconds((1, 3, 0), (3.4, 5, 0), (5.6, 7, 0), (7.1, 9, 1), (9.2, 11, 0))))
    assert spans(rows) == [(1, 5), (5.6, 7), (7.1, 9), (9.2, 11)]
    assert [row["speaker_id"] for row in rows] == ["rec:0", "rec:0", "rec:1", "rec:0"]


def test_short_turns_are_left_out_and_counted():
    rows, run = cut(recording(seconds((1, 3, 0), (3.1, 3.5, 1))))
    assert spans(rows) == [(1, 3)]
    assert run.stats.metrics["turns_too_short"] == 1
    assert run.stats.metrics["seconds_too_short"] == pytest.approx(0.4)


def test_a_recording_with_short_turns_only_is_rejected():
    rows, run = cut(recording(seconds((1, 1.4, 0), (2, 2.3, 1))), recording(seconds((1, 3, 0)), recording_id="good"))
    assert [row["recording_id"] for row in rows] == ["good"]
    assert [(r["record_id"], r["code"]) for r in run.rejects] == [("rec", "NO_CHILDREN")]


def test_a_recording_without_turns_is_rejected():
    rows, run = cut(recording([]))
    assert rows == []
    assert [(r["record_id"], r["code"]) for r in run.rejects] == [("rec", "NO_SPEECH")]


def test_a_long_turn_is_split_at_its_longest_pauses():
    speech = seconds((0, 10), (10.2, 20), (20.9, 33), (33.3, 40))
    rows, _ = cut(recording(seconds((0, 40, 0)), speech))
    assert spans(rows) == [(0, 20), (20.9, 40)]
    rows, _ = cut(recording(seconds((0, 40, 0)), speech), max_seconds=15)
    assert spans(rows) == [(0, 10), (10.2, 20), (20.9, 33), (33.3, 40)]


def test_a_long_turn_without_a_pause_is_split_evenly():
    rows, _ = cut(recording(seconds((0, 70, 0)), speech=seconds((0, 70))))
    assert [round(row["num_samples"] / RATE, 3) for row in rows] == [23.333] * 3


def test_pauses_of_another_channel_do_not_split():
    turns = [*seconds((0, 40, 0)), *seconds((5, 9, 1), channel=1)]
    speech = [*seconds((0, 18), (18.5, 40)), *seconds((0, 25), (28, 40), channel=1)]
    rows, _ = cut(recording(turns, speech))
    assert [(row["channel"], *span) for row, span in zip(rows, spans(rows), strict=True)] == [
        (0, 0, 18), (0, 18.5, 40), (1, 5, 9),
    ]  # fmt: skip


def test_turns_beyond_the_end_are_bounded():
    rows, _ = cut(recording(seconds((599, 700, 0))))
    assert spans(rows) == [(599, 600)]


def test_two_speakers_over_the_same_samples_are_one_segment():
    rows, _ = cut(recording(seconds((1, 3, 1), (1, 3, 0), (2, 4, 1))))
    assert [(row["speaker_id"], *span) for row, span in zip(rows, spans(rows), strict=True)] == [
        ("rec:0", 1, 3), ("rec:1", 1, 4),
    ]  # fmt: skip
    rows, _ = cut(recording(seconds((1, 3, 1), (1, 3, 0))))
    assert [row["speaker_id"] for row in rows] == ["rec:0"]


def test_a_declared_speaker_names_the_only_one_found():
    assert cut(recording(seconds((1, 3, 0)), speaker="lj"))[0][0]["speaker_id"] == "lj"
    rows, _ = cut(recording(seconds((1, 3, 0), (3.5, 5, 1)), speaker="lj"))
    assert [row["speaker_id"] for row in rows] == ["rec:0", "rec:1"]


def test_a_transcript_stays_with_the_one_segment_that_is_all_speech():
    rows, _ = cut(recording(seconds((1, 3, 0), (5, 5.2, 0)), text="all of it"))
    assert spans(rows) == [(1, 5.2)]
    assert [(row["text"], row["text_source"]) for row in rows] == [("all of it", "source")]


@pytest.mark.parametrize(
    ("turns", "config"),
    [
        (seconds((1, 3, 0), (3.5, 5, 1)), {}),  # two speakers
        (seconds((1, 3, 0), (3.1, 3.3, 1)), {}),  # the second one is too short, but spoke
        (seconds((1, 3, 0), (32, 34, 0)), {}),  # too far apart to stay whole
        (seconds((1, 3, 0), (5, 7, 0)), {"keep_transcribed_whole": False}),
        (seconds((0, 40, 0)), {}),  # split
    ],
)
def test_a_transcript_of_more_than_a_segment_is_nobodys(turns, config):
    rows, _ = cut(recording(turns, text="all of it"), **config)
    assert rows
    assert {(row["text"], row["text_source"]) for row in rows} == {(None, None)}


def test_limits_that_cannot_hold_are_refused():
    with pytest.raises(ConfigError, match="max_seconds"):
        build_stage("cut", {"min_seconds": 2, "max_seconds": 3})


# ---- the arithmetic

REGIONS = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 120)), min_size=1, max_size=12).map(
    lambda steps: [tuple(pair) for pair in np.cumsum(np.array(steps).ravel()).reshape(-1, 2).tolist()]
)


@given(REGIONS, st.integers(1, 20), st.integers(0, 60))
def test_pieces_are_bounded_ordered_and_lose_no_speech(regions, shortest, extra):
    longest = 2 * shortest + extra
    start, end = regions[0][0], regions[-1][1]
    pieces = split_span((start, end), pauses_between(regions), shortest, longest)
    covered = np.zeros(end, int)
    for first, last in pieces:
        assert min(shortest, end - start) <= last - first <= longest
        covered[first:last] += 1
    assert pieces == sorted(pieces)
    assert covered.max() == 1
    assert (covered[:start] == 0).all()
    for first, last in regions:
        assert (covered[first:last] == 1).all()


TURNS = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 400), st.integers(1, 300), st.integers(0, 2)), min_size=1, max_size=10
)


@given(TURNS, st.integers(1, 40), st.integers(0, 60))
def test_segments_of_any_turns_keep_the_law(rows, shortest, gap):
    rate, length = 100, 500
    turns = [{"channel": c, "start": s, "num_samples": n, "speaker": k} for c, s, n, k in rows]
    config = {"min_seconds": shortest / rate, "max_seconds": 100 / rate, "merge_gap_seconds": gap / rate}
    segments, run = cut(recording(turns, sample_rate=rate, num_samples=length), **config)
    assert len({row["segment_id"] for row in segments}) == len(segments)
    assert bool(segments) == (not run.rejects)
    taken = {}
    for row in segments:
        assert row["start"] >= 0
        assert shortest <= row["num_samples"] <= 100
        assert row["start"] + row["num_samples"] <= length
        mine = taken.setdefault((row["channel"], row["speaker_id"]), np.zeros(length, int))
        mine[row["start"] : row["start"] + row["num_samples"]] += 1
    assert all(samples.max() == 1 for samples in taken.values())


@given(TURNS)
def test_cut_does_not_depend_on_the_order_of_turns(rows):
    turns = [Turn(c, s, s + n, k) for c, s, n, k in rows]
    assert cut_turns(turns, {}, 5, 100) == cut_turns(turns[::-1], {}, 5, 100)
