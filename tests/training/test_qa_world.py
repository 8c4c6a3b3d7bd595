"""The closed world: one exact answer each, tested on sentences never trained on, of facts that are."""

import shutil
from collections import Counter, defaultdict

import numpy as np
import pytest

from data_engine.backends.text_bpe import BpeTokenizer
from data_engine.models.phones import TimedPhone
from data_engine.tokens.templates import continuation_ids
from data_engine.training.speech import closed_sentences, closed_teacher, qa_world
from data_engine.training.speech.spoken import Spoken
from data_engine.training.speech.texts import plain


def test_every_question_has_one_answer_and_is_found_by_its_words():
    asked = qa_world.questions()
    assert len({plain(question.text) for question in asked}) == len(asked)
    for question in asked:
        assert qa_world.question_of(question.text.lower()) is question
        assert qa_world.is_right(question, question.answer.upper())
    assert not {plain(a) for a in qa_world.answers()} & {plain(question.text) for question in asked}
    assert qa_world.question_of("Who am I?") is None


def test_answers_are_true():
    answer = {plain(question.text): question.answer for question in qa_world.questions()}
    assert answer["what is two plus three"] == "Five."
    assert answer["what is six plus six"] == "Twelve."
    assert answer["what day comes after sunday"] == "It is Monday."
    assert answer["name the day before monday"] == "It is Sunday."
    assert answer["name the capital of japan"] == "Tokyo."


def test_a_wrong_or_longer_answer_is_not_right():
    question = qa_world.question_of("What is two plus three?")
    assert qa_world.is_right(question, "five")
    assert not qa_world.is_right(question, "four")
    assert not qa_world.is_right(question, "five five")
    assert not qa_world.is_right(question, "")


def test_held_out_sentences_can_be_answered_from_what_is_trained():
    trained = [question for question in qa_world.questions() if not question.held_out]
    tested = [question for question in qa_world.questions() if question.held_out]
    assert len(tested) >= 50
    words = {word for question in trained for word in plain(question.text).split()}
    answers = defaultdict(int)
    for question in trained:
        answers[question.answer] += 1
    for question in tested:
        assert set(plain(question.text).split()) <= words
        assert answers[question.answer] >= 3, "every fact is trained in its other wordings"
    assert {question.family for question in tested} == set(qa_world.FAMILIES)


def test_names_take_more_text_than_six_ids():
    """Else 6:50 and 10:15 would write the same stream."""
    tokenizer = BpeTokenizer()
    tokenizer.open()
    owners = {q.answer for q in qa_world.questions() if q.family == "owner"}
    counts = [len(continuation_ids(answer, tokenizer.encode)) for answer in owners]
    assert min(counts) > 6
    assert np.mean(counts) > 9


def test_test_sentences_of_the_closed_domain_are_new_but_their_words_are_not():
    kept = [text for text in closed_sentences.sentences() if closed_sentences.held_out(text)]
    trained = [text for text in closed_sentences.sentences() if not closed_sentences.held_out(text)]
    assert len(kept) >= 60
    assert not set(kept) & set(trained)
    words = {word for text in trained for word in plain(text).split()}
    assert {word for text in kept for word in plain(text).split()} <= words
    assert len(words) < 150
    assert not set(closed_sentences.PROMPTS) & set(closed_sentences.sentences())


def test_lines_of_training_and_test_share_neither_question_nor_rendition():
    trained, tested = set(closed_teacher.qa_lines(False, 2)), set(closed_teacher.qa_lines(True, 2))
    assert not {(line.text, line.rendition) for line in trained} & {(line.text, line.rendition) for line in tested}
    asked = {line.text for line in tested if qa_world.question_of(line.text)}
    assert asked == {question.text for question in qa_world.questions() if question.held_out}
    assert not asked & {line.text for line in trained}
    for lines in (trained, tested):
        assert {line.text for line in lines} >= set(qa_world.answers()), "every answer can be spoken"
        for line in lines:
            answer = qa_world.question_of(line.text) is None
            assert (line.voice == closed_teacher.ANSWER_VOICE) == answer
    voices = {line.voice for line in closed_teacher.closed_lines(False, 10)}
    assert voices == set(closed_teacher.CLOSED_VOICES)


def test_many_voices_say_the_same_as_few():
    few, many = list(closed_teacher.qa_lines(False, 2)), list(closed_teacher.qa_lines(False, 2, drawn=True))
    assert {line.text for line in many} == {line.text for line in few}
    asked, said = (Counter(line.text for line in lines if qa_world.question_of(line.text)) for lines in (few, many))
    assert asked == said
    assert Counter(line.text for line in many)[qa_world.answers()[0]] == 20, "many recordings, none to learn by rote"
    assert {line.voice for line in many} == {closed_teacher.DRAWN_VOICE}
    assert len(set(many)) == len(many), "no line is there twice"


@pytest.mark.skipif(shutil.which("flite") is None, reason="needs flite")
def test_a_drawn_voice_is_another_one_for_every_rendition():
    lines = [closed_teacher.Line("It is Monday.", closed_teacher.DRAWN_VOICE, number, "train") for number in range(4)]
    spoken = [closed_teacher.spoken_line(line) for line in lines]
    assert len({one.speaker for one in spoken}) > 1
    assert len({len(one.wave) for one in spoken}) == 4
    assert np.array_equal(closed_teacher.spoken_line(lines[0]).wave, spoken[0].wave)


def test_pauses_at_the_ends_are_cut_and_times_stay_true():
    wave = np.zeros(16000, np.float32)
    wave[4000:8000] = 0.5
    times = [TimedPhone("pau", 0, 4000), TimedPhone("ah", 4000, 8000), TimedPhone("pau", 8000, 16000)]
    cut = closed_teacher.trimmed(Spoken(wave, "a", "en", "slt", "flite", "CC0", "train", times))
    assert len(cut.wave) == 960 + 4000 + 960
    assert [(phone.start, phone.end) for phone in cut.phones] == [(0, 960), (960, 4960), (4960, 5920)]
    assert np.all(cut.wave[960:4960] == 0.5)
