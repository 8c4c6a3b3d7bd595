"""Examples of the speaker LM: rows of the table `aqaa`, and utterances with codes as cloning examples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_engine.backends.text_bpe import BpeTokenizer
from data_engine.core.errors import ConfigError, ContractError
from data_engine.loader import ShardDataset
from data_engine.tokens.compact import CompactVocabulary
from data_engine.tokens.layout import interleave_codes
from data_engine.tokens.records import tts_record
from data_engine.tokens.templates import system_prompt
from data_engine.tokens.vocabulary import Ids, SpecialTokens
from data_engine.training.speech.waves import DROP

_AQAA = ("type", "split", "input_ids", "loss_mask", "text_tokenizer_hash")
_SEGMENTS = ("text", "speaker_id", "split", "language", "vq02", "vq06")


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One example: type, the model's ids int32 [n], 1 where the loss counts uint8 [n], and whether it is held out."""

    type: str
    ids: Ids
    mask: npt.NDArray[np.uint8]
    held_out: bool


@dataclass(frozen=True, slots=True, eq=False)
class Coded:
    """An utterance with its audio ids (of the engine), ready to be spoken or to be a prompt."""

    text: str
    speaker: str
    language: str
    audio: Ids
    held_out: bool


def special_tokens(tokenizer: BpeTokenizer) -> SpecialTokens:
    """Returns the special tokens of an opened text tokenizer."""
    return SpecialTokens.from_mapping({name: n for name, n in tokenizer.specials().items() if name != "<unk>"})


def aqaa_examples(
    output: str, types: Sequence[str], tokenizer_hash: str, vocabulary: CompactVocabulary
) -> Iterator[Example]:
    """Yields the examples of the wanted types of an output folder.

    Raises:
        ContractError: They were laid out with another text tokenizer.
    """
    for row in _rows(output, "aqaa", _AQAA):
        if row["text_tokenizer_hash"] != tokenizer_hash:
            raise ContractError(f"'{output}' was made with the text tokenizer {row['text_tokenizer_hash']}, "
                                f"training uses {tokenizer_hash}")  # fmt: skip
        if row["type"] in types:
            mask = np.array(row["loss_mask"], np.uint8)
            yield Example(row["type"], vocabulary.to_model(row["input_ids"]), mask, row["split"] != "train")


def coded_segments(output: str) -> Iterator[Coded]:
    """Yields the utterances of a table `segments` that have text and codes."""
    for row in _rows(output, "segments", _SEGMENTS):
        if row["text"] and row["vq02"] is not None and row["vq06"] is not None:
            yield _coded(row, row["vq02"], row["vq06"])


def coded_corpus(output: Path, codes: Path) -> Iterator[Coded]:
    """Yields the utterances of a part of the corpus whose codes `training.codes` made.

    Args:
        output: Folder of the part, with the table `segments`.
        codes: Its `.npz` file.

    Raises:
        ConfigError: There is no such file.
    """
    if not codes.is_file():
        raise ConfigError(f"there is no '{codes}'; make it with python -m data_engine.training.codes")
    with np.load(codes) as stored:
        columns = {name: stored[name] for name in ("chosen", "first", "groups", "linguistic", "semantic")}
    place = {int(row): number for number, row in enumerate(columns["chosen"])}
    rows = (row for row in _rows(str(output), "segments", (*_SEGMENTS[:4], "decision")) if row["decision"] != DROP)
    for number, row in enumerate(rows):
        if number in place and row["text"]:
            first, groups = (int(columns[name][place[number]]) for name in ("first", "groups"))
            linguistic = columns["linguistic"][2 * first : 2 * (first + groups)]
            yield _coded(row, linguistic, columns["semantic"][3 * first : 3 * (first + groups)])


def cloning_examples(
    utterances: Sequence[Coded], tokenizer: BpeTokenizer, vocabulary: CompactVocabulary, seed: int
) -> Iterator[Example]:
    """Yields one TTS example per utterance that has a prompt: the shortest of four others of its speaker.

    Args:
        utterances: Of one corpus.
        tokenizer: Opened.
        vocabulary: Of the model.
        seed: Of the choice of prompts.
    """
    rng, special = np.random.default_rng(seed), special_tokens(tokenizer)
    by_speaker: dict[str, list[int]] = defaultdict(list)
    for number, spoken in enumerate(utterances):
        by_speaker[spoken.speaker].append(number)
    for number, spoken in enumerate(utterances):
        drawn = rng.choice(by_speaker[spoken.speaker], 4)
        others = [utterances[int(n)] for n in drawn if n != number and utterances[int(n)].audio.size]
        if others and spoken.audio.size:
            prompt = min(others, key=lambda other: other.audio.size)
            system = system_prompt("clone", "zh" if spoken.language == "zh" else "en")
            record = tts_record(
                spoken.text.strip(), spoken.audio, prompt.text.strip(), prompt.audio, tokenizer.encode, special,
                system=system,
            )  # fmt: skip
            yield Example("TTS", vocabulary.to_model(record.input_ids), record.loss_mask, spoken.held_out)


def _coded(row: Mapping[str, Any], vq02: Any, vq06: Any) -> Coded:
    audio = interleave_codes(vq02, vq06).ids
    return Coded(row["text"], row["speaker_id"] or "", row["language"] or "en", audio, row["split"] != "train")


def _rows(output: str, table: str, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    yield from ShardDataset(output, table, columns=list(columns))
