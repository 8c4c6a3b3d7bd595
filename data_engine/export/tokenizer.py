"""The tokenizer as other people's libraries load it: text ids, special tokens and `<audio_N>` in one vocabulary.

Every string of an export is written by `spell` and read back with this very tokenizer before it is published, so a
library that starts from strings trains on the ids the engine laid out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_engine.backends.protocols import TextTokenizer
from data_engine.backends.text_bpe import TOKENIZER
from data_engine.core.config import BackendChoice
from data_engine.core.errors import ConfigError, ContractError, MissingExtraError
from data_engine.tokens.layout import to_string
from data_engine.tokens.vocabulary import AUDIO_OFFSET, AUDIO_SIZE, TOKEN_STRINGS, VOCABULARY_SIZE, Ids, is_audio


def read_document(choice: BackendChoice) -> dict[str, Any]:
    """Returns the `tokenizers` JSON of the text tokenizer that a configuration chose.

    Raises:
        ConfigError: It is not in that format, such as a sentencepiece model.
    """
    path = Path(choice.options.get("path") or TOKENIZER)
    file = path / "tokenizer.json" if path.is_dir() else path
    if choice.name != "bpe" or file.suffix != ".json" or not file.is_file():
        raise ConfigError(
            f"the text tokenizer '{choice.name}' ({path}) has no tokenizer.json and cannot be exported; convert it "
            "with transformers and name the folder in the option 'path'"
        )
    return dict(json.loads(file.read_text(encoding="utf-8")))


def special_strings(specials: Mapping[str, int]) -> dict[int, str]:
    """Returns id -> string of the special tokens; keys may be names (`audio_start`) or strings (`<audio_start>`)."""
    return {number: TOKEN_STRINGS.get(name, name) for name, number in specials.items()}


def complete_document(document: Mapping[str, Any], specials: Mapping[str, int]) -> dict[str, Any]:
    """Returns a `tokenizers` document with special and audio tokens at their ids, which adds nothing of its own.

    Ids that no token has get a placeholder, so the vocabulary has exactly 70,656 entries and `len(tokenizer)` is the
    size of a model's embedding.

    Args:
        document: JSON of the text tokenizer.
        specials: Special tokens by name or string.

    Raises:
        ContractError: The text tokenizer uses an id that belongs to another token.
    """
    audio = {AUDIO_OFFSET + number: f"<audio_{number}>" for number in range(AUDIO_SIZE)}
    special = special_strings(specials)
    vocabulary: dict[str, int] = dict(document["model"]["vocab"])
    for number, string in (special | audio).items():
        if vocabulary.setdefault(string, number) != number:
            raise ContractError(f"the text tokenizer has {string!r} at id {vocabulary[string]}, it should be {number}")
    for token in document.get("added_tokens") or ():
        vocabulary.setdefault(token["content"], token["id"])
    taken = {number: string for string, number in vocabulary.items()}
    if len(taken) < len(vocabulary) or max(taken) >= VOCABULARY_SIZE:
        raise ContractError("the text tokenizer gives one id to two tokens, or uses ids above the audio codebooks")
    vocabulary |= {f"<unused_{number}>": number for number in range(VOCABULARY_SIZE) if number not in taken}
    added = {token["id"]: token for token in document.get("added_tokens") or ()}
    added |= {number: _added(number, string, special=True) for number, string in special.items()}
    added |= {number: _added(number, string, special=False) for number, string in audio.items()}
    model = {**document["model"], "vocab": dict(sorted(vocabulary.items(), key=lambda item: item[1]))}
    ordered = [added[number] for number in sorted(added)]
    return {**document, "added_tokens": ordered, "post_processor": None, "model": model}


def _added(number: int, string: str, special: bool) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": string, **flags, "special": special}


def tokenizer_files(document: Mapping[str, Any], specials: Mapping[str, int]) -> dict[str, bytes]:
    """Returns the files `transformers.AutoTokenizer.from_pretrained` loads, by name.

    The end of turn is the end of sequence, since every answer ends with it: a trainer that appends the latter where it
    is missing changes nothing.
    """
    names = set(special_strings(specials).values())
    roles = {"bos_token": "bos", "eos_token": "end_of_turn", "pad_token": "pad"}
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    config |= {role: TOKEN_STRINGS[name] for role, name in roles.items() if TOKEN_STRINGS[name] in names}
    return {
        "tokenizer.json": json.dumps(document, ensure_ascii=False).encode(),
        "tokenizer_config.json": (json.dumps(config, indent=2) + "\n").encode(),
    }


class Speller:
    """Writes ids as strings and proves that the exported tokenizer reads the same ids back.

    Args:
        tokenizer: Opened text tokenizer that made the ids.
        document: Complete document of the exported tokenizer.

    Raises:
        MissingExtraError: The library `tokenizers` is not installed.
    """

    def __init__(self, tokenizer: TextTokenizer, document: Mapping[str, Any]) -> None:
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise MissingExtraError("tokenizers", "llm", "checking exported strings") from error
        self._exported = Tokenizer.from_str(json.dumps(document))
        self._decode = tokenizer.decode
        self._strings = special_strings(tokenizer.specials())

    def spell(self, ids: Ids) -> str:
        """Returns the string form of ids: text, special tokens by name, audio as `<audio_N>`."""
        kind = np.where(is_audio(ids), 2, np.isin(ids, list(self._strings)).astype(int))
        cuts = np.flatnonzero(np.diff(kind)) + 1
        runs = zip(np.split(ids, cuts), np.split(kind, cuts), strict=True)
        return "".join(self._run(run, int(kinds[0])) for run, kinds in runs if run.size)

    def _run(self, run: Ids, kind: int) -> str:
        if kind == 2:
            return to_string(run)
        return "".join(self._strings[i] for i in run.tolist()) if kind else self._decode(run.tolist())

    def reads_back(self, text: str, ids: Ids | Sequence[int]) -> bool:
        """Tells whether the exported tokenizer turns `text` into exactly `ids`."""
        return bool(self._exported.encode(text, add_special_tokens=False).ids == list(ids))
