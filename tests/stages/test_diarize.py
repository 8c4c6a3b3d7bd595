"""Diarize: two people are two speakers, one is one; turns are inside speech; big recordings stay affordable."""

import json
import unicodedata
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from data_engine.backends.catalog import BackendCache
from data_engine.core.errors import ConfigError
from data_engine.core.harness import StageRun
from data_engine.core.schema import load_schema
from data_engine.core.stage import Worker
from data_engine.io.scratch import ScratchAudio
from data_engine.stages.catalog import build_stage
from data_engine.stages.diarize import Turn, join_turns, number_speakers
from data_engine.stages.rules.clustering import ClusterSettings, place_windows, speaker_centroids, unit_rows

RATE, FRAME = 16000, 160
CACHE = BackendCache()


def diarize(folder, waves, speech=None, **config):
    """Runs segment and diarize over one recording; returns its row."""
    scratch = ScratchAudio(folder)
    for channel, wave in enumerate(waves):
        with scratch.writer("rec", channel) as writer:
            writer.append(np.asarray(wave, np.float32))
    row = {"recording_id": "rec", "sample_rate": RATE, "num_samples": len(waves[0]),
           "num_channels": len(waves), "warnings": [], "speech": speech}  # fmt: skip
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
    assert diarization_error_rate(reference, diarized) < 0.22


def test_turns_lie_in_order_and_hold_all_speech(diarized):
    turns = [(t["start"], t["start"] + t["num_samples"]) for t in diarized["turns"]]
    assert all(before[1] <= after[0] for before, after in pairwise(turns))
    for region in diarized["speech"]:
        start, end = region["start"], region["start"] + region["num_samples"]
        assert sum(max(0, min(b, end) - max(a, start)) for a, b in turns) == end - start


def test_one_person_is_one_speaker(tmp_path, talk):
    row = diarize(tmp_path, [talk[22 * RATE : round(27.8 * RATE)]])
    assert row["num_speakers"] == 1


def test_the_result_is_the_same_again(tmp_path, talk, diarized):
    again = diarize(tmp_path, [talk], windows_at_once=5)
    assert again["turns"] == diarized["turns"]


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


def test_a_known_number_of_speakers_is_kept(tmp_path, talk):
    assert diarize(tmp_path, [talk], clustering={"num_speakers": 1})["num_speakers"] == 1
    assert diarize(tmp_path, [talk], clustering={"num_speakers": 3})["num_speakers"] == 3


def test_a_recording_without_speech_is_rejected(tmp_path):
    assert diarize(tmp_path, [np.zeros(RATE)], speech=[]) is None


def test_more_speakers_at_least_than_at_most_are_refused():
    with pytest.raises(ConfigError, match="max_speakers"):
        build_stage("diarize", {"clustering": {"min_speakers": 3, "max_speakers": 2}})


def test_meetings_stay_as_good_as_they_were(tmp_path, shared_speech):
    rates = {}
    for line in (shared_speech / "manifest.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if entry["rttm"] is None:
            continue
        # One file name carries a non-ASCII letter on purpose; its reference does not.
        name = unicodedata.normalize("NFD", Path(entry["path"]).stem).encode("ascii", "ignore").decode()
        uri = name if "pyannote" in entry["path"] else None
        row = diarize(tmp_path, [soundfile.read(shared_speech / entry["path"], dtype="float32")[0]])
        reference = reference_turns(shared_speech / entry["rttm"], uri)
        rates[name] = diarization_error_rate(reference, row) if row else 1.0
    assert len(rates) == 9
    assert np.mean(list(rates.values())) < 0.48, rates


# ---- windows, clusters, turns

REGIONS = st.lists(st.tuples(st.integers(1, 500), st.integers(1, 3000)), min_size=1, max_size=8).map(
    lambda steps: np.cumsum(np.array(steps).ravel()).reshape(-1, 2)
)


@given(REGIONS, st.integers(1, 400), st.integers(1, 400))
def test_windows_cover_their_regions_and_nothing_else(regions, window, hop):
    hop = min(hop, window)
    windows = place_windows(regions, window, hop)
    covered = np.zeros(regions[-1, 1] + 1, int)
    for start, length in zip(windows.start, windows.num_samples, strict=True):
        assert 1 <= length <= window
        covered[start : start + length] += 1
    inside = np.zeros_like(covered)
    for start, end in regions:
        inside[start:end] = 1
    assert ((covered > 0) == inside.astype(bool)).all()
    assert windows.counts.sum() == len(windows.start)


def people(counts, spread=0.05, seed=0):
    """Returns unit vectors around one random direction per person, and who each belongs to."""
    random = np.random.default_rng(seed)
    directions = unit_rows(random.normal(size=(len(counts), 64)).astype(np.float32))
    who = np.repeat(np.arange(len(counts)), counts)
    noise = random.normal(size=(len(who), 64)).astype(np.float32)
    return unit_rows(directions[who] + spread * noise), who


@pytest.mark.parametrize("counts", [[20], [20, 20], [50, 10, 30, 7]])
def test_each_person_gets_a_centroid(counts):
    embeddings, who = people(counts)
    centroids = speaker_centroids(embeddings, np.ones(len(who), bool), ClusterSettings())
    nearest = np.argmax(embeddings @ centroids.T, axis=1)
    assert len(centroids) == len(counts)
    assert len(set(zip(who.tolist(), nearest.tolist(), strict=True))) == len(counts)


def test_a_speaker_needs_a_share_of_a_long_recording():
    embeddings, who = people([900, 40])
    everyone = np.ones(len(who), bool)
    assert len(speaker_centroids(embeddings, everyone, ClusterSettings(min_share=0.01))) == 2
    assert len(speaker_centroids(embeddings, everyone, ClusterSettings(min_share=0.1))) == 1


def test_a_cough_is_no_speaker_but_a_lone_window_is():
    embeddings, who = people([30, 2])
    everyone = np.ones(len(who), bool)
    assert len(speaker_centroids(embeddings, everyone, ClusterSettings())) == 1
    assert len(speaker_centroids(embeddings[-1:], everyone[-1:], ClusterSettings())) == 1


def test_outliers_do_not_force_speakers_together():
    embeddings, who = people([30, 30, 3])
    centroids = speaker_centroids(embeddings, np.ones(len(who), bool), ClusterSettings(num_speakers=2))
    nearest = np.argmax(embeddings @ centroids.T, axis=1)
    assert len(set(nearest[:30])) == len(set(nearest[30:60])) == 1
    assert nearest[0] != nearest[30]


def test_short_windows_found_no_speaker():
    embeddings, who = people([30, 30])
    assert len(speaker_centroids(embeddings, who == 0, ClusterSettings())) == 1


def test_long_recordings_are_clustered_on_a_sample():
    embeddings, who = people([15000, 15000])
    centroids = speaker_centroids(embeddings, np.ones(len(who), bool), ClusterSettings(max_windows=200))
    assert len(centroids) == 2


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
