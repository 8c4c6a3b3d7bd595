"""Diarize: two people are two speakers, one is one; windows are linked; overlaps are kept."""

from itertools import pairwise

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from data_engine.backends.catalog import BackendCache, build_backend
from data_engine.core.errors import ConfigError
from data_engine.core.harness import StageRun
from data_engine.core.schema import load_schema
from data_engine.core.stage import Worker
from data_engine.io.scratch import ScratchAudio
from data_engine.models.speaker_clustering import ClusterSettings, link_speakers, speaker_centroids, unit_rows
from data_engine.stages.catalog import build_stage
from data_engine.stages.rules.stretches import cut_at_silence
from data_engine.stages.rules.turns import Turn, join_turns, number_speakers
from tests.evaluate.diarization import figures

RATE, FRAME = 16000, 160
CACHE = BackendCache()


def diarize(folder, waves, speech=None, speaker=None, **config):
    """Runs segment and diarize over one recording; returns its row."""
    scratch = ScratchAudio(folder)
    for channel, wave in enumerate(waves):
        with scratch.writer("rec", channel) as writer:
            writer.append(np.asarray(wave, np.float32))
    row = {"recording_id": "rec", "sample_rate": RATE, "num_samples": len(waves[0]),
           "num_channels": len(waves), "warnings": [], "speaker": speaker, "speech": speech}  # fmt: skip
    batches = [load_schema("recording").pick(*row).batch([row])]
    for name, settings in [("segment", {}), ("diarize", config)][speech is not None :]:
        stage = build_stage(name, settings)
        stage.open(Worker(folder, CACHE))
        batches = list(StageRun(stage, "signature").run(batches))
    return batches[0].to_pylist()[0] if batches else None


def reference_turns(path, uri):
    """Returns (start, seconds, speaker) of an RTTM file's lines for one recording."""
    lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("SPEAKER")]
    return [(float(w[3]), float(w[4]), w[7]) for w in lines if uri in (None, w[1])]


def activity(turns, frames):
    """Returns bool [speakers, 10 ms frames]."""
    speakers = sorted({speaker for _, _, speaker in turns})
    active = np.zeros((len(speakers), frames), bool)
    for start, seconds, speaker in turns:
        active[speakers.index(speaker), round(start * 100) : round((start + seconds) * 100)] = True
    return active


def diarization_error_rate(reference, row):
    """Missed, false and confused speaker time over reference speaker time; no collar, overlap counted."""
    frames = row["num_samples"] // FRAME
    turns = [(t["start"] / RATE, t["num_samples"] / RATE, t["speaker"]) for t in row["turns"]]
    truth, found = activity(reference, frames), activity(turns, frames)
    both = truth.astype(int) @ found.T.astype(int)
    correct = both[linear_sum_assignment(-both)].sum()
    return (np.maximum(truth.sum(0), found.sum(0)).sum() - correct) / truth.sum()


@pytest.fixture(scope="module")
def talk(conversation):
    return soundfile.read(conversation, dtype="float32")[0]


@pytest.fixture(scope="module")
def diarized(talk, tmp_path_factory):
    return diarize(tmp_path_factory.mktemp("scratch"), [talk])


def test_two_people_are_two_speakers(diarized, conversation):
    reference = reference_turns(conversation.with_suffix(".rttm"), None)
    assert diarized["num_speakers"] == 2
    assert diarized["turns"][0]["speaker"] == 0
    assert diarization_error_rate(reference, diarized) < 0.10


def test_turns_lie_in_order_and_those_of_a_speaker_never_overlap(diarized):
    starts = [turn["start"] for turn in diarized["turns"]]
    assert starts == sorted(starts)
    for speaker in (0, 1):
        mine = [t for t in diarized["turns"] if t["speaker"] == speaker]
        assert all(a["start"] + a["num_samples"] < b["start"] for a, b in pairwise(mine))


def test_where_two_speak_at_once_both_have_a_turn(diarized, conversation):
    frames = diarized["num_samples"] // FRAME
    turns = [(t["start"] / RATE, t["num_samples"] / RATE, t["speaker"]) for t in diarized["turns"]]
    reference = activity(reference_turns(conversation.with_suffix(".rttm"), None), frames).all(axis=0)
    found = activity(turns, frames).all(axis=0)
    assert (reference & found).sum() > 0.5 * max(reference.sum(), found.sum())


def test_a_long_recording_in_windows_has_the_same_speakers(tmp_path, talk, conversation):
    reference = reference_turns(conversation.with_suffix(".rttm"), None)
    later = [(start + 30, seconds, speaker) for start, seconds, speaker in reference]
    row = diarize(tmp_path, [np.concatenate([talk, talk])], window_seconds=30, overlap_seconds=3)
    assert diarization_error_rate(reference + later, row) < 0.2, "unlinked windows would be wrong half of the time"


def test_a_word_too_short_for_the_model_is_of_one_speaker(tmp_path):
    speech = [{"channel": 0, "start": 800, "num_samples": 1600}]
    row = diarize(tmp_path, [np.zeros(4000)], speech)
    assert row["turns"] == [{"channel": 0, "start": 800, "num_samples": 1600, "speaker": 0}]


