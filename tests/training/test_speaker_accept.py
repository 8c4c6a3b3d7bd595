"""Closed-domain examples and their evaluation: who has learnt answers is found right, who has not is found wrong."""

import json
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from data_engine.core.config import BackendChoice  # noqa: E402
from data_engine.core.errors import ConfigError  # noqa: E402
from data_engine.tokens.interleave import Interleaving, split_interleaved  # noqa: E402
from data_engine.tokens.layout import interleave_codes  # noqa: E402
from data_engine.training import closed_speech, speaker_accept, speaker_lm  # noqa: E402
from data_engine.training.answers_heard import AnswerJudge, distance, joined, nearest_in_letters  # noqa: E402
from data_engine.training.greedy import SpeakerModel  # noqa: E402
from data_engine.training.qa_examples import answer_examples, closed_examples, spoken_questions  # noqa: E402
from data_engine.training.speaker_examples import Coded, Example, special_tokens  # noqa: E402
from data_engine.training.speaker_folder import save_folder  # noqa: E402
from data_engine.training.speech.closed_sentences import PROMPTS  # noqa: E402

TINY = speaker_lm.NetworkSettings(size=64, hidden=128, layers=2, heads=2, key_value_heads=1, positions=512)
OWNER, SUM = "Who has the red boat?", "What is two plus three?"
NAME = "Alexander Montgomery."


def coded(text, voice, seed, groups=5, held_out=False):
    rng = np.random.default_rng(seed)
    run = interleave_codes(rng.integers(0, 1024, 2 * groups), rng.integers(0, 4096, 3 * groups)).ids
    return Coded(text, f"flite:{voice}", "en", run, held_out)


@pytest.fixture(scope="module")
def world():
    """Two questions in two voices, three renditions of each answer."""
    asked = [coded(text, voice, n) for n, (text, voice) in enumerate([(OWNER, "rms"), (SUM, "awb"), (SUM, "rms")])]
    said = [coded(text, "slt", 10 + n) for n, text in enumerate([NAME, "Five."] * 3)]
    return [*asked, *said]


def examples_of(world, tokenizer, vocabulary, kind, *ratio):
    settings = Interleaving(*ratio) if ratio else Interleaving()
    return list(answer_examples(world, [kind], tokenizer, vocabulary, settings, 1))


def test_layouts_of_one_pair_hold_the_same_question_text_and_audio(world, tokenizer, vocabulary):
    special = special_tokens(tokenizer)
    found = [
        examples_of(world, tokenizer, vocabulary, *layout)
        for layout in (("AQTAA", 10, 15), ("AQTAA", 6, 50), ("AQAA",))
    ]
    assert [len(examples) for examples in found] == [9, 9, 9], "three renditions each"
    for ten, six, audio in zip(*found, strict=True):
        prompts = [example.ids[example.mask == 0].tolist() for example in (ten, six, audio)]
        assert prompts[0] == prompts[1] == prompts[2]
        streams = [
            split_interleaved(vocabulary.from_model(example.ids[example.mask == 1]), special)
            for example in (ten, six, audio)
        ]
        assert streams[0][1].tolist() == streams[1][1].tolist() == streams[2][1].tolist()
        assert streams[0][0].tolist() == streams[1][0].tolist()
        assert streams[2][0].size == 0
        assert tokenizer.decode(streams[0][0].tolist()) in (NAME, "Five.")
    longest = max(found[0], key=lambda example: len(example.ids))
    twin = found[1][found[0].index(longest)]
    assert longest.ids.tolist() != twin.ids.tolist(), "a name is longer than six text ids"


def test_written_answers_come_once_per_question(world, tokenizer, vocabulary):
    assert len(examples_of(world, tokenizer, vocabulary, "AQTA")) == 3
    assert len(examples_of(world, tokenizer, vocabulary, "TQTA")) == 3
    assert examples_of(world, tokenizer, vocabulary, "TTS") == []


def test_an_answer_that_nobody_speaks_is_an_error(world, tokenizer, vocabulary):
    silent = [one for one in world if one.text != "Five."]
    with pytest.raises(ConfigError, match="Five"):
        examples_of(silent, tokenizer, vocabulary, "AQTAA")


