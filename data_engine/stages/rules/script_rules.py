"""What makes a script speakable and trainable: the same rules for scripts from a bank and from a language model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from data_engine.core.errors import RecordError

LONGEST_TEXT = 1000
"""Characters of a turn; more is no spoken turn, and synthesizers cut or fail."""

_CONTROLS = {"emotion": "neutral", "level": 1, "dialect": None, "speed": "normal"}
_MAY_FOLLOW = {"user": ("assistant",), "assistant": ("user", "tool"), "tool": ("assistant",)}
_SPECIAL = ("<|", "|>", "[speaker_start]", "[speaker_end]")

Turn = dict[str, Any]


def check_script(script: Mapping[str, Any], emotions: Sequence[str], speeds: Sequence[str]) -> dict[str, Any]:
    """Returns the script with defaults filled in and texts stripped.

    Args:
        script: {persona, tools, turns} as a writer returned it.
        emotions: Emotions the engine can ask for and measure.
        speeds: Speeds likewise.

    Raises:
        RecordError: SCRIPT_INVALID, naming the turn and the rule.
    """
    if not isinstance(script, Mapping) or not isinstance(script.get("turns"), list) or not script["turns"]:
        raise _invalid("there are no turns")
    tools = script.get("tools") or []
    if not isinstance(tools, list) or not all(isinstance(t, Mapping) and t.get("name") for t in tools):
        raise _invalid("tools are not a list of objects with a name")
    persona = script.get("persona") or None
    if persona is not None and not isinstance(persona, str):
        raise _invalid("the persona is not a text")
    turns = [_complete(turn, index) for index, turn in enumerate(script["turns"])]
    for index, turn in enumerate(turns):
        _check_text(turn, index)
        _check_controls(turn, index, emotions, speeds)
        _check_call(turn, index, tools)
    _check_order(turns)
    return {"persona": persona, "tools": tools, "turns": turns}


def is_spoken(turn: Mapping[str, Any]) -> bool:
    """Returns whether somebody says this turn: not a tool's result, not a silent tool call."""
    return turn["role"] in ("user", "assistant") and bool((turn["text"] or "").strip())


def _complete(turn: Any, index: int) -> Turn:
    if not isinstance(turn, Mapping) or turn.get("role") not in _MAY_FOLLOW:
        raise _invalid(f"turn {index} has no role of {', '.join(_MAY_FOLLOW)}")
    complete = {"role": turn["role"], "text": turn.get("text") or "", "call": turn.get("call") or None}
    complete |= {name: default if turn.get(name) is None else turn[name] for name, default in _CONTROLS.items()}
    alternatives = turn.get("alternatives") or []
    if not isinstance(complete["text"], str) or not isinstance(alternatives, list):
        raise _invalid(f"turn {index}: text or alternatives are of the wrong type")
    complete["text"] = complete["text"].strip()
    return {**complete, "alternatives": [_alternative(a, index) for a in alternatives]}


def _alternative(alternative: Any, index: int) -> dict[str, str]:
    fields = {k: alternative.get(k) for k in ("axis", "text")} if isinstance(alternative, Mapping) else {}
    stripped = {name: field.strip() for name, field in fields.items() if isinstance(field, str)}
    if len(stripped) < 2 or not all(stripped.values()):
        raise _invalid(f"turn {index}: an alternative lacks axis or text")
    return stripped


def _check_text(turn: Turn, index: int) -> None:
    for text in (turn["text"], *(a["text"] for a in turn["alternatives"])):
        if len(text) > LONGEST_TEXT:
            raise _invalid(f"turn {index} has {len(text)} characters, more than {LONGEST_TEXT}")
        if turn["role"] != "tool" and any(mark in text for mark in _SPECIAL):
            raise _invalid(f"turn {index} holds a control mark of the prompt format")
    if turn["role"] in ("user", "tool") and not turn["text"]:
        raise _invalid(f"turn {index}: a {turn['role']} turn is empty")
    if turn["role"] == "assistant" and bool(turn["text"]) == bool(turn["call"]):
        raise _invalid(f"turn {index}: an assistant turn either speaks or calls a tool")
    if turn["alternatives"] and not (turn["role"] == "assistant" and turn["text"]):
        raise _invalid(f"turn {index}: only what the assistant says has alternatives")
    if turn["text"] in [a["text"] for a in turn["alternatives"]]:
        raise _invalid(f"turn {index}: an alternative says the same as the turn")


def _check_controls(turn: Turn, index: int, emotions: Sequence[str], speeds: Sequence[str]) -> None:
    if turn["emotion"] not in emotions:
        raise _invalid(f"turn {index}: emotion '{turn['emotion']}' is none of {', '.join(emotions)}")
    if turn["speed"] not in speeds:
        raise _invalid(f"turn {index}: speed '{turn['speed']}' is none of {', '.join(speeds)}")
    if type(turn["level"]) is not int or not 1 <= turn["level"] <= 5:
        raise _invalid(f"turn {index}: level {turn['level']!r} is not a whole number within 1..5")
    if not isinstance(turn["dialect"], str | None):
        raise _invalid(f"turn {index}: the dialect is not a text")


def _check_call(turn: Turn, index: int, tools: Sequence[Mapping[str, Any]]) -> None:
    """Checks a tool call against the tools offered, and rewrites it as canonical JSON."""
    if turn["call"] is None:
        return
    if turn["role"] != "assistant":
        raise _invalid(f"turn {index}: only the assistant calls tools")
    try:
        call = json.loads(turn["call"]) if isinstance(turn["call"], str) else turn["call"]
        name, arguments = call["name"], call["arguments"]
    except (ValueError, KeyError, TypeError):
        raise _invalid(f"turn {index}: the tool call is no JSON with name and arguments") from None
    offered = {tool["name"]: tool for tool in tools}
    if name not in offered or not isinstance(arguments, dict):
        raise _invalid(f"turn {index}: the tool call '{name}' is none of {', '.join(offered) or 'no tools'}")
    missing = set((offered[name].get("parameters") or {}).get("required") or ()) - set(arguments)
    if missing:
        raise _invalid(f"turn {index}: the call of '{name}' lacks {', '.join(sorted(missing))}")
    turn["call"] = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False, sort_keys=True)


def _check_order(turns: Sequence[Turn]) -> None:
    if turns[0]["role"] != "user":
        raise _invalid("the first turn is not the user's")
    if not (turns[-1]["role"] == "assistant" and turns[-1]["text"]):
        raise _invalid("the last turn is not an answer the assistant speaks")
    for index, (before, turn) in enumerate(pairwise(turns), 1):
        if before["role"] not in _MAY_FOLLOW[turn["role"]]:
            raise _invalid(f"turn {index}: {turn['role']} does not follow {before['role']}")
        if bool(before["call"]) != (turn["role"] == "tool"):
            raise _invalid(f"turn {index}: a tool's result follows a tool call, and nothing else does")


def _invalid(detail: str) -> RecordError:
    return RecordError("SCRIPT_INVALID", detail)
