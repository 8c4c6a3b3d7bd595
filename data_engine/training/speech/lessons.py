"""What teachers say: a lesson is a shard of a part of the corpus and depends on its settings and its number alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from data_engine.backends.timbre import analyse, voice_exemplars
from data_engine.core.config import Settings, speed_knob
from data_engine.core.errors import RecordError
from data_engine.core.ids import seed_of
from data_engine.core.signature import digest
from data_engine.training.speech import closed_teacher, teacher_espeak, teacher_flite, texts
from data_engine.training.speech.closed_teacher import Line
from data_engine.training.speech.real_speech import heard, manifest, speechocean
from data_engine.training.speech.spoken import SAMPLE_RATE, Spoken
from data_engine.training.speech.texts import Sentence

Drawn = Literal["flite", "espeak", "espeak_zh", "rendered", "lively"]
Closed = Literal["qa", "qa_voices", "test_qa", "closed", "test_closed"]
Kind = Drawn | Closed | Literal["test_teachers", "test_zh"]
_VOICE_SECONDS, _VOICES = 12.0, 60
_TEACHER_TEST = 40
_RATES = {"rendered": (110, 250), "lively": (130, 340)}
"""Words per minute of speech in voices moved to real ones; `lively` is as fast as the engine's fastest happy speech."""
_LONGEST_SECONDS = 16.0
_SENTENCES_APART = 400
"""Sentences between the first ones of two lessons of a drawn part."""


class PartSettings(Settings):
    """A part of the corpus: who speaks, into how many shards, how many utterances each.

    Attributes:
        kind: Who speaks; `qa` and `closed` are the speaker LM's closed domains, `qa_voices` is `qa` with every
            line by another pseudo-speaker.
        shards: Shards of the part.
        utterances: Utterances of each; of `closed` sentences of each, in every voice; `qa` has all of its world.
        renditions: How often each voice of `qa` asks each question.
    """

    kind: Kind
    shards: int = 1
    utterances: int = 400
    renditions: int = 2


class LessonSettings(Settings):
    """What the lessons of a part depend on.

    Attributes:
        part: The part.
        seed: Seed of every draw.
        lists: Folder of FastSpeech 2's `preprocessed_data`.
        speechocean: Repository folder of speechocean762.
        recordings: Folder with `manifest.jsonl`.
    """

    part: PartSettings
    seed: int = 1
    # Where texts and recordings lie changes nothing; what they say is in `texts_digest`.
    lists: Path = speed_knob(...)
    speechocean: Path = speed_knob(...)
    recordings: Path = speed_knob(...)


@dataclass(frozen=True, slots=True)
class Unspoken:
    """What a teacher could not say, and why: a code of reject.v1 and a sentence."""

    text: str
    code: str
    detail: str


Said = Spoken | Unspoken


def texts_digest(config: LessonSettings) -> str:
    """Returns a digest of the texts that the lessons are drawn from, by the files' contents."""
    if config.part.kind in get_args(Closed):
        return digest([])
    ocean = [
        config.speechocean / split / name for split in ("train", "test") for name in ("spk2age", "text", "utt2spk")
    ]
    lists = [config.lists / name for name in ("LJSpeech/train.txt", "LJSpeech/val.txt", "AISHELL3/val.txt")]
    files = [*lists, config.recordings / "manifest.jsonl", *ocean]
    return digest([hashlib.sha256(path.read_bytes()).hexdigest() for path in files])