def test_sentences_follow_a_prompt_of_their_own_voice(tokenizer, vocabulary):
    spoken = [coded(text, voice, hash((text, voice)) % 1000, 2) for voice in ("slt", "rms") for text in PROMPTS]
    spoken += [coded("My boat is red.", "rms", 7, 3), coded("My boat is red.", "nobody", 8, 3)]
    found = list(closed_examples(spoken, tokenizer, vocabulary, 1))
    assert len(found) == 1, "prompts are no targets, a voice without prompts is left out"
    ids = vocabulary.from_model(found[0].ids)
    audio = split_interleaved(ids[found[0].mask == 0], special_tokens(tokenizer))[1]
    assert audio.tolist() in [one.audio.tolist() for one in spoken if one.speaker == "flite:rms"]
    made = split_interleaved(ids[found[0].mask == 1], special_tokens(tokenizer))[1]
    assert made.tolist() == spoken[-2].audio.tolist()


def test_the_judge_hears_the_nearest_answer_in_spite_of_noise_and_tempo():
    rng = np.random.default_rng(0)
    answers = {f"answer {n}": [rng.integers(0, 1024, 20) for _ in range(2)] for n in range(5)}
    judge = AnswerJudge(answers)
    for answer, renditions in answers.items():
        noisy = np.where(rng.random(20) < 0.4, rng.integers(0, 1024, 20), renditions[1])
        assert judge.heard(np.repeat(noisy, 2))[0] == answer
    assert judge.heard(np.zeros(0, np.int64)) == ("", 1.0)
    assert judge.heard(answers["answer 0"][0])[1] == 0.0


def test_distances_are_shares_and_repeats_are_joined():
    assert joined(np.array([5, 5, 7, 7, 5])).tolist() == [5, 7, 5]
    assert distance(np.array([1, 2, 3, 4]), np.array([1, 2, 4])) == 0.25
    assert distance(np.array([1]), np.array([], np.int64)) == 1.0


def test_a_recognizer_that_knows_no_name_is_understood_by_its_letters():
    known = ("Gabriel Oyelaran.", "Rosalind Kowalski.", "Five.")
    assert nearest_in_letters("rose island koval ski", known) == "Rosalind Kowalski."
    assert nearest_in_letters("fife", known) == "Five."
    assert nearest_in_letters(" ", known) == ""


