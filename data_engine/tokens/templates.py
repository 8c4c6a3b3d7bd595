"""Prompts of the Step-Audio family as strings and as ids: chat, speech synthesis, cloning, editing.

Layouts follow Step-Audio (arXiv 2502.11946), its Apache-2.0 inference code and Step-Audio-EditX
(arXiv 2511.03601). What the prompts say is in `wordings`, how tool calls are written in `tool_calls`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from data_engine.core.errors import ConfigError, ContractError
from data_engine.tokens.layout import to_string, validate_run
from data_engine.tokens.tool_calls import ToolCall, parse_tool_calls, render_tool_call
from data_engine.tokens.vocabulary import TEXT_SIZE, TOKEN_STRINGS, Ids, SpecialTokens, as_ids
from data_engine.tokens.wordings import (
    EDIT_CLONE_SYSTEM,
    EDIT_INSTRUCTIONS,
    EDIT_SYSTEM,
    SYSTEM_PROMPTS,
    PromptKind,
    edit_instruction,
    fill,
    system_prompt,
)

__all__ = [
    "EDIT_CLONE_SYSTEM",
    "EDIT_INSTRUCTIONS",
    "EDIT_SYSTEM",
    "SYSTEM_PROMPTS",
    "Encode",
    "PromptKind",
    "ToolCall",
    "Turn",
    "chat_prompt_ids",
    "chat_prompt_string",
    "continuation_ids",
    "edit_clone_prompt_ids",
    "edit_instruction",
    "edit_prompt_ids",
    "open_turn_ids",
    "parse_tool_calls",
    "render_tool_call",
    "system_prompt",
    "tool_schema_turn",
    "tts_prompt_ids",
    "turn_ids",
    "with_text_history",
]

Encode = Callable[[str], Sequence[int]]

BEGIN, END = TOKEN_STRINGS["begin_of_turn"], TOKEN_STRINGS["end_of_turn"]


@dataclass(frozen=True, eq=False)
class Turn:
    """One message.

    Attributes:
        role: `system`, `user` (written `human`), `assistant` or `tool_json_schemas`.
        content: Text, or the transcript of `audio_ids`.
        audio_ids: A valid audio run that is sent instead of `content`; None for a text turn.
        with_text: Send `content` too, before the audio.
    """

    role: str
    content: str
    audio_ids: Ids | None = None
    with_text: bool = False

    @property
    def written_role(self) -> str:
        """Role as the model reads it."""
        return "human" if self.role == "user" else self.role


def with_text_history(turns: Sequence[Turn]) -> list[Turn]:
    """Replaces the audio of every turn but the last by its transcript (Step-Audio, arXiv 2502.11946).

    Raises:
        ContractError: An earlier audio turn has no transcript.
    """
    for index, turn in enumerate(turns[:-1]):
        if turn.audio_ids is not None and not turn.content:
            raise ContractError(f"turn {index} ({turn.role}) has audio but no transcript; history is sent as text")
    return [replace(turn, audio_ids=None) for turn in turns[:-1]] + list(turns[-1:])


def chat_prompt_string(turns: Sequence[Turn]) -> str:
    r"""Writes turns as `<|BOT|>role\ncontent<|EOT|>`, then opens the assistant's turn.

    Audio is its `<audio_*>` string, without markers or spaces. Source: Step-Audio (arXiv 2502.11946), chat.

    Raises:
        ContractError: Text holds a turn token, which would forge a turn, or audio is no valid run.
    """
    written = [f"{BEGIN}{turn.written_role}\n{_written_body(turn)}{END}" for turn in turns]
    return "".join(written) + f"{BEGIN}assistant\n"


def chat_prompt_ids(turns: Sequence[Turn], encode: Encode, special: SpecialTokens) -> Ids:
    """Writes the same prompt as `chat_prompt_string` as ids, shape (n,), int32.

    Raises:
        ContractError: As `chat_prompt_string`, or `encode` gives ids outside 0..65535.
    """
    parts = [turn_ids(turn.written_role, _body(turn), encode, special) for turn in turns]
    return np.concatenate([*parts, open_turn_ids("assistant", encode, special)])


def turn_ids(role: str, body: Sequence[Any], encode: Encode, special: SpecialTokens) -> Ids:
    r"""Returns one whole turn: begin, `role\n`, the pieces of `body` (text as str, ids as arrays), end.

    A text piece that comes first is encoded together with the role line, as the string form would be.

    Raises:
        ContractError: A piece is neither text nor valid ids.
    """
    pieces: list[Any] = [f"{role}\n", *body]
    if len(pieces) > 1 and isinstance(pieces[1], str):
        pieces[:2] = [pieces[0] + pieces[1]]
    ids = [_encoded(piece, encode) if isinstance(piece, str) else as_ids(piece) for piece in pieces]
    return np.concatenate([_one(special.begin_of_turn), *ids, _one(special.end_of_turn)])


def open_turn_ids(role: str, encode: Encode, special: SpecialTokens) -> Ids:
    r"""Returns begin and `role\n`: the start of a turn that the model, or a target, will fill."""
    return np.concatenate([_one(special.begin_of_turn), _encoded(f"{role}\n", encode)])


def continuation_ids(text: str, encode: Encode) -> Ids:
    r"""Encodes text that follows a newline, without the word-start mark a tokenizer puts before a first word.

    enc("\n" + text) minus the ids of enc("\n"), as in the inference code of Step-Audio (arXiv 2502.11946).

    Raises:
        ContractError: The tokenizer merges the newline with the text, so no prefix can be cut off.
    """
    newline, both = _encoded("\n", encode), _encoded("\n" + text, encode)
    if not np.array_equal(both[: newline.size], newline):
        raise ContractError(
            f"the tokenizer merges a newline with the start of {text[:24]!r}; strip leading white space from the text"
        )
    return both[newline.size :]


def tts_prompt_ids(
    target_text: str,
    prompt_text: str,
    prompt_audio_ids: Any,
    encode: Encode,
    special: SpecialTokens,
    *,
    system: str,
) -> Ids:
    """Returns the two-turn prompt that makes the model speak `target_text` in the voice of the prompt audio.

    [bos] system; human: prompt text; assistant: prompt audio; human: target text; assistant: (open).
    Source: Step-Audio (arXiv 2502.11946) sec. 5.1 and its inference code.

    Raises:
        ContractError: The prompt audio is no valid run, or text cannot be encoded.
    """
    turns: list[tuple[str, Any]] = [
        ("system", system),
        ("human", continuation_ids(prompt_text, encode)),
        ("assistant", validate_run(prompt_audio_ids)),
        ("human", continuation_ids(target_text, encode)),
    ]
    return _prompt([(role, [body]) for role, body in turns], encode, special)


def edit_prompt_ids(
    instruction: str, audio_ids: Any, encode: Encode, special: SpecialTokens, *, system: str = EDIT_SYSTEM
) -> Ids:
    """Returns the prompt that edits a recording: human turn = instruction, newline, audio, newline.

    Source: Step-Audio-EditX (arXiv 2511.03601), released code.

    Raises:
        ContractError: The audio is no valid run, or text cannot be encoded.
    """
    body = [f"{instruction}\n", validate_run(audio_ids), "\n"]
    return _prompt([("system", [system]), ("human", body)], encode, special)


def edit_clone_prompt_ids(
    target_text: str,
    speaker: str,
    prompt_text: str,
    prompt_audio_ids: Any,
    encode: Encode,
    special: SpecialTokens,
    *,
    system: str = EDIT_CLONE_SYSTEM,
) -> Ids:
    """Returns the one-turn cloning prompt: the system turn holds the voice, the human turn the target text.

    Source: Step-Audio-EditX (arXiv 2511.03601), released code.

    Args:
        target_text: What to say.
        speaker: Name of the voice.
        prompt_text: What the prompt audio says.
        prompt_audio_ids: A valid audio run.
        encode: Text tokenizer without special tokens.
        special: Ids of bos and the turn tokens.
        system: Wording with `{speaker}`, `{prompt_text}` and exactly one `{audio}`.

    Raises:
        ConfigError: `system` has no or several `{audio}`.
        ContractError: The audio is no valid run, or text cannot be encoded.
    """
    halves = system.split("{audio}")
    if len(halves) != 2:
        raise ConfigError(f"cloning system prompt needs one {{audio}}, found {len(halves) - 1}")
    before, after = (fill(half, speaker=speaker, prompt_text=prompt_text) for half in halves)
    body = [before, validate_run(prompt_audio_ids), after]
    return _prompt([("system", body), ("human", [continuation_ids(target_text, encode)])], encode, special)


def tool_schema_turn(schemas: Sequence[Mapping[str, Any]]) -> Turn:
    """Returns the turn that offers tools: role `tool_json_schemas`, a JSON list (Step-Audio tool calling)."""
    return Turn("tool_json_schemas", json.dumps([dict(schema) for schema in schemas], ensure_ascii=False))


def _prompt(turns: Sequence[tuple[str, Sequence[Any]]], encode: Encode, special: SpecialTokens) -> Ids:
    closed = [turn_ids(role, body, encode, special) for role, body in turns]
    return np.concatenate([_one(special.bos), *closed, open_turn_ids("assistant", encode, special)])


def _body(turn: Turn) -> list[Any]:
    text = [_plain(turn)] if turn.audio_ids is None or turn.with_text else []
    return text if turn.audio_ids is None else [*text, validate_run(turn.audio_ids)]


def _written_body(turn: Turn) -> str:
    return "".join(piece if isinstance(piece, str) else to_string(piece) for piece in _body(turn))


def _plain(turn: Turn) -> str:
    if BEGIN in turn.content or END in turn.content:
        raise ContractError(
            f"content of a {turn.role} turn holds {BEGIN} or {END}, which would forge a turn; remove it"
        )
    return turn.content


def _encoded(text: str, encode: Encode) -> Ids:
    return as_ids(list(encode(text)), f"encode({text[:24]!r})", TEXT_SIZE)


def _one(number: int) -> Ids:
    return np.array([number], np.int32)
