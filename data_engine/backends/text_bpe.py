"""Role `text_tokenizer`: a tokenizer file on disk, the shipped byte-level BPE or a model family's own."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_engine.core.errors import ConfigError, MissingExtraError
from data_engine.tokens.vocabulary import TOKEN_STRINGS

TOKENIZER = Path(__file__).parent.parent / "assets" / "text_bpe" / "tokenizer.json"

_FILES = ("tokenizer.json", "tokenizer.model")
_AUDIO = r"<audio_\d+>"
_PURPOSE = "the text tokenizer"


@dataclass(frozen=True, slots=True)
class Encoding:
    """An opened tokenizer file.

    Attributes:
        encode: Text -> ids, nothing added around them.
        decode: Ids -> text.
        id_of: Token -> id, None when the vocabulary lacks it.
        added: Special tokens the file itself declares.
    """

    encode: Callable[[str], list[int]]
    decode: Callable[[list[int]], str]
    id_of: Callable[[str], int | None]
    added: tuple[str, ...] = ()


class BpeTokenizer:
    """Text ids and special tokens of a tokenizer file.

    Args:
        path: `tokenizer.json` (Hugging Face), `tokenizer.model` (sentencepiece), or a folder with one of them;
            the shipped one when not given.
        special_tokens: Ids of special tokens the file does not name as the engine does, by token (`<audio_start>`)
            or by field of `tokens.vocabulary.TOKEN_STRINGS` (`audio_start`).
    """

    def __init__(self, path: str | None = None, special_tokens: Mapping[str, int] | None = None) -> None:
        self._path = Path(path) if path else TOKENIZER
        self._overrides = {TOKEN_STRINGS.get(name, name): number for name, number in (special_tokens or {}).items()}
        self._encoding: Encoding | None = None
        self._specials: dict[str, int] = {}
        self._special = re.compile(r"(?!)")

    @property
    def revision(self) -> str:
        """SHA-256 of the tokenizer file.

        Raises:
            ConfigError: There is no such file.
        """
        return hashlib.sha256(self._file().read_bytes()).hexdigest()

    def open(self) -> None:
        """Loads the vocabulary.

        Raises:
            ConfigError: The file is missing or not a tokenizer.
            MissingExtraError: The library that reads it is not installed.
        """
        file = self._file()
        self._encoding = _load_sentencepiece(file) if file.suffix == ".model" else _load_json(file)
        found = {token: self._encoding.id_of(token) for token in (*TOKEN_STRINGS.values(), "<unk>")}
        self._specials = {token: number for token, number in found.items() if number is not None} | self._overrides
        self._special = special_pattern({*self._specials, *self._encoding.added})

    def close(self) -> None:
        """Frees the vocabulary."""
        self._encoding = None

    def encode(self, text: str) -> list[int]:
        """Returns text ids; a special token spelled out in the text is text.

        The text is cut inside each of them, so that no part holds a whole one.
        """
        cuts = [match.start() + 1 for match in self._special.finditer(text)]
        encoding = self._opened()
        if not cuts:
            return encoding.encode(text)
        parts = (text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True))
        return [number for part in parts for number in encoding.encode(part)]

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of text ids; special tokens come out as they are spelled."""
        return self._opened().decode(list(ids))

    def specials(self) -> Mapping[str, int]:
        """Returns the id of each special token of the engine that this tokenizer has, by token."""
        self._opened()
        return dict(self._specials)

    def _opened(self) -> Encoding:
        if self._encoding is None:
            raise ConfigError("the text tokenizer is not open; call open() first")
        return self._encoding

    def _file(self) -> Path:
        candidates = [self._path / name for name in _FILES] if self._path.is_dir() else [self._path]
        for file in candidates:
            if file.is_file():
                return file
        raise ConfigError(
            f"no tokenizer at '{self._path}': give the option 'path' a tokenizer.json, a tokenizer.model "
            "or a folder with one of them"
        )


def special_pattern(tokens: Iterable[str]) -> re.Pattern[str]:
    """Returns a pattern that finds the start of every special token in a text, overlapping ones too.

    Args:
        tokens: Special tokens; the audio tokens `<audio_N>` are always among them.
    """
    named = [re.escape(token) for token in sorted(tokens) if len(token) > 1 and not re.fullmatch(_AUDIO, token)]
    return re.compile(f"(?={'|'.join([_AUDIO, *named])})")


def _load_json(file: Path) -> Encoding:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingExtraError("tokenizers", "llm", _PURPOSE) from error
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing narrower
        raise ConfigError(f"'{file}' is not a tokenizer.json: {error}") from error
    added = tuple(token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special)
    return Encoding(
        encode=lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids),
        decode=lambda ids: str(tokenizer.decode(ids, skip_special_tokens=False)),
        id_of=tokenizer.token_to_id,
        added=added,
    )


def _load_sentencepiece(file: Path) -> Encoding:
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError as error:
        raise MissingExtraError("sentencepiece", "sentencepiece", f"{_PURPOSE} '{file.name}'") from error
    try:
        model = SentencePieceProcessor(model_file=str(file))
    except (OSError, RuntimeError) as error:
        raise ConfigError(f"'{file}' is not a sentencepiece model: {error}") from error
    pieces = {model.id_to_piece(number): number for number in range(model.get_piece_size())}
    special = (piece for piece, number in pieces.items() if model.is_control(number) or model.is_unknown(number))
    return Encoding(model.encode, model.decode, pieces.get, tuple(special))