@pytest.fixture(scope="module")
def folder(world, tokenizer, vocabulary, tmp_path_factory):
    """A model that has learnt one rendition of each answer by heart."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    once = list({one.text: one for one in reversed(world) if one.text in (NAME, "Five.")}.values())
    examples = examples_of([*world[:3], *once], tokenizer, vocabulary, "AQTAA")
    model = speaker_lm.network(TINY, vocabulary)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(120):
        loss = sum(speaker_lm.losses_of(model, examples, vocabulary.text_size).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.1
    made = tmp_path_factory.mktemp("release")
    save_folder(model, made, BackendChoice(name="bpe"), tokenizer.specials(), vocabulary)
    return made


def test_a_trained_model_answers_right_in_both_channels_and_an_untrained_one_does_not(
    folder, world, tokenizer, vocabulary, tmp_path
):
    asked, judge = spoken_questions(world), speaker_accept.judge_of(world)
    config = speaker_accept.AcceptSettings(output=tmp_path, corpus=tmp_path, codes=tmp_path, most=70, batch=2)
    special = special_tokens(tokenizer)
    good = speaker_accept.ask(SpeakerModel(folder, special), asked, judge, tokenizer, config)
    assert good.text.tolist() == good.audio.tolist() == [True] * 3
    figures = speaker_accept.rates(good, asked)
    assert figures["ended"] == 1.0
    assert figures["families"]["owner"] == {"text": 1.0, "audio": 1.0}
    torch.manual_seed(3)
    save_folder(
        speaker_lm.network(TINY, vocabulary), tmp_path, BackendChoice(name="bpe"), tokenizer.specials(), vocabulary
    )
    bad = speaker_accept.ask(SpeakerModel(tmp_path, special), asked, judge, tokenizer, config)
    assert not bad.text.any()
    nothing = replace(bad, audio=bad.text)
    found = speaker_accept.gain([good], [nothing], 1)
    assert found == {"value": 1.0, "low": 1.0, "high": 1.0, "utterances": 3}
    half = speaker_accept.gain([good, nothing], [nothing, nothing], 1)
    assert (half["value"], half["utterances"]) == (0.5, 3), "a question counts by the trainings that answer it"


def test_batches_with_padding_say_what_each_prompt_says_alone(folder, world, tokenizer, vocabulary):
    special = special_tokens(tokenizer)
    model = SpeakerModel(folder, special)
    examples = examples_of(world, tokenizer, vocabulary, "AQTAA")
    prompts = [vocabulary.from_model(e.ids[e.mask == 0]) for e in examples[::3]]
    prompts[0] = prompts[0][5:]
    together, alone = model.say(prompts, 60), [model.say([prompt], 60)[0] for prompt in prompts]
    for one, other in zip(together, alone, strict=True):
        assert one.text.tolist() == other.text.tolist()
        assert one.linguistic.tolist() == other.linguistic.tolist()


def write_part(folder, name, utterances):
    """A part of the corpus, and its codes."""
    from data_engine.core.schema import load_schema
    from data_engine.io.shards import PartWriter, marker_name
    from data_engine.io.storage import Storage
    from data_engine.training.speech.spoken import Spoken, row_of

    rows = [
        row_of(Spoken(np.full(1600, n / 100, np.float32), one.text, "en", one.speaker.split(":")[1], "flite", "CC0",
                      "test" if one.held_out else "train"))
        for n, one in enumerate(utterances)
    ]  # fmt: skip
    writer = PartWriter(load_schema("segment"), folder)
    writer.write(load_schema("segment").batch(rows))
    storage = Storage(str(folder / "corpus" / name))
    storage.write_json(marker_name("segments", 0), writer.commit(storage, "segments", 0, {}))
    streams = [closed_speech.as_said(one) for one in utterances]
    groups = np.array([len(stream.linguistic) // 2 for stream in streams])
    (folder / "codes").mkdir(exist_ok=True)
    np.savez(
        folder / "codes" / f"{name}.npz", chosen=np.arange(len(rows)), first=np.cumsum(groups) - groups,
        groups=groups, linguistic=np.concatenate([s.linguistic for s in streams]),
        semantic=np.concatenate([s.semantic for s in streams]), speakers=np.eye(256)[: len(rows)],
    )  # fmt: skip


def test_the_evaluation_writes_what_the_table_reads(folder, world, tmp_path):
    write_part(tmp_path, "qa", world)
    write_part(tmp_path, "test_qa", world)
    spoken = [coded(text, "rms", 50 + n, 2) for n, text in enumerate(PROMPTS)]
    write_part(tmp_path, "closed", spoken)
    write_part(tmp_path, "test_closed", [*spoken, coded("My boat is red.", "rms", 60, 3, held_out=True)])
    settings = speaker_accept.AcceptSettings(
        output=tmp_path / "figures.json", corpus=tmp_path / "corpus", codes=tmp_path / "codes",
        models={"interleaved": folder, "audio_only": (folder, folder)}, most=80, codec=BackendChoice(name="kmeans"),
        speech=closed_speech.SpeechSettings(model=folder, decode=False),
    )  # fmt: skip
    (tmp_path / "figures.json").write_text('{"kept": {}}')
    speaker_accept.evaluate(settings)
    stored = json.loads((tmp_path / "figures.json").read_text())
    assert set(stored) == {"kept", "spoken_answers", "text_to_speech_details"}, "nothing was decoded: no value"
    answers = stored["spoken_answers"]
    assert answers["value"] == 0.0, "a model gains nothing over itself"
    assert answers["details"]["interleaved"]["audio"] == answers["details"]["interleaved"]["agrees"] == 1.0
    assert [one["audio"] for one in answers["details"]["audio_only"]["trainings"]] == [1.0, 1.0]
    assert answers["details"]["audio_only"]["audio"] == answers["details"]["judge"] == 1.0
    assert answers["utterances"] == 3
    assert answers["tokenizer_hash"] == stored["text_to_speech_details"]["tokenizer_hash"]
    assert stored["text_to_speech_details"]["utterances"] == 1
    assert stored["text_to_speech_details"]["details"]["code_error_rate"] > 0


def test_trainings_that_are_compared_do_the_same_number_of_steps(world, tmp_path):
    write_part(tmp_path, "qa", world)
    counts = []
    for task in ("AQTAA", "AQAA"):
        config = speaker_lm.SpeakerSettings.model_validate({
            "output": tmp_path / task, "corpus": tmp_path / "corpus", "codes": tmp_path / "codes",
            "questions": ("qa",), "weights": {task: 1.0}, "network": TINY, "batch_examples": 2,
            "loop": {"steps": 4, "log_steps": 1},
        })  # fmt: skip
        speaker_lm.train(config)
        counts.append((tmp_path / task / "losses.csv").read_text().count("\n"))
    assert counts == [5, 5]


def test_batches_hold_no_more_examples_than_asked():
    examples = [Example("TTS", np.zeros(10, np.int32), np.ones(10, np.uint8), False)] * 40
    tasks = speaker_lm.Tasks(examples, {"TTS": 1.0}, 10_000, 4)
    assert max(len(tasks.batch(np.random.default_rng(n))) for n in range(20)) == 4
