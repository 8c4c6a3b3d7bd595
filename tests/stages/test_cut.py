"""Cut: segments are bounded, apart and lose no speech; a transcript is kept only where it is true."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.core.errors import ConfigError
from data_engine.core.harness import StageRun
from data_engine.core.ids import content_id
from data_engine.core.stage import Worker
from data_engine.io.scratch import ScratchAudio
from data_engine.stages.catalog import build_stage
from data_engine.stages.rules.cutting import pauses_between, split_span, whole_frames
from data_engine.stages.rules.turns import Turn, cut_turns, join_turns, overlaps_apart, pad_segments

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
        "num_speakers": len({t["speaker"] for t in turns}),
        "num_channels": max([1, *(t["channel"] + 1 for t in turns)]), **columns,
    }  # fmt: skip


def cut(*recordings, scratch=None, **config):
    stage = build_stage("cut", {"pad_seconds": 0.0, **config})
    if scratch is not None:
        stage.open(Worker(scratch, None))
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
        "is_synthetic": False, "text": None, "text_source": None, "overlap_ratio": 0.0,
    }  # fmt: skip


def test_turns_of_one_speaker_are_joined_across_a_short_gap():
    rows, _ = cut(recording(seconds((1, 3, 0), (3.4, 5, 0), (5.6, 7, 0), (7.1, 9.02, 1), (9.2, 11, 0))))
    assert spans(rows) == [(1, 5), (5.6, 7), (7.1, 9.02), (9.2, 11)]
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
    speech = seconds((0, 10), (10.2, 20.0), (20.8, 33), (33.2, 40))
    rows, _ = cut(recording(seconds((0, 40, 0)), speech))
    assert spans(rows) == [(0, 20), (20.8, 40)]
    rows, _ = cut(recording(seconds((0, 40, 0)), speech), max_seconds=15)
    assert spans(rows) == [(0, 10), (10.2, 20.0), (20.8, 33), (33.2, 40)]


def test_a_long_turn_without_a_pause_is_split_evenly():
    rows, _ = cut(recording(seconds((0, 70, 0)), speech=seconds((0, 70))))
    assert [round(row["num_samples"] / RATE, 3) for row in rows] == [23.32] * 3


def test_pauses_of_another_channel_do_not_split():
    turns = [*seconds((0, 40, 0)), *seconds((5, 9, 1), channel=1)]
    speech = [*seconds((0, 18), (18.4, 40)), *seconds((0, 25), (28, 40), channel=1)]
    rows, _ = cut(recording(turns, speech))
    assert [(row["channel"], *span) for row, span in zip(rows, spans(rows), strict=True)] == [
        (0, 0, 18), (0, 18.4, 40), (1, 5, 9),
    ]  # fmt: skip


def test_turns_beyond_the_end_are_bounded():
    rows, _ = cut(recording(seconds((599, 700, 0))))
    assert spans(rows) == [(599, 600)]


def test_two_speakers_over_the_same_samples_are_one_segment():
    rows, _ = cut(recording(seconds((1, 3, 1), (1, 3, 0), (2, 4, 1))))
    assert [(row["speaker_id"], *span) for row, span in zip(rows, spans(rows), strict=True)] == [
        ("rec:0", 1, 3), ("rec:1", 3, 4),
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


# ---- ends in silence, places to cut, overlap


def test_segments_take_in_silence_but_never_anothers_speech():
    turns = seconds((1, 3, 0), (3.1, 5, 1), (5, 7, 0), (20, 22, 0))
    rows, _ = cut(recording(turns, num_samples=22 * RATE + 800), pad_seconds=0.2)
    assert spans(rows) == [(0.8, 3.04), (3.08, 5), (5, 7.2), (19.8, 22.04)]


def test_silence_is_shared_between_the_pieces_of_a_turn():
    speech = seconds((0, 18), (18.5, 40))
    rows, _ = cut(recording(seconds((0, 40, 0)), speech), pad_seconds=0.2)
    assert spans(rows) == [(0, 18.2), (18.3, 40.18)]
    rows, _ = cut(recording(seconds((0, 40, 0)), speech), pad_seconds=2.0, max_seconds=22)
    assert spans(rows) == [(0, 18.24), (18.25, 40.25)]


def test_speech_that_belongs_to_nobody_is_not_taken_in():
    rows, _ = cut(recording(seconds((1, 3, 0)), speech=seconds((1, 3), (3.2, 4))), pad_seconds=0.5)
    assert spans(rows) == [(0.5, 3.1)]


def test_a_short_turn_of_another_speaker_is_not_taken_in_either():
    rows, _ = cut(recording(seconds((1, 3, 0), (3.1, 3.3, 1), (3.4, 6, 0))), pad_seconds=0.5)
    assert spans(rows) == [(0.5, 3.02), (3.35, 6.47)]


def test_segments_last_whole_frames_of_silence_first_and_never_less_of_a_known_word():
    spoken = [(1, 2.013), (5, 5.999), (8, 8.517)]
    turns = seconds(*((*span, 0) for span in spoken))
    rows, _ = cut(recording(turns, num_samples=10 * RATE), pad_seconds=0.1, min_seconds=0.5)
    assert [row["num_samples"] % 640 for row in rows] == [0, 0, 0]
    assert all(a <= start and end <= b for (a, b), (start, end) in zip(spans(rows), spoken, strict=True))
    rows, _ = cut(recording(turns, num_samples=10 * RATE), min_seconds=0.5)
    assert spans(rows) == [(1.0065, 2.0065), (5.0195, 5.9795), spoken[2]], "of the last one too little would be left"
    words = json.dumps({"words": [{"start": a, "end": b} for a, b in spoken]})
    rows, _ = cut(recording(turns, num_samples=10 * RATE, attributes=words), min_seconds=0.5)
    assert spans(rows) == spoken


def sounding(folder, wave, name="rec"):
    with ScratchAudio(folder).writer(name, 0) as writer:
        writer.append(np.asarray(wave, np.float32))
    return folder


def test_a_long_turn_without_a_pause_is_cut_where_it_is_quietest(tmp_path):
    wave = np.random.default_rng(0).normal(0, 0.1, 40 * RATE)
    for at, length, level in ((3.0, 0.1, 0.0), (17.0, 0.06, 0.001), (23.0, 0.12, 0.001), (25.0, 0.3, 0.05)):
        wave[round(at * RATE) : round((at + length) * RATE)] *= level
    rows, _ = cut(recording(seconds((0, 40, 0))), scratch=sounding(tmp_path, wave))
    (_, first), (second, _) = spans(rows)
    assert 0 <= second - first <= 0.02
    assert 23.0 < first < second < 23.12


def test_a_cut_never_runs_through_a_word_whose_times_are_known(tmp_path):
    wave = np.random.default_rng(0).normal(0, 0.1, 40 * RATE)
    wave[20 * RATE : 20 * RATE + 3000] = 0.0
    words = [{"text": "w", "start": t, "end": t + 0.95} for t in range(40)] + [{"text": "untimed"}]
    attributes = json.dumps({"words": words})
    rows, _ = cut(recording(seconds((0.5, 39.6, 0)), attributes=attributes), scratch=sounding(tmp_path, wave))
    places = {place for span in spans(rows) for place in span}
    assert len(rows) == 2
    assert not [p for p in places for w in words[:-1] if w["start"] + 1e-9 < p < w["end"] - 1e-9]
    assert spans(rows)[0][0] == 0.95  # the turn began in the second half of the first word
    moved, _ = cut(recording(seconds((0, 40, 0)), seconds((0, 19.9), (20.2, 40)), attributes=attributes))
    assert spans(moved) == [(0, 19.95), (20, 40)]


@pytest.mark.parametrize(
    "attributes", [None, "[]", '{"words": 3}', '{"words": [1, {"start": "a", "end": 2}]}', '{"words": [{"start": 1}]}']
)
def test_attributes_that_hold_no_word_times_are_no_error(attributes):
    assert spans(cut(recording(seconds((1, 3, 0)), attributes=attributes))[0]) == [(1, 3)]


def overlaps(**config):
    """Returns the share of overlap by channel, speaker and second of the first sample."""
    turns = seconds((0, 10, 0), (4, 5, 1), (4.5, 6, 2), (9.8, 12, 1))
    rows, _ = cut(recording(turns + seconds((2, 9, 3), channel=1)), **config)
    return {(row["channel"], row["speaker_id"], row["start"] // RATE): row["overlap_ratio"] for row in rows}


def test_overlapped_speech_is_marked_and_cut_out_of_the_rest():
    assert overlaps() == {
        (0, "rec:0", 0): 0.0, (0, "rec:0", 4): 1.0, (0, "rec:0", 6): 0.0, (0, "rec:1", 4): 1.0, (0, "rec:2", 4): 1.0,
        (0, "rec:1", 10): 0.0, (1, "rec:3", 2): 0.0,
    }  # fmt: skip


def test_overlaps_that_stay_inside_are_counted():
    assert overlaps(min_overlap_seconds=5) == pytest.approx({
        (0, "rec:0", 0): 0.22, (0, "rec:1", 4): 1.0, (0, "rec:2", 4): 1.0, (0, "rec:1", 9): 0.2 / 2.2,
        (1, "rec:3", 2): 0.0,
    })  # fmt: skip


def test_a_speaker_is_never_joined_across_anothers_speech():
    rows, _ = cut(recording(seconds((0, 4, 0), (4.1, 4.3, 1), (4.4, 8, 0))))
    assert spans(rows) == [(0, 4), (4.4, 8)]
    assert [row["speaker_id"] for row in rows] == ["rec:0"] * 2


def test_of_several_channels_each_keeps_its_own_speech_only():
    turns = [*seconds((0, 5, 0), (5, 9, 1)), *seconds((0, 5, 2), (5, 9, 3), channel=1)]
    speech = [*seconds((0, 2.8), (3, 5.1)), *seconds((4.9, 9), channel=1)]
    rows, _ = cut(recording(turns, speech))
    assert [(row["channel"], *span, row["speaker_id"]) for row, span in zip(rows, spans(rows), strict=True)] == [
        (0, 0, 5, "rec:0"), (1, 5, 9, "rec:3"),
    ]  # fmt: skip
    assert all(row["overlap_ratio"] == 0 for row in rows)
    one, _ = cut(recording(seconds((0, 5, 0)), seconds((0, 2))))
    assert spans(one) == [(0, 5)]


def test_ids_of_segments_and_speakers_do_not_depend_on_neighbours_or_order():
    one, two = recording(seconds((1, 3, 0), (4, 6, 1))), recording(seconds((2, 5, 0)), recording_id="other")
    alone, before, after = cut(one)[0], cut(two, one)[0], cut(one, two)[0]
    assert [row for row in before if row["recording_id"] == "rec"] == alone == after[: len(alone)]
    assert [row["speaker_id"] for row in alone] == ["rec:0", "rec:1"]


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


@given(TURNS, st.integers(1, 40), st.integers(0, 60), st.sampled_from([0, 3, 40]))
def test_segments_of_any_turns_keep_the_law(rows, shortest, gap, pad):
    rate, length = 100, 500
    turns = [{"channel": c, "start": s, "num_samples": n, "speaker": k} for c, s, n, k in rows]
    config = {
        "min_seconds": shortest / rate, "max_seconds": 100 / rate, "merge_gap_seconds": gap / rate,
        "pad_seconds": pad / rate,
    }  # fmt: skip
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


@given(TURNS, st.integers(0, 40))
def test_silence_is_taken_in_and_nobodys_speech(rows, pad):
    turns = join_turns([Turn(c, s, min(s + n, 500), k) for c, s, n, k in rows], 5)
    segments = cut_turns(turns, {}, 5, 100)
    for before in segments:
        around = [t for t in pad_segments(segments, turns, {}, pad, 100, 500) if t.channel == before.channel]
        mine = [t for t in around if t.start <= before.start and before.end <= t.end]
        assert mine
        for after in (t for t in mine if t.speaker == before.speaker):
            others = [t for t in turns if t.channel == before.channel and t.speaker != before.speaker]
            for start, end in ((after.start, before.start), (before.end, after.end)):
                assert end - start <= pad
                assert all(t.end <= start or end <= t.start for t in others if start < end)


@given(
    st.lists(st.tuples(*[st.integers(0, 50)] * 3), max_size=5), st.integers(1, 20), st.none() | st.integers(0, 60)
)  # fmt: skip
def test_whole_frames_take_padding_first_and_never_more_than_a_frame(lengths, frame, shortest):
    spoken = np.array([(1000 * n + a, 1000 * n + a + b) for n, (a, b, _) in enumerate(lengths)]).reshape(-1, 2)
    padded = np.array([(1000 * n, 1000 * n + sum(one)) for n, one in enumerate(lengths)]).reshape(-1, 2)
    found = whole_frames(padded, spoken, frame, shortest)
    for (start, end), (first, last), (low, high) in zip(found, spoken, padded, strict=True):
        excess, padding = (high - low) % frame, (high - low) - (last - first)
        if excess <= padding:
            assert low <= start <= first
            assert last <= end <= high
            assert end - start == high - low - excess
        elif shortest is None or high - low - excess < max(shortest, 1):
            assert (start, end) == (low, high)
        else:
            lost = start - first, last - end
            assert sum(lost) == excess - padding
            assert 0 <= lost[0] <= lost[1] <= lost[0] + 1


@given(TURNS)
def test_cut_does_not_depend_on_the_order_of_turns(rows):
    turns = [Turn(c, s, s + n, k) for c, s, n, k in rows]
    assert cut_turns(turns, {}, 5, 100) == cut_turns(turns[::-1], {}, 5, 100)


def test_overlapped_speech_is_cut_out_of_turns():
    long, short = Turn(0, 0, 100, 0), Turn(0, 40, 60, 1)
    found = overlaps_apart([long, short, Turn(1, 0, 50, 2)], 5)
    mine = [(turn.start, turn.end) for turn in found if turn.speaker == 0]
    assert mine == [(0, 40), (40, 60), (60, 100)]
    assert [(turn.start, turn.end) for turn in found if turn.speaker == 1] == [(40, 60)]
    assert Turn(1, 0, 50, 2) in found, "another channel overlaps nothing"


def test_a_short_overlap_stays_inside_its_turn():
    one, other = Turn(0, 0, 50, 0), Turn(0, 48, 90, 1)
    assert overlaps_apart([one, other], 5) == [one, other]
    assert len(overlaps_apart([one, other], 2)) == 4


@given(TURNS, st.integers(1, 20))
def test_cutting_overlaps_out_keeps_every_sample_of_a_speaker(rows, shortest):
    def samples(of):
        return {(t.channel, t.speaker, n) for t in of for n in range(t.start, t.end)}

    joined = join_turns([Turn(channel, start, start + length, who) for channel, start, length, who in rows], 0)
    assert samples(overlaps_apart(joined, shortest)) == samples(joined)
