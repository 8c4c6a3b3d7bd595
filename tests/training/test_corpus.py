"""The training corpus: teachers' parts are runs of the engine, real speech comes from `curate`."""

from contextlib import suppress

import numpy as np
import pytest
import soundfile

from data_engine.core.errors import RecordError
from data_engine.core.harness import StageRun
from data_engine.core.ids import seed_of
from data_engine.core.schema import load_schema
from data_engine.io.shards import PartWriter, committed_parts, marker_name, read_batches
from data_engine.io.storage import Storage
from data_engine.runners.local import LocalRunner
from data_engine.training.corpus import CorpusSettings, make_part, plan_part
from data_engine.training.speech import real_speech, teacher_espeak
from data_engine.training.speech.lessons import english
from data_engine.training.speech.spoken import row_of
from data_engine.training.teach import Admit, Teach

SENTENCES = ("a red fox ran over the hill", "... ... ... ...", "we will leave at noon", "the night was cold and clear")


class Heard:
    def __init__(self):
        self.shards = []

    def planned(self, plan, committed):
        self.committed = committed

    def shard_done(self, plan, report):
        self.shards.append(report["shard"])


@pytest.fixture
def ocean(tmp_path):
    """The repository of speechocean762 with one adult who trains, one who tests, and a child."""
    folder = tmp_path / "ocean"
    for part, speakers in (("train", {"0001": 30, "0003": 9}), ("test", {"0024": 40})):
        (folder / part).mkdir(parents=True)
        lines = {
            "spk2age": [f"{s}\t{age}" for s, age in speakers.items()],
            "text": [f"{s}01\tGOOD {part.upper()}" for s in speakers],
            "utt2spk": [f"{s}01\t{s}" for s in speakers],
        }
        for name, content in lines.items():
            (folder / part / name).write_text("\n".join(content) + "\n")
        for speaker in speakers:
            (folder / "WAVE" / f"SPEAKER{speaker}").mkdir(parents=True)
            tone = 0.1 * np.sin(np.arange(16000) / 20)
            soundfile.write(folder / "WAVE" / f"SPEAKER{speaker}" / f"{speaker}01.WAV", tone, 16000)
    return folder


@pytest.fixture
def config(tmp_path, ocean):
    lists = tmp_path / "lists"
    for name, texts in (("LJSpeech/train", SENTENCES), ("LJSpeech/val", SENTENCES), ("AISHELL3/val", ())):
        (lists / name).parent.mkdir(parents=True, exist_ok=True)
        (lists / f"{name}.txt").write_text("".join(f"id|speaker|{{p}}|{text}\n" for text in texts))
    (tmp_path / "recordings").mkdir()
    (tmp_path / "recordings" / "manifest.jsonl").write_text("")
    return CorpusSettings.model_validate({
        "output": tmp_path / "corpus", "lists": lists, "speechocean": ocean, "recordings": tmp_path / "recordings",
        "parts": {"espeak": {"kind": "espeak", "shards": 2, "utterances": 3}},
    })  # fmt: skip


def made(config, listener=None):
    with LocalRunner(1, {}) as runner:
        return make_part(config, "espeak", runner, listener or Heard(), overwrite=False)


def shard_rows(config, shard):
    storage = Storage(str(config.output / "espeak"))
    part = next(part for part in committed_parts(storage, "segments") if part.shard == shard)
    return [row for batch in read_batches(storage, part) for row in batch.to_pylist()]


def drawn_by_hand(config, shard, count):
    """What a drawn lesson is: one stream of random numbers, sentence after sentence, until there are enough."""
    rng = np.random.default_rng(seed_of(config.seed, "espeak", shard))
    sentences = english(config.lessons("espeak"))
    order = np.random.default_rng(seed_of(config.seed, "espeak")).permutation(len(sentences))
    rows, position = [], shard * 400
    while len(rows) < count:
        with suppress(RecordError):
            rows.append(row_of(teacher_espeak.draw(sentences[order[position % len(order)]], rng)))
        position += 1
    return rows


