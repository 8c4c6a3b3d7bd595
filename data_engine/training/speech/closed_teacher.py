"""Speaks the closed domains with flite's natural voices: a few renditions that differ in tempo and pitch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from data_engine.core.ids import seed_of
from data_engine.models.phones import PAUSE, TimedPhone
from data_engine.training.speech import closed_sentences, qa_world
from data_engine.training.speech.spoken import SAMPLE_RATE, Spoken
from data_engine.training.speech.teacher_flite import SOURCE, VOICES, draw, speak
from data_engine.training.speech.texts import Sentence

ANSWER_VOICE = "slt"
"""One fixed voice for all answers (LLaMA-Omni 2, arXiv 2505.02625)."""

DRAWN_VOICE = "drawn"
"""Stands for another pseudo-speaker on every line."""

QUERY_VOICES = ("rms", "awb")
CLOSED_VOICES = ("slt", "rms")
_KEPT_SECONDS = 0.06


@dataclass(frozen=True, slots=True)
class Line:
    """Something to say: text, voice, number of the rendition, split."""

    text: str
    voice: str
    rendition: int
    split: str


def speaker_id(voice: str) -> str:
    """Returns the speaker of a flite voice as rows name it."""
    return f"{SOURCE}:{voice}"


def qa_lines(test: bool, renditions: int, drawn: bool = False) -> Iterator[Line]:
    """Yields questions and answers of the world.

    Training: every trained question in all query voices, `renditions` times over, and every answer as often; five times
    as often when voices are drawn, so that no recording of it is learned by rote.
    Test: every held-out question once per query voice, and two renditions of each answer that training has not.

    Args:
        test: Which of them.
        renditions: Of each voice.
        drawn: Every line by another pseudo-speaker, as in recordings of many people.
    """
    split, first = ("test", 1000) if test else ("train", 0)
    for question in qa_world.questions():
        if question.held_out == test:
            for place, voice in enumerate(QUERY_VOICES):
                for number in range(1 if test else renditions):
                    if drawn:
                        yield Line(question.text, DRAWN_VOICE, first + place * renditions + number, split)
                    else:
                        yield Line(question.text, voice, first + number, split)
    for answer in qa_world.answers():
        for number in range(2 if test else (10 if drawn else 2) * renditions):
            yield Line(answer, DRAWN_VOICE if drawn else ANSWER_VOICE, first + number, split)


def closed_lines(test: bool, count: int) -> Iterator[Line]:
    """Yields every voice's prompts, then the first `count` sentences of the text to speech domain in every voice."""
    split = "test" if test else "train"
    for voice in CLOSED_VOICES:
        for text in closed_sentences.PROMPTS:
            yield Line(text, voice, 0, split)
    kept = [text for text in closed_sentences.sentences() if closed_sentences.held_out(text) == test]
    for text in kept[:count]:
        yield from (Line(text, voice, 0, split) for voice in CLOSED_VOICES)


def spoken_line(line: Line) -> Spoken:
    """Returns a line as flite says it, tempo within 6 % and pitch within 4 % of the voice's own, pauses cut.

    Raises:
        RecordError: SYNTHESIS_FAILED.
    """
    rng = np.random.default_rng(seed_of("rendition", line.text, line.voice, line.rendition))
    sentence = Sentence(line.text, "en", "closed domain")
    if line.voice == DRAWN_VOICE:
        return trimmed(replace(draw(sentence, rng), split=line.split))
    natural = line.rendition == 0
    stretch = 1.0 if natural else float(rng.uniform(0.94, 1.06))
    pitch = VOICES[line.voice] * (1.0 if natural else float(rng.uniform(0.96, 1.04)))
    return trimmed(speak(sentence, line.voice, stretch, pitch, 1.0, line.split))


def trimmed(spoken: Spoken) -> Spoken:
    """Returns an utterance with 60 ms of its pauses at either end: silence costs 42 ids a second to learn."""
    phones = spoken.phones or ()
    voiced = [phone for phone in phones if phone.name != PAUSE]
    if not voiced:
        return spoken
    kept = int(_KEPT_SECONDS * SAMPLE_RATE)
    start, end = max(0, voiced[0].start - kept), min(len(spoken.wave), voiced[-1].end + kept)
    cut = [TimedPhone(p.name, max(p.start, start) - start, min(p.end, end) - start) for p in phones]
    return replace(spoken, wave=spoken.wave[start:end], phones=[phone for phone in cut if phone.end > phone.start])
