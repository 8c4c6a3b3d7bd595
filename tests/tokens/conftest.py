from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from data_engine.tokens.vocabulary import SpecialTokens


@pytest.fixture(scope="session")
def special() -> SpecialTokens:
    return SpecialTokens.from_mapping({"<audio_start>": 10, "<audio_end>": 11, "pad": 12})


@pytest.fixture(scope="session")
def encode() -> Callable[[str], Sequence[int]]:
    """A tokenizer like sentencepiece: one id per character after a word-start mark (id 7)."""
    return lambda text: [7, *(ord(character) + 100 for character in text)] if text else []