def test_a_shard_holds_what_the_teacher_says_sentence_after_sentence(config):
    assert made(config) == []
    for shard in range(2):
        rows, expected = shard_rows(config, shard), drawn_by_hand(config, shard, 3)
        assert [{name: row[name] for name in expected[0]} for row in rows] == expected


def test_a_part_is_resumed_shard_by_shard_and_may_grow(config):
    made(config)
    first = [part.marker["sha256"] for part in committed_parts(Storage(str(config.output / "espeak")), "segments")]
    storage, plan = Storage(str(config.output / "espeak")), plan_part(config, "espeak")
    storage.remove("rejects/teach.teach/part-00001.json")
    resumed = Heard()
    made(config, resumed)
    assert (resumed.committed, resumed.shards) == (1, [1])
    more = config.parts["espeak"].model_copy(update={"shards": 3})
    grown = config.model_copy(update={"parts": {"espeak": more}})
    added = Heard()
    made(grown, added)
    assert (added.committed, added.shards) == (2, [2])
    assert plan_part(grown, "espeak").signature == plan.signature
    again = [part.marker["sha256"] for part in committed_parts(storage, "segments")]
    assert again[:2] == first


def test_what_a_teacher_cannot_say_is_a_reject_with_its_reason(config, monkeypatch):
    part = config.parts["espeak"].model_copy(update={"utterances": 6})  # more than there are sentences: all are tried
    silent = config.model_copy(update={"parts": {"espeak": part}})
    monkeypatch.setattr("data_engine.training.speech.texts.bank", lambda language, test: [])

    lesson = load_schema("lesson").batch([{"lesson_id": "l", "part": "espeak", "number": 0}])
    teach, admit = StageRun(Teach(silent.lessons("espeak")), "s"), StageRun(Admit(Admit.Config()), "s")
    rows = [row for batch in admit.run(teach.run([lesson])) for row in batch.to_pylist()]
    spoken = {row["text"] for row in rows}
    assert len(rows) == 6
    assert SENTENCES[1] not in spoken
    assert {reject["code"] for reject in admit.rejects} == {"SYNTHESIS_FAILED"}
    assert all(SENTENCES[1] in reject["detail"] for reject in admit.rejects)
    assert teach.rejects == []


def test_a_lesson_without_a_line_is_a_reject(config):
    part = {"kind": "test_closed", "utterances": 0, "shards": 1000}
    settings = config.lessons("espeak").model_copy(update={"part": type(config.parts["espeak"])(**part)})
    run = StageRun(Teach(settings), "s")
    assert list(run.run([load_schema("lesson").batch([{"lesson_id": "l", "part": "p", "number": 999}])])) == []
    assert [reject["code"] for reject in run.rejects] == ["NO_CHILDREN"]


def test_manifests_of_real_speech_say_speaker_licence_text_and_split(ocean, tmp_path):
    (tmp_path / "manifest.jsonl").write_text("")
    found = real_speech.parts(ocean, tmp_path)
    assert [(one.speaker, one.text, one.split) for one in found["real"]] == [("0001", "good train", "train")]
    assert [(one.speaker, one.text, one.split) for one in found["test_ocean"]] == [("0024", "good test", "test")]
    line = found["test_ocean"][0].row()
    assert line["speaker"] == "jimbozhang/speechocean762:0024"
    assert (line["language"], line["split"], line["allowed_uses"]) == ("en", "test", ["asr", "tts"])


def test_segments_that_a_policy_drops_do_not_enter_the_cache(config, tmp_path):
    waves = pytest.importorskip("data_engine.training.speech.waves")

    rows = drawn_by_hand(config, 0, 2)
    storage, schema = Storage(str(tmp_path / "real")), load_schema("segment")
    with storage.scratch() as folder:
        writer = PartWriter(schema, folder)
        writer.write(schema.batch([{**rows[0], "decision": "keep"}, {**rows[1], "decision": "drop"}]))
        storage.write_json(marker_name("segments", 0), writer.commit(storage, "segments", 0, {}))
    assert waves.build(tmp_path / "real", tmp_path / "cache" / "real") == 1
    assert len(waves.load(tmp_path / "cache", ["real"])[0].wave) == rows[0]["num_samples"]
