"""Writes dialogues with a language model: on an OpenAI-compatible server such as vLLM's, or loaded in the worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from data_engine.backends.llm_offline import OfflineModel
from data_engine.backends.llm_prompts import (
    Assignment,
    Wording,
    assign,
    messages,
    read_script,
    read_wording,
    script_schema,
    wording_digest,
)
from data_engine.backends.llm_sampling import ChatRequest, LanguageModel, Sampling
from data_engine.backends.llm_served import ServedModel
from data_engine.backends.model_server import Endpoint
from data_engine.backends.protocols import Brief
from data_engine.core.errors import ConfigError, RecordError
from data_engine.core.ids import seed_of
from data_engine.io.retry import Backoff

Written = dict[str, Any] | RecordError


class VllmWriter:
    """Role `llm`, name `vllm`.

    A seed is passed with every request. Whether the same seed gives the same text whatever else the server is busy
    with is the server's to promise: vLLM does when it is started with VLLM_BATCH_INVARIANT=1, or at temperature 0
    nearly always; configs/serving says how.

    Args:
        model: Name the server serves it under; with `offline` a folder or a name on a hub.
        revision: Of the weights; goes into the signature, and a server that names another is refused.
        base_url, api_key_env, concurrency, timeout_seconds, connect_seconds: See `model_server.Endpoint`.
        attempts: Tries of a request while the failure may pass.
        first_pause_seconds: Pause after the first failure; doubles with each.
        answers: How often a dialogue is asked for while the answer is not what was asked.
        temperature, top_p, max_tokens: See `llm_sampling.Sampling`.
        offline: Load the model in the worker instead of asking a server.
        device: With `offline`, cuda or cpu: the installed vLLM must be built for it.
        engine: With `offline`, further arguments of `vllm.LLM`.
    """

    def __init__(
        self,
        *,
        model: str,
        revision: str = "",
        base_url: str | None = None,
        api_key_env: str = "OPENAI_API_KEY",
        concurrency: int = 32,
        timeout_seconds: float = 180.0,
        connect_seconds: float = 5.0,
        attempts: int = 5,
        first_pause_seconds: float = 0.5,
        answers: int = 3,
        temperature: float = 0.8,
        top_p: float = 0.95,
        max_tokens: int = 4096,
        offline: bool = False,
        device: str = "cuda",
        engine: Mapping[str, Any] | None = None,
    ) -> None:
        if answers < 1 or device not in ("cuda", "cpu"):
            raise ConfigError("llm back end 'vllm': answers is from 1, device is cuda or cpu")
        sampling, backoff = Sampling(temperature, top_p, max_tokens), Backoff(attempts, first_pause_seconds)
        endpoint = Endpoint(
            model, revision, base_url, api_key_env, concurrency, timeout_seconds, connect_seconds, backoff
        )
        self.language_model: LanguageModel = (
            OfflineModel(model, revision, sampling, device, engine or {})
            if offline
            else ServedModel(endpoint, sampling)
        )
        self._name, self._answers = f"{model}@{revision}" if revision else model, answers
        self._wording: Wording | None = None

    @property
    def revision(self) -> str:
        """Model, its revision, and a hash of prompts and schema; nothing is asked of the server."""
        return f"{self._name}+prompts-{wording_digest()}"

    def open(self) -> None:
        """Connects or loads.

        Raises:
            MissingExtraError: The library is not installed.
            ConfigError: The server has not the model or refuses the key.
            ShardError: The server does not answer.
        """
        self._wording = read_wording()
        self.language_model.open()

    def close(self) -> None:
        """Cancels what is in flight and disconnects."""
        self.language_model.close()

    def write(self, briefs: Sequence[Brief]) -> list[Written]:
        """Returns {persona, tools, turns} per brief, or why there is none; all briefs are in flight at once.

        A brief that cannot be written is SCRIPT_INVALID after so many unusable answers, BACKEND_FAILED when the server
        refuses or fails it and no other, NO_SCRIPT when nothing is known about its axis.

        Raises:
            ShardError: The server is down, or was closed meanwhile.
        """
        wording = self._wording or read_wording()
        assigned = [_assigned(brief, wording) for brief in briefs]
        written: dict[int, Written] = {i: a for i, a in enumerate(assigned) if isinstance(a, RecordError)}
        for attempt in range(self._answers):
            left = {i: a for i, a in enumerate(assigned) if isinstance(a, Assignment) and _is_open(written.get(i))}
            asked = [_request(assignment, wording, attempt) for assignment in left.values()]
            replies = self.language_model.chat(asked) if asked else []
            for (index, assignment), reply in zip(left.items(), replies, strict=True):
                written[index] = _read(reply, assignment, attempt + 1)
        return [written[index] for index in range(len(assigned))]


def _assigned(brief: Brief, wording: Wording) -> Assignment | RecordError:
    try:
        return assign(brief, wording)
    except RecordError as error:
        return error


def _is_open(written: Written | None) -> bool:
    """Tells whether asking again may help: not asked yet, or what came was no script."""
    return written is None or (isinstance(written, RecordError) and written.code == "SCRIPT_INVALID")


def _request(assignment: Assignment, wording: Wording, attempt: int) -> ChatRequest:
    """Returns the request; asked again, with another seed, for the same one would give the same answer."""
    seed = seed_of(assignment.brief.seed, "answer", attempt) & 0x7FFFFFFF
    return ChatRequest(messages(assignment, wording), script_schema(assignment, wording), seed)


def _read(reply: str | RecordError, assignment: Assignment, asked: int) -> Written:
    if isinstance(reply, RecordError):
        return reply
    try:
        return read_script(reply, assignment)
    except ValueError as error:
        return RecordError("SCRIPT_INVALID", f"asked {asked} times; the last answer: {error}")