def english(config: LessonSettings) -> list[Sentence]:
    """Returns the English sentences that may train: read ones, the script bank thrice over, numbers."""
    read = list(texts.listed(config.lists / "LJSpeech" / "train.txt", "en", "LJ Speech", (3, 20)))
    heard_in_tests = _transcripts(config.recordings, config.speechocean)
    kept = texts.without([*read, *texts.bank("en", test=False) * 3], heard_in_tests)
    return kept + texts.numbers(len(kept) // 12, config.seed)


def mandarin(config: LessonSettings) -> list[Sentence]:
    """Returns the Mandarin sentences that may train."""
    pinyin = list(texts.listed(config.lists / "AISHELL3" / "val.txt", "zh", "AISHELL-3", (3, 30)))
    return texts.bank("zh", test=False) + pinyin[20:]


@cache
def _transcripts(recordings: Path, ocean: Path) -> frozenset[str]:
    """Returns what the test recordings say, so that no teacher trains on it."""
    spoken = heard([*manifest(recordings, "test"), *speechocean(ocean, "test")])
    return frozenset(texts.plain(utterance.text) for utterance in spoken)


@cache
def target_voices(recordings: Path, ocean: Path, seed: int) -> tuple[teacher_espeak.TargetVoice, ...]:
    """Returns real voices of the training speakers to move espeak-ng to, 12 s of speech each."""
    waves: dict[tuple[str, str], list[np.ndarray]] = {}
    for spoken in heard([*manifest(recordings, "train"), *speechocean(ocean, "train")]):
        waves.setdefault((f"{spoken.source}:{spoken.speaker}", spoken.licence), []).append(spoken.wave)
    limit = int(_VOICE_SECONDS * SAMPLE_RATE)
    voices = {key: np.concatenate(parts)[:limit] for key, parts in waves.items() if sum(map(len, parts)) >= limit}
    chosen = sorted(voices, key=lambda key: seed_of(seed, *key))[:_VOICES]
    exemplars = {key: voice_exemplars(analyse(voices[key])) for key in chosen}
    return tuple(teacher_espeak.TargetVoice(*key, found) for key, found in exemplars.items() if found is not None)


def lesson(config: LessonSettings, number: int) -> Iterator[Said]:
    """Yields what is said in a lesson, and what could not be said, in order.

    Args:
        config: Settings of the part.
        number: Number of the lesson, from 0.
    """
    kind = config.part.kind
    match kind:
        case "test_teachers" | "test_zh":
            yield from _teacher_test(config, kind == "test_zh")
        case "flite" | "espeak" | "espeak_zh" | "rendered" | "lively":
            yield from _drawn(config, kind, number)
        case "qa" | "qa_voices" | "test_qa" | "closed" | "test_closed":
            lines = islice(_lines(config.part, kind), number, None, config.part.shards)
            yield from (_said(closed_teacher.spoken_line, line) for line in lines)


def _said(teacher: Callable[..., Spoken], what: Sentence | Line, *how: Any) -> Said:
    try:
        return teacher(what, *how)
    except RecordError as error:
        return Unspoken(what.text, error.code, error.detail)


def _lines(part: PartSettings, kind: Closed) -> Iterator[Line]:
    test = kind.startswith("test_")
    if "qa" in kind:
        return closed_teacher.qa_lines(test, part.renditions, kind == "qa_voices")
    return closed_teacher.closed_lines(test, part.utterances * part.shards)


def _drawn(config: LessonSettings, kind: Drawn, number: int) -> Iterator[Said]:
    """Yields drawn utterances until there are enough, or as many that could not be spoken."""
    teacher, sentences = _teacher_and_sentences(config, kind)
    rng = np.random.default_rng(seed_of(config.seed, kind, number))
    order = np.random.default_rng(seed_of(config.seed, kind)).permutation(len(sentences))
    position, wanted, patience = number * _SENTENCES_APART, config.part.utterances, config.part.utterances
    while wanted and patience:
        said = _said(teacher, sentences[order[position % len(order)]], rng)
        if isinstance(said, Spoken) and said.seconds > _LONGEST_SECONDS:
            said = Unspoken(said.text, "TOO_LONG", f"{said.seconds:.1f} s, more than {_LONGEST_SECONDS:g} s")
        position += 1
        wanted -= isinstance(said, Spoken)
        patience -= isinstance(said, Unspoken)
        yield said


def _teacher_and_sentences(config: LessonSettings, kind: Drawn) -> tuple[Callable[..., Spoken], list[Sentence]]:
    if kind in _RATES:
        voices = target_voices(config.recordings, config.speechocean, config.seed)
        renderer = teacher_espeak.VoiceRenderer(voices, _RATES[kind])
        return renderer.draw, english(config) + mandarin(config)
    if kind == "espeak_zh":
        return teacher_espeak.draw, mandarin(config)
    return teacher_flite.draw if kind == "flite" else teacher_espeak.draw, english(config)


def _teacher_test(config: LessonSettings, chinese: bool) -> Iterator[Said]:
    """Yields held-out sentences: read ones and script bank ones, in natural flite and espeak-ng voices."""
    if chinese:
        yield from (_said(teacher_espeak.natural, s, n) for n, s in enumerate(texts.bank("zh", test=True)))
        return
    read = list(texts.listed(config.lists / "LJSpeech" / "val.txt", "en", "LJ Speech", (4, 17)))
    sentences = read[:_TEACHER_TEST] + texts.bank("en", test=True)[:_TEACHER_TEST]
    for teacher in (teacher_flite.natural, teacher_espeak.natural):
        yield from (_said(teacher, sentence, number) for number, sentence in enumerate(sentences))
    voices = target_voices(config.recordings, config.speechocean, config.seed)
    renderer = teacher_espeak.VoiceRenderer(voices)
    yield from (_said(renderer.draw, s, np.random.default_rng(n), "test") for n, s in enumerate(sentences))
