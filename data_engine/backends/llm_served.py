"""A language model on an OpenAI-compatible server, as the chat and completion endpoints have it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from data_engine.backends.llm_sampling import ChatRequest, Completion, Prompt, Sampling
from data_engine.backends.model_server import Endpoint, ModelServer
from data_engine.core.errors import RecordError


class ServedModel:
    """Asks a server; see `LanguageModel`.

    Args:
        endpoint: Where it is.
        sampling: How tokens are drawn.
    """

    def __init__(self, endpoint: Endpoint, sampling: Sampling) -> None:
        self._server, self._sampling = ModelServer(endpoint), sampling

    def open(self) -> None:
        """Connects and checks that the server has the model."""
        self._server.open()

    def close(self) -> None:
        """Cancels what is in flight and disconnects."""
        self._server.close()

    def chat(self, requests: Sequence[ChatRequest]) -> list[str | RecordError]:
        """Returns the text of each answer, or why there is none."""
        answers = self._server.gather("chat/completions", [chat_body(r, self._sampling) for r in requests])
        return [answer if isinstance(answer, RecordError) else _spoken(answer) for answer in answers]

    def complete(
        self, prompts: Sequence[Prompt], seeds: Sequence[int], stop_token_ids: Sequence[int] = ()
    ) -> list[Completion | RecordError]:
        """Returns how the model goes on after each prompt, special and audio tokens spelled out."""
        bodies = [
            completion_body(prompt, seed, stop_token_ids, self._sampling)
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        answers = self._server.gather("completions", bodies)
        return [answer if isinstance(answer, RecordError) else _continued(answer) for answer in answers]


def chat_body(request: ChatRequest, sampling: Sampling) -> dict[str, Any]:
    """Returns the body of a chat request whose answer must follow a JSON schema."""
    schema = {"name": "script", "schema": dict(request.schema), "strict": True}
    return {
        "messages": list(request.messages),
        "response_format": {"type": "json_schema", "json_schema": schema},
        "seed": request.seed,
        **_drawn(sampling),
    }


def completion_body(prompt: Prompt, seed: int, stop_token_ids: Sequence[int], sampling: Sampling) -> dict[str, Any]:
    """Returns the body of a completion request; ids in and out, nothing added to the prompt (vLLM's extensions)."""
    return {
        "prompt": prompt if isinstance(prompt, str) else [int(i) for i in prompt],
        "seed": seed,
        "stop_token_ids": [int(i) for i in stop_token_ids],
        "return_token_ids": True,
        "add_special_tokens": False,
        "skip_special_tokens": False,
        "spaces_between_special_tokens": False,
        **_drawn(sampling),
    }


def _drawn(sampling: Sampling) -> dict[str, Any]:
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
    }


def _spoken(answer: dict[str, Any]) -> str | RecordError:
    try:
        return str(answer["choices"][0]["message"]["content"] or "")
    except (KeyError, IndexError, TypeError):
        return _odd(answer)


def _continued(answer: dict[str, Any]) -> Completion | RecordError:
    try:
        choice = answer["choices"][0]
        return Completion(choice["text"], tuple(choice.get("token_ids") or ()))
    except (KeyError, IndexError, TypeError):
        return _odd(answer)


def _odd(answer: dict[str, Any]) -> RecordError:
    return RecordError("BACKEND_FAILED", f"the server's answer has no choices: {str(answer)[:200]}")
