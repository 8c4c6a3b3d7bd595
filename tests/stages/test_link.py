"""Link and unite: a person under several ids becomes one voice, where embeddings say so and nothing forbids it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.io.exchange import ordered
from data_engine.io.shards import PartWriter, marker_name
from data_engine.io.storage import Storage
from data_engine.stages.catalog import build_stage
from data_engine.stages.rules.linking import LinkSettings, likely_pairs, link
from data_engine.stages.unite import Unite
from tests.evaluate.voices import merge_figures, voices
from tests.stages.rows import CONSENT, RATE, column, ran, table, tone, worker

DIMENSIONS = 64


def embedding(person, take=0, spread=0.25):
    """A unit vector near the person's own: takes of one person have a cosine of about 0.94, people one of about 0."""
    own = np.random.default_rng(person).normal(size=DIMENSIONS)
    other = np.random.default_rng([person, take]).normal(size=DIMENSIONS)
    vector = own / np.linalg.norm(own) + spread * other / np.linalg.norm(other)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def voice(number, person, **changes):
    row = {
        "voice_id": f"voice-{number}", "recording_id": f"rec{number}", "speaker_id": f"rec{number}:0",
        "language": "en", **CONSENT, "audio": {"bytes": tone(3.0), "path": None}, "num_samples": 3 * RATE,
        "sample_rate": RATE, "text": "a prompt", "segment_ids": [f"segment-{number}"],
        "embedding": embedding(person, number).tolist(), "score": 0.5 + number / 100,
    }  # fmt: skip
    return row | changes


def linked(voices, **rules):
    """The people that the engine's own stages find among voices."""
    prints, _ = ran(build_stage("voiceprint", {}), voices, "voice", 2)
    batch = table(prints, "voiceprint").replace_schema_metadata({"schema": "voiceprint"})
    rows = [row for part in ordered([batch], "consent") for row in part.to_pylist()]
    return ran(build_stage("link", {"rules": rules}), rows, "voiceprint", 3)


def ids(people):
    return [sorted([person["speaker_id"], *person["merged_speakers"]]) for person in people]


def test_a_person_in_several_recordings_is_found():
    people, run = linked([voice(0, 1), voice(1, 2), voice(2, 1), voice(3, 1), voice(4, 3)])
    (person,) = people
    assert ids(people) == [["rec0:0", "rec2:0", "rec3:0"]]
    assert (person["speaker_id"], person["kept_voice_ids"]) == ("rec3:0", ["voice-3"])  # of the highest score
    assert person["voice_ids"] == ["voice-0", "voice-2", "voice-3"]
    assert 0.88 < person["least_similarity"] <= person["similarity"] < 1
    assert run.stats.unused_reasons == {"alone": 2}
    assert run.stats.metrics == {"speakers_merged": 2}


@pytest.mark.parametrize(
    "change",
    [
        {"licence": "CC-BY-4.0"},
        {"licence": None},
        {"consent_basis": "contract"},
        {"consent_basis": None},
        {"allowed_uses": ["asr", "tts", "dialogue"]},
        {"recording_id": "rec0", "speaker_id": "rec0:1"},  # told apart in the same recording
        {"embedding": embedding(2).tolist()},
    ],
)
def test_nothing_is_merged_where_consent_or_a_recording_or_the_voice_speaks_against_it(change):
    people, run = linked([voice(0, 1), voice(1, 1) | change])
    assert people == []
    assert run.stats.unused_reasons == {"alone": 2}


def test_the_order_of_allowed_uses_is_no_difference():
    people, _ = linked([voice(0, 1), voice(1, 1, allowed_uses=CONSENT["allowed_uses"][::-1])])
    assert len(people) == 1


def test_declared_names_are_never_merged_with_each_other_but_take_in_the_nameless():
    named = [voice(0, 1, speaker_id="anna"), voice(1, 1, speaker_id="berta"), voice(2, 1), voice(3, 1)]
    people, _ = linked(named)
    assert sorted(name for group in ids(people) for name in group) == sorted({n for g in ids(people) for n in g})
    assert not any({"anna", "berta"} <= set(group) for group in ids(people))
    assert {person["speaker_id"] for person in people} <= {"anna", "berta"}
    assert {"rec2:0", "rec3:0"} <= {name for person in people for name in person["merged_speakers"]}


def test_a_voice_in_each_language_is_kept():
    voices = [voice(0, 1), voice(1, 1, language="zh"), voice(2, 1, language="zh"), voice(3, 1, speaker_id="rec0:0",
              recording_id="rec0", language="de")]  # fmt: skip
    (person,), _ = linked(voices)
    assert person["kept_voice_ids"] == ["voice-0", "voice-2", "voice-3"]
    assert person["merged_speakers"] == ["rec0:0", "rec1:0"] or person["speaker_id"] == "rec0:0"