def test_one_person_is_one_speaker(tmp_path, talk):
    row = diarize(tmp_path, [talk[22 * RATE : round(27.8 * RATE)]])
    assert row["num_speakers"] == 1


def test_the_result_is_the_same_again(tmp_path, talk, diarized):
    again = diarize(tmp_path, [talk])
    assert again["turns"] == diarized["turns"]


def test_a_declared_speaker_is_checked_unless_trusted(tmp_path, talk, diarized):
    believed = diarize(tmp_path / "a", [talk], speaker="ann", declared_speaker="trust")
    assert believed["num_speakers"] == 1
    assert {turn["speaker"] for turn in believed["turns"]} == {0}
    assert diarize(tmp_path / "b", [talk], speaker="ann")["turns"] == diarized["turns"]
    two = diarize(tmp_path / "c", [talk, np.roll(talk, 8 * RATE)], speaker="ann", declared_speaker="trust")
    assert two["num_speakers"] > 1, "a call on two channels has more than one"


def test_split_channels_have_their_own_speakers(tmp_path, talk, diarized):
    later = np.concatenate([np.zeros(RATE, np.float32), talk[:-RATE]])
    row = diarize(tmp_path, [later, talk])
    by_channel = [{t["speaker"] for t in row["turns"] if t["channel"] == channel} for channel in (0, 1)]
    assert row["num_speakers"] == 4
    assert by_channel[0].isdisjoint(by_channel[1])
    assert 0 in by_channel[1], "speakers are numbered by first appearance, whatever the channel"


def test_shared_channels_have_the_same_speakers(tmp_path, talk):
    left, right = talk.copy(), talk.copy()
    left[18 * RATE :], right[: 18 * RATE] = 0, 0
    row = diarize(tmp_path, [left, right], channels="shared")
    assert row["num_speakers"] == 2
    assert [{t["speaker"] for t in row["turns"] if t["channel"] == channel} for channel in (0, 1)] == [{0, 1}] * 2


