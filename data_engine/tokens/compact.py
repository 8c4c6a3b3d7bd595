"""A small model's own ids: the text tokenizer's few thousand, then the 5,120 audio ids, without the gap between.

The id space of the Step-Audio family keeps 65,536 places for text. A tokenizer of 4,384 ids leaves 61,152 of them
empty, and at 256 dimensions each model would carry 15.7 million numbers that are never trained, twice its layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from data_engine.core.errors import ConfigError, ContractError
from data_engine.tokens.vocabulary import AUDIO_OFFSET, AUDIO_SIZE, TEXT_SIZE, Ids, as_ids


@dataclass(frozen=True, slots=True)
class CompactVocabulary:
    """Text ids stay as they are; audio id 65536 + n becomes text_size + n. `<audio_n>` strings stay the same.

    Attributes:
        text_size: Ids of text and special tokens; 65536 is the full space, where nothing moves.
    """

    text_size: int

    def __post_init__(self) -> None:
        if not 0 < self.text_size <= TEXT_SIZE:
            raise ConfigError(f"text_size={self.text_size} is outside 1..{TEXT_SIZE}")

    @property
    def size(self) -> int:
        """Ids of the model: rows of its embedding."""
        return self.text_size + AUDIO_SIZE

    def to_model(self, ids: Any) -> Ids:
        """Returns the model's ids of the engine's, int32 [n].

        Raises:
            ContractError: A text id is not of this tokenizer.
        """
        engine = as_ids(ids)
        audio = engine >= AUDIO_OFFSET
        if np.any(~audio & (engine >= self.text_size)):
            raise ContractError(f"text ids reach {engine[~audio].max()}, this vocabulary has {self.text_size}")
        return np.where(audio, engine - np.int32(AUDIO_OFFSET - self.text_size), engine)

    def from_model(self, ids: Any) -> Ids:
        """Returns the engine's ids of the model's, int32 [n]; the inverse of `to_model`.

        Raises:
            ContractError: An id is not of this vocabulary.
        """
        model = as_ids(ids, "model ids", self.size)
        return np.where(model >= self.text_size, model + np.int32(AUDIO_OFFSET - self.text_size), model)