def test_a_threshold_above_one_merges_nobody():
    assert linked([voice(0, 1), voice(1, 1)], threshold=1.1)[0] == []


def test_a_chain_of_likenesses_does_not_make_two_people_one():
    steps = [np.array([np.cos(a), np.sin(a)], np.float32) for a in np.deg2rad([0, 27, 54, 81])]
    groups = link(np.stack(steps), [None] * 4, list("abcd"), LinkSettings(threshold=0.88, margin=0.04))
    assert groups == [[0, 1], [2, 3]]
    loose = link(np.stack(steps), [None] * 4, list("abcd"), LinkSettings(threshold=0.88, margin=0.5))
    assert loose == [[0, 1, 2, 3]]


PEOPLE = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.booleans()), min_size=1, max_size=14)


@given(PEOPLE, st.randoms(use_true_random=False), st.integers(1, 4))
def test_sets_are_apart_hold_the_rules_and_do_not_depend_on_the_order(drawn, random, neighbours):
    voices = [
        voice(i, person, speaker_id="anna" if named else f"rec{where}-{i}:0", recording_id=f"rec{where}-{i}")
        for i, (person, where, named) in enumerate(drawn)
    ]
    people, run = linked(voices, neighbours=neighbours)
    members = [name for person in people for name in person["voice_ids"]]
    assert len(members) == len(set(members))
    assert len(members) + run.stats.unused == len(voices)
    for person in people:
        assert set(person["kept_voice_ids"]) <= set(person["voice_ids"])
        assert person["speaker_id"] not in person["merged_speakers"]
    random.shuffle(voices)
    assert linked(voices, neighbours=neighbours)[0] == people


def test_pairs_are_the_same_in_blocks_and_at_once(monkeypatch):
    vectors = np.stack([embedding(i % 9, i) for i in range(40)])
    whole = likely_pairs(vectors, 0.8, 3)
    monkeypatch.setattr("data_engine.stages.rules.linking._CELLS_AT_ONCE", 7 * 40)
    blocks = likely_pairs(vectors, 0.8, 3)
    assert [pair[1:] for pair in blocks] == [pair[1:] for pair in whole]
    assert max(sum(pair[1] == row for pair in whole) for row in range(40)) == 3


def united(voices, folder):
    people, _ = linked(voices)
    storage = Storage(str(folder))
    writer = PartWriter(build_stage("link", {}).spec.produces, folder)
    writer.write(table(people, "speaker"))  # one part, as a run with one partition makes it
    storage.write_json(marker_name("speakers", 0), writer.commit(storage, "speakers", 0, {}))
    stage = Unite(Unite.Config(speakers=str(folder)))
    stage.open(worker(folder))
    return ran(stage, voices, "voice", 2)


def test_one_voice_of_a_person_is_left_and_names_the_others(tmp_path):
    voices = [voice(0, 1), voice(1, 2), voice(2, 1), voice(3, 1, language="zh"), voice(4, 1)]
    rows, run = united(voices, tmp_path)
    assert column(rows, "voice_id") == ["voice-1", "voice-3", "voice-4"]
    assert column(rows, "speaker_id") == ["rec1:0", "rec4:0", "rec4:0"]
    assert column(rows, "merged_speakers") == [[], ["rec0:0", "rec2:0", "rec3:0"], ["rec0:0", "rec2:0", "rec3:0"]]
    assert run.stats.unused_reasons == {"same_person": 2}
    kept = {row["voice_id"]: row for row in voices}
    for row in rows:
        before = kept[row["voice_id"]]
        assert all(row[name] == pytest.approx(before[name]) for name in ("embedding", "score"))
        assert all(row[name] == before[name] for name in ("audio", "segment_ids", "licence", "allowed_uses"))


def test_without_a_table_every_voice_stays(tmp_path):
    stage = build_stage("unite", {})
    stage.open(worker(tmp_path))
    rows, _ = ran(stage, [voice(0, 1), voice(1, 1)], "voice")
    assert column(rows, "merged_speakers") == [[], []]


def test_real_recordings_of_two_speakers_are_never_merged(shared_speech):
    speakers, vectors = voices(shared_speech)
    found, wrong, share = (figure.value for figure in merge_figures(speakers, vectors, LinkSettings()))
    assert wrong == 0
    assert found >= 7
    assert share >= 0.7