def test_what_bleeds_over_from_the_other_channel_is_no_speaker(tmp_path, talk):
    """The two speakers of the sample on a channel each, with a tenth of the other one."""
    one, two = talk[7 * RATE : 18 * RATE], talk[22 * RATE : 28 * RATE]
    left, right = (np.zeros(18 * RATE, np.float32) for _ in range(2))
    left[: len(one)], right[len(one) + RATE // 2 :][: len(two)] = one, two
    row = diarize(tmp_path, [left + 0.1 * right, right + 0.1 * left])
    ends = [t["start"] + t["num_samples"] for t in row["turns"] if t["channel"] == 0]
    assert max(ends) < len(one) + RATE
    assert min(t["start"] for t in row["turns"] if t["channel"] == 1) > len(one) - RATE


def test_a_known_number_of_speakers_is_kept(tmp_path, talk):
    for known in (1, 3):
        options = {"name": "pyannet", "options": {"clustering": {"num_speakers": known}}}
        assert diarize(tmp_path, [talk], diarization=options)["num_speakers"] == known


def test_a_recording_without_speech_is_rejected(tmp_path):
    assert diarize(tmp_path, [np.zeros(RATE)], speech=[]) is None


def test_more_speakers_at_least_than_at_most_are_refused():
    with pytest.raises(ConfigError, match="max_speakers"):
        build_backend("diarization", "pyannet", {"clustering": {"min_speakers": 3, "max_speakers": 2}})


def test_real_recordings_stay_as_good_as_they_were(shared_speech):
    """What is asked for is not reached (README says what is); less than what is may not come."""
    found = {(one.measure, one.on.split(" (")[0]): one.value for one in figures(shared_speech)}
    assert found["speech detection error, silero", "9 RTTM files, all speech"] < 0.235
    assert found["speech detection error, turns of pyannet", "9 RTTM files, all speech"] < 0.125
    assert found["diarization error, pyannet", "9 RTTM files, mean"] < 0.40
    assert found["diarization error, pyannet", "pyannote sample"] < 0.10
    assert found["speakers counted right, pyannet", "15 conversations"] >= 9 / 15


# ---- windows, speakers, turns

SPEECH = st.lists(st.tuples(st.integers(1, 500), st.integers(1, 3000)), max_size=8).map(
    lambda steps: [tuple(edges) for edges in np.cumsum(np.array(steps, int).ravel()).reshape(-1, 2).tolist()]
)


@given(SPEECH, st.integers(2, 4000))
def test_windows_are_the_recording_and_no_longer_than_asked(speech, window):
    num_samples = speech[-1][1] + 7 if speech else 9000
    cores = cut_at_silence(speech, num_samples, window)
    assert cores[0][0] == 0
    assert cores[-1][1] == num_samples
    assert all(before[1] == after[0] for before, after in pairwise(cores))
    assert all(0 < end - start <= 1.5 * window + 1 for start, end in cores)


def test_cuts_are_in_the_longest_pause():
    assert cut_at_silence([(0, 60), (65, 90), (110, 240)], 240, 100) == [(0, 100), (100, 240)]
    assert cut_at_silence([(0, 250)], 250, 100) == [(0, 100), (100, 250)]


def voices(counts, spread=0.01, seed=0):
    """Returns unit vectors around one random direction per person, and who each belongs to."""
    random = np.random.default_rng(seed)
    directions = unit_rows(random.normal(size=(len(counts), 64)).astype(np.float32))
    who = np.repeat(np.arange(len(counts)), counts)
    noise = random.normal(size=(len(who), 64)).astype(np.float32)
    return unit_rows(directions[who] + spread * noise), who


def centroids_of(points, seconds=None, **settings):
    seconds = np.ones(len(points), np.float32) if seconds is None else np.asarray(seconds, np.float32)
    return speaker_centroids(points, seconds, ClusterSettings(**settings))


@pytest.mark.parametrize("counts", [[20], [20, 20], [50, 10, 30, 7]])
def test_each_person_gets_a_centroid(counts):
    points, who = voices(counts)
    nearest = np.argmax(points @ centroids_of(points).T, axis=1)
    assert len(set(zip(who.tolist(), nearest.tolist(), strict=True))) == len(counts) == len(set(nearest.tolist()))


def test_a_speaker_needs_a_share_of_the_speech_unless_alone():
    points, who = voices([90, 10])
    assert len(centroids_of(points, min_share=0.05)) == 2
    assert len(centroids_of(points, min_share=0.2)) == 1
    assert len(centroids_of(points, np.where(who == 1, 0.1, 1.0), min_share=0.05)) == 1, "seconds count, not stretches"
    assert len(centroids_of(points[-1:], min_share=0.2)) == 1


def test_the_number_of_speakers_can_be_bounded_and_outliers_count_for_nothing():
    points, _ = voices([30, 30, 2])
    assert len(centroids_of(points, num_speakers=2)) == 2
    near = np.argmax(points @ centroids_of(points, max_speakers=2).T, axis=1)
    assert near[0] != near[30]
    assert len(centroids_of(points, min_speakers=3)) == 3


def test_many_stretches_are_clustered_on_a_sample():
    points, _ = voices([15000, 15000])
    assert len(centroids_of(points, max_stretches=200)) == 2


def test_speakers_of_two_windows_are_linked_by_their_voices():
    (one, two, three), _ = voices([1, 1, 1])
    again = unit_rows(np.array([three, one], np.float32) + 0.01)
    found = link_speakers(np.stack([one, two, three, *again]), np.ones(5), np.array([0, 0, 0, 1, 1]), 0.1)
    assert found.tolist() == [0, 1, 2, 2, 0]


def test_speakers_of_one_window_stay_two_however_alike():
    (one,), _ = voices([1])
    same = np.stack([one, one, one])
    assert link_speakers(same, np.ones(3), np.array([0, 0, 1]), 0.5).tolist() in ([0, 1, 0], [0, 1, 1])
    assert link_speakers(same[:2], np.ones(2), np.array([0, 0]), 0.5).tolist() == [0, 1]


def test_a_voice_that_is_not_known_is_linked_to_nobody():
    (one,), _ = voices([1])
    found = link_speakers(np.stack([one, 0 * one, one]), np.ones(3), np.array([0, 1, 2]), 0.5)
    assert found.tolist() == [0, 1, 0]


TURNS = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 300), st.integers(1, 60), st.integers(0, 2)), max_size=12
).map(lambda rows: [Turn(channel, start, start + length, speaker) for channel, start, length, speaker in rows])


@given(TURNS, st.integers(0, 40))
def test_joined_turns_of_a_speaker_never_overlap_and_keep_every_sample(turns, gap):
    joined = join_turns(turns, gap)
    for channel, speaker in {(t.channel, t.speaker) for t in turns}:
        mine = [t for t in joined if (t.channel, t.speaker) == (channel, speaker)]
        assert all(before.end < after.start for before, after in pairwise(mine))
        for turn in turns:
            if (turn.channel, turn.speaker) == (channel, speaker):
                assert any(t.start <= turn.start and turn.end <= t.end for t in mine)


def test_silence_is_bridged_but_not_another_speaker():
    a, b, c = Turn(0, 0, 10, 0), Turn(0, 15, 20, 0), Turn(0, 11, 14, 1)
    assert join_turns([a, b], 5) == [Turn(0, 0, 20, 0)]
    assert join_turns([a, b], 4) == [a, b]
    assert join_turns([a, b, c], 5) == [a, c, b]
    assert join_turns([a, b, Turn(1, 11, 14, 1)], 5) == [Turn(0, 0, 20, 0), Turn(1, 11, 14, 1)]


@given(TURNS)
def test_speakers_are_numbered_by_first_appearance(turns):
    numbered = number_speakers(turns)
    ordered = sorted(numbered, key=lambda turn: (turn.start, turn.channel))
    first_seen = list(dict.fromkeys(turn.speaker for turn in ordered))
    assert first_seen == list(range(len(first_seen)))
    pairs = {(before.speaker, after.speaker) for before, after in zip(turns, numbered, strict=True)}
    assert len(pairs) == len({turn.speaker for turn in turns})
