"""What is asked of a language model and what it answers, the same for a server and for vLLM in the process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from data_engine.core.errors import ConfigError, RecordError

Prompt = str | Sequence[int]
"""Text, in which `<audio_N>` and special tokens are read as tokens, or token ids."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn.

    Attributes:
        temperature: 0 takes the likeliest token.
        top_p: Share of probability that is drawn from.
        max_tokens: An answer is cut there.
    """

    temperature: float = 0.8
    top_p: float = 0.95
    max_tokens: int = 4096

    def __post_init__(self) -> None:
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.max_tokens < 1:
            raise ConfigError(f"llm back end 'vllm': sampling out of range: {self}")


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """Messages, the JSON schema of the answer, and the seed it is drawn with."""

    messages: Sequence[Mapping[str, str]]
    schema: Mapping[str, Any]
    seed: int


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model went on with; `token_ids` without the prompt."""

    text: str
    token_ids: tuple[int, ...]


class LanguageModel(Protocol):
    """A served or loaded model."""

    def open(self) -> None:
        """Connects or loads."""
        ...

    def close(self) -> None:
        """Cancels what is in flight and frees everything."""
        ...

    def chat(self, requests: Sequence[ChatRequest]) -> list[str | RecordError]:
        """Returns the text of each answer, or why there is none."""
        ...

    def complete(
        self, prompts: Sequence[Prompt], seeds: Sequence[int], stop_token_ids: Sequence[int] = ()
    ) -> list[Completion | RecordError]:
        """Returns how the model goes on after each prompt, special and audio tokens spelled out."""
        ...
