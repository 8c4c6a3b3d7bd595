"""Examples of the closed domains: spoken questions with their answers, and sentences to speak.

Query, answer and prompt are told apart by what they say: the world knows every question and every answer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from data_engine.backends.text_bpe import BpeTokenizer
from data_engine.core.errors import ConfigError
from data_engine.tokens.compact import CompactVocabulary
from data_engine.tokens.interleave import Interleaving
from data_engine.tokens.records import TokenRecord, aqaa_record, aqta_record, aqtaa_record, tqta_record, tts_record
from data_engine.tokens.templates import Turn, system_prompt
from data_engine.tokens.vocabulary import SpecialTokens
from data_engine.training.speaker_examples import Coded, Example, special_tokens
from data_engine.training.speech.closed_sentences import PROMPTS
from data_engine.training.speech.qa_world import Question, question_of

AnswerTask = Literal["AQTAA", "AQAA", "AQTA", "TQTA"]
ANSWER_TASKS: tuple[AnswerTask, ...] = ("AQTAA", "AQAA", "AQTA", "TQTA")
_RENDITIONS = 3


def spoken_questions(utterances: Sequence[Coded]) -> list[tuple[Coded, Question]]:
    """Returns the utterances that ask a question of the world, each with it."""
    found = ((spoken, question_of(spoken.text)) for spoken in utterances if spoken.audio.size)
    return [(spoken, question) for spoken, question in found if question is not None]


def spoken_answers(utterances: Sequence[Coded]) -> dict[str, list[Coded]]:
    """Returns the spoken renditions of each answer."""
    found: dict[str, list[Coded]] = defaultdict(list)
    for spoken in utterances:
        if spoken.audio.size and question_of(spoken.text) is None:
            found[spoken.text].append(spoken)
    return dict(found)


def answer_record(
    kind: AnswerTask, query: Coded, answer: Coded, tokenizer: BpeTokenizer, settings: Interleaving
) -> TokenRecord:
    """Returns one question with one answer as a record of a type; AQTAA and AQAA of one pair hold the same audio."""
    special: SpecialTokens = special_tokens(tokenizer)
    heard, written = [Turn("user", query.text, query.audio)], [Turn("user", query.text)]
    if kind == "AQTAA":
        return aqtaa_record(heard, [(answer.text, answer.audio)], tokenizer.encode, special, settings)
    if kind == "AQAA":
        return aqaa_record(heard, [answer.audio], tokenizer.encode, special, settings)
    if kind == "AQTA":
        return aqta_record(heard, answer.text, tokenizer.encode, special)
    return tqta_record(written, answer.text, tokenizer.encode, special)


def answer_examples(
    utterances: Sequence[Coded], types: Sequence[str], tokenizer: BpeTokenizer, vocabulary: CompactVocabulary,
    settings: Interleaving, seed: int,
) -> Iterator[Example]:  # fmt: skip
    """Yields, per spoken question and wanted type, an example with each of three drawn renditions of its answer.

    The draw does not depend on type or interleaving, so that trainings that differ in them see the same pairs.

    Args:
        utterances: Questions and answers of one part.
        types: Wanted tasks; those that are no answers are passed over.
        tokenizer: Opened.
        vocabulary: Of the model.
        settings: How text and audio of an AQTAA answer alternate.
        seed: Of the draw.

    Raises:
        ConfigError: An answer is spoken nowhere in the part.
    """
    renditions, rng = spoken_answers(utterances), np.random.default_rng(seed)
    for query, question in spoken_questions(utterances):
        if question.answer not in renditions:
            raise ConfigError(f"nobody says '{question.answer}', the answer to '{question.text}', in this part")
        said = renditions[question.answer]
        drawn = rng.permutation(len(said))[:_RENDITIONS]
        for kind in (kind for kind in ANSWER_TASKS if kind in types):
            # A written answer is the same in every rendition.
            for number in drawn if kind in ("AQTAA", "AQAA") else drawn[:1]:
                record = answer_record(kind, query, said[int(number)], tokenizer, settings)
                yield Example(kind, vocabulary.to_model(record.input_ids), record.loss_mask, query.held_out)


def voice_prompts(utterances: Sequence[Coded]) -> dict[str, list[Coded]]:
    """Returns the prompts that each speaker speaks, in the order of `PROMPTS`."""
    found: dict[str, list[Coded]] = defaultdict(list)
    for spoken in sorted((one for one in utterances if one.text in PROMPTS), key=lambda one: PROMPTS.index(one.text)):
        found[spoken.speaker].append(spoken)
    return dict(found)


def closed_record(spoken: Coded, prompt: Coded, tokenizer: BpeTokenizer) -> TokenRecord:
    """Returns a sentence of the closed domain after the prompt of its voice."""
    return tts_record(
        spoken.text, spoken.audio, prompt.text, prompt.audio, tokenizer.encode, special_tokens(tokenizer),
        system=system_prompt("clone", "en"),
    )  # fmt: skip


def closed_examples(
    utterances: Sequence[Coded], tokenizer: BpeTokenizer, vocabulary: CompactVocabulary, seed: int
) -> Iterator[Example]:
    """Yields one TTS example per sentence, after a drawn one of its voice's prompts.

    Args:
        utterances: Prompts and sentences of one part.
        tokenizer: Opened.
        vocabulary: Of the model.
        seed: Of the choice of prompts.
    """
    prompts, rng = voice_prompts(utterances), np.random.default_rng(seed)
    for spoken in utterances:
        if spoken.audio.size and spoken.text not in PROMPTS and spoken.speaker in prompts:
            choices = prompts[spoken.speaker]
            record = closed_record(spoken, choices[rng.integers(len(choices))], tokenizer)
            yield Example("TTS", vocabulary.to_model(record.input_ids), record.loss_mask, spoken.held_out)
