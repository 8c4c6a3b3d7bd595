"""The id space of the Step-Audio family: text ids, two audio codebooks, special tokens by name.

Source: Step-Audio (arXiv 2502.11946) sec. 3.1 for the codebooks; ids as in its Apache-2.0 inference code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from data_engine.core.errors import ConfigError, ContractError

TEXT_SIZE = 65536
LINGUISTIC_CODES = 1024  # "vq02": 16.67 Hz, what is said
SEMANTIC_CODES = 4096  # "vq06": 25 Hz, how it sounds
AUDIO_OFFSET = TEXT_SIZE
AUDIO_SIZE = LINGUISTIC_CODES + SEMANTIC_CODES
SEMANTIC_OFFSET = AUDIO_OFFSET + LINGUISTIC_CODES
VOCABULARY_SIZE = AUDIO_OFFSET + AUDIO_SIZE

Ids = npt.NDArray[np.int32]
Codes = npt.NDArray[np.uint16]
Mask = npt.NDArray[np.bool_]

TOKEN_STRINGS: dict[str, str] = {
    "bos": "<s>",
    "eos": "</s>",
    "pad": "<pad>",
    "begin_of_turn": "<|BOT|>",
    "end_of_turn": "<|EOT|>",
    "audio_start": "<audio_start>",
    "audio_end": "<audio_end>",
    "call_start": "<|CALL_START|>",
    "call_end": "<|CALL_END|>",
    "think_start": "<|THINK_START|>",
    "think_end": "<|THINK_END|>",
    "mask": "<|MASK_1e69f|>",
    "unmask": "<|UNMASK_1e69f|>",
}
_NAMES = {string: name for name, string in TOKEN_STRINGS.items()}
PUBLISHED_IDS = {"bos": 1, "end_of_turn": 3, "begin_of_turn": 4}


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of the special tokens, looked up by field name (`audio_start`) or string (`<audio_start>`).

    Only three ids are public: bos 1, end_of_turn 3, begin_of_turn 4. Every other id has to come from the
    tokenizer in use, above all those of `<audio_start>` and `<audio_end>`, which Step-Audio-AQAA
    (arXiv 2506.08967) names without numbers; a default could be silently wrong.

    Attributes:
        ids: Field name -> id, published defaults included.
    """

    ids: dict[str, int] = field(default_factory=lambda: dict(PUBLISHED_IDS), hash=False)

    def __post_init__(self) -> None:
        _check_special_ids(self.ids)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, int]) -> SpecialTokens:
        """Adds the ids of `mapping` (keys: field names or token strings) to the published ones.

        Raises:
            ConfigError: An id is no integer in 0..65535, or two tokens share one id.
        """
        return cls({**PUBLISHED_IDS, **{_NAMES.get(name, name): number for name, number in mapping.items()}})

    def get(self, name: str) -> int | None:
        """Returns the id of `name`, or None when this tokenizer has none configured."""
        return self.ids.get(_NAMES.get(name, name))

    def __getitem__(self, name: str) -> int:
        """Returns the id of `name`.

        Raises:
            ConfigError: No id is configured; guessing one would corrupt every record.
        """
        number = self.get(name)
        if number is None:
            key = _NAMES.get(name, name)
            string = TOKEN_STRINGS.get(key, key)
            raise ConfigError(
                f"special token {string!r} has no id. Look it up in the tokenizer and set it as {key!r} in "
                f"the special-token mapping (SpecialTokens.from_mapping); set now: {sorted(self.ids)}"
            )
        return number

    @property
    def bos(self) -> int:
        """Id that opens every TTS and edit prompt."""
        return self["bos"]

    @property
    def begin_of_turn(self) -> int:
        """Id of `<|BOT|>`."""
        return self["begin_of_turn"]

    @property
    def end_of_turn(self) -> int:
        """Id of `<|EOT|>`."""
        return self["end_of_turn"]


def _check_special_ids(ids: Mapping[str, int]) -> None:
    owners: dict[int, str] = {}
    for name, number in ids.items():
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < TEXT_SIZE:
            raise ConfigError(f"special token {name!r}: id {number!r} is no integer in 0..{TEXT_SIZE - 1}")
        other = owners.setdefault(number, name)
        # The id that ends TTS generation is not published and may well be <|EOT|> itself.
        if other != name and {other, name} != {"eos", "end_of_turn"}:
            raise ConfigError(f"special tokens {other!r} and {name!r} share id {number}; give each its own id")


def as_ids(values: Any, what: str = "ids", stop: int = VOCABULARY_SIZE, start: int = 0) -> Ids:
    """Returns `values` as a 1-D int32 array after a range check.

    Args:
        values: Array or sequence of integers.
        what: Name used in the error.
        stop: First id past the allowed range.
        start: First allowed id.

    Raises:
        ContractError: Not 1-D, not integers, or a value outside start..stop-1 (its position is named).
    """
    return as_codes(values, what, stop, start).astype(np.int32)


def as_codes(values: Any, what: str, stop: int, start: int = 0) -> npt.NDArray[Any]:
    """Returns `values` as a 1-D integer array of its own type after a range check; see `as_ids`."""
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ContractError(f"{what}: need a 1-D integer array, got shape {array.shape} of {array.dtype}")
    below = start > 0 or array.dtype.kind == "i"  # unsigned codes cannot be negative: one pass less
    if array.size and (array.max() >= stop or (below and array.min() < start)):
        position = int(np.flatnonzero((array < start) | (array >= stop))[0])
        raise ContractError(
            f"{what}: value {array[position]} at position {position} is outside {start}..{stop - 1}; "
            "check that the tokenizer and this vocabulary are the same"
        )
    return array


def linguistic_ids(codes: Any) -> Ids:
    """Maps vq02 codes 0..1023 to ids 65536..66559 (Step-Audio, arXiv 2502.11946, sec. 3.1).

    Raises:
        ContractError: A code is out of range.
    """
    return as_ids(codes, "vq02 codes", LINGUISTIC_CODES) + np.int32(AUDIO_OFFSET)


def semantic_ids(codes: Any) -> Ids:
    """Maps vq06 codes 0..4095 to ids 66560..70655 (Step-Audio, arXiv 2502.11946, sec. 3.1).

    Raises:
        ContractError: A code is out of range.
    """
    return as_ids(codes, "vq06 codes", SEMANTIC_CODES) + np.int32(SEMANTIC_OFFSET)


def codes_from_ids(ids: Any) -> Codes:
    """Returns each audio id's code inside its own codebook, order kept; `is_linguistic` says which codebook.

    Raises:
        ContractError: An id is no audio id.
    """
    audio = as_ids(ids, "audio ids", VOCABULARY_SIZE, AUDIO_OFFSET)
    return np.where(is_linguistic(audio), audio - AUDIO_OFFSET, audio - SEMANTIC_OFFSET).astype(np.uint16)


def is_audio(ids: npt.NDArray[Any]) -> Mask:
    """Marks ids of either codebook, 65536..70655."""
    return np.asarray((ids >= AUDIO_OFFSET) & (ids < VOCABULARY_SIZE))


def is_linguistic(ids: npt.NDArray[Any]) -> Mask:
    """Marks vq02 ids, 65536..66559."""
    return np.asarray((ids >= AUDIO_OFFSET) & (ids < SEMANTIC_OFFSET))


def is_semantic(ids: npt.NDArray[Any]) -> Mask:
    """Marks vq06 ids, 66560..70655."""
    return np.asarray((ids >= SEMANTIC_OFFSET) & (ids < VOCABULARY_SIZE))
