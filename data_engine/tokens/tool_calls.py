"""Tool calls in assistant text: write them, read them back.

Form: `<|CALL_START|> function`, the name, the JSON arguments, `<|CALL_END|>`, as used with the chat model of
Step-Audio (arXiv 2502.11946); models drop or add white space, so reading is tolerant of it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from data_engine.core.errors import ContractError
from data_engine.tokens.vocabulary import TOKEN_STRINGS

CALL_START, CALL_END = TOKEN_STRINGS["call_start"], TOKEN_STRINGS["call_end"]

_CALL = re.compile(r"\s*function\s*\n\s*(?P<name>[^\n]+?)\s*\n(?P<arguments>.*)", re.DOTALL)


@dataclass(frozen=True)
class ToolCall:
    """A function the assistant wants called, with its JSON arguments."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)


def render_tool_call(call: ToolCall) -> str:
    r"""Writes `<|CALL_START|> function\nNAME\nARGS<|CALL_END|>`; the inverse of `parse_tool_calls`.

    Raises:
        ContractError: The name is empty or not one trimmed line, or the call holds a call token.
    """
    arguments = json.dumps(call.arguments, ensure_ascii=False)
    if not call.name or call.name != call.name.strip() or "\n" in call.name:
        raise ContractError(f"tool name {call.name!r} must be one line without outer white space")
    if any(token in call.name + arguments for token in (CALL_START, CALL_END)):
        raise ContractError(f"tool call {call.name!r} holds a call token in its name or arguments")
    return f"{CALL_START} function\n{call.name}\n{arguments}{CALL_END}"


def parse_tool_calls(text: str) -> list[ToolCall]:
    """Reads every tool call in `text`, tolerant of white space around `function` and the name.

    Raises:
        ContractError: A call is not closed, not of the form above, or its arguments are no JSON object.
    """
    pieces = text.split(CALL_START)
    if CALL_END in pieces[0]:
        raise ContractError(f"{CALL_END} at character {pieces[0].index(CALL_END)} closes no call")
    return [_parsed_call(piece, number) for number, piece in enumerate(pieces[1:], 1)]


def _parsed_call(piece: str, number: int) -> ToolCall:
    inside, closing, after = piece.partition(CALL_END)
    match = _CALL.fullmatch(inside)
    if not closing or CALL_END in after or match is None:
        raise ContractError(f"tool call {number} is not 'function, name, JSON{CALL_END}': {piece[:60]!r}")
    try:
        arguments = json.loads(match["arguments"])
    except json.JSONDecodeError as error:
        raise ContractError(f"tool call {number} ({match['name']}): arguments are no JSON: {error}") from error
    if not isinstance(arguments, dict):
        raise ContractError(f"tool call {number} ({match['name']}): arguments must be a JSON object")
    return ToolCall(match["name"], arguments)
