"""From a brief to what a language model is asked, and from its answer to a script: pure functions.

The answer's JSON schema has exchanges (user, perhaps a tool call, assistant) in place of a list of turns, so a server
that decodes under the schema cannot write turns in a wrong order, a control that does not exist, or a call without
required arguments.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_engine.backends.llm_bank import ScriptBank
from data_engine.backends.prosody_rules import LEVELS, read_rules, rules_digest
from data_engine.backends.protocols import Brief
from data_engine.core.config import read_yaml
from data_engine.core.errors import RecordError
from data_engine.core.ids import seed_of

PROMPTS = Path(__file__).parent.parent / "assets" / "script_prompts.yaml"

_LONGEST_TEXT = 400
_MOST_EXCHANGES = 3
_SPOKEN = ("text", "emotion", "level", "speed", "dialect")

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wording:
    """The texts of prompts and what may be asked for.

    Attributes:
        texts: Contents of `assets/script_prompts.yaml`.
        emotions: Emotions the engine speaks and measures.
        speeds: Speeds likewise.
        dialects: Language -> dialects.
        bank: Source of examples and tools.
    """

    texts: Mapping[str, Any]
    emotions: Sequence[str]
    speeds: Sequence[str]
    dialects: Mapping[str, Sequence[str]]
    bank: ScriptBank


@dataclass(frozen=True, slots=True)
class Assignment:
    """A brief with what its seed decides.

    Attributes:
        brief: What to write.
        exchanges: How many times the user speaks.
        emotion, level, speed: Asked of one answer at least.
        tools: Tools offered, as JSON schemas; the one called.
        called: The one that is called, None without tools.
        example: A dialogue of the kind, None when the bank has none.
    """

    brief: Brief
    exchanges: int
    emotion: str
    level: int
    speed: str
    tools: Sequence[Json]
    called: Json | None
    example: Json | None


def read_wording() -> Wording:
    """Returns the shipped texts and controls."""
    rules = read_rules()
    dialects = {language: tuple(voices) for language, voices in rules.dialects.items()}
    return Wording(read_yaml(PROMPTS), tuple(rules.emotions), tuple(rules.speeds), dialects, ScriptBank())


def wording_digest() -> str:
    """Returns a hash of all that shapes a prompt and its schema, for signatures."""
    parts = (PROMPTS.read_bytes(), Path(__file__).read_bytes(), rules_digest().encode(), ScriptBank().revision.encode())
    return hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:12]


def assign(brief: Brief, wording: Wording) -> Assignment:
    """Returns what the seed of a brief decides.

    Raises:
        RecordError: NO_SCRIPT, nothing is known about the brief's axis.
    """
    if brief.axis not in wording.texts["axes"]:
        raise RecordError("NO_SCRIPT", f"there is no prompt for axis '{brief.axis}'")
    example = _example(brief, wording.bank)
    tools = list(example["tools"]) if example and brief.axis == "tool_call" else []
    called = tools[seed_of(brief.seed, "tool") % len(tools)] if tools else None
    emotions = [e for e in wording.emotions if e != "neutral"]
    return Assignment(
        brief=brief,
        exchanges=1 + seed_of(brief.seed, "exchanges") % _MOST_EXCHANGES,
        emotion=emotions[seed_of(brief.seed, "emotion") % len(emotions)],
        level=1 + seed_of(brief.seed, "level") % LEVELS,
        speed=wording.speeds[seed_of(brief.seed, "speed") % len(wording.speeds)],
        tools=tools,
        called=called,
        example=example,
    )


def messages(assignment: Assignment, wording: Wording) -> list[dict[str, str]]:
    """Returns the chat that asks for the dialogue."""
    a, texts = assignment, wording.texts
    code = a.brief.language
    language = texts["languages"].get(code, f"the language with the ISO 639 code {code}")
    asked = [
        texts["request"].format(
            language=language, axis=texts["axes"][a.brief.axis], exchanges=a.exchanges, emotion=a.emotion,
            level=a.level, speed=a.speed,
        )
    ]  # fmt: skip
    if a.brief.axis == "role_play":
        asked.append(texts["persona"])
    if a.called:
        asked.append(texts["tool"].format(tools=_compact(list(a.tools)), called=a.called["name"]))
    if a.example:
        asked.append(texts["example"] + "\n" + _compact(a.example["turns"]))
    return [{"role": "system", "content": texts["system"]}, {"role": "user", "content": "\n\n".join(asked)}]


def script_schema(assignment: Assignment, wording: Wording) -> Json:
    """Returns the JSON schema of the answer."""
    dialects = wording.dialects.get(assignment.brief.language, ())
    controls: Json = {
        "emotion": {"enum": list(wording.emotions)},
        "level": {"enum": list(range(1, LEVELS + 1))},
        "speed": {"enum": list(wording.speeds)},
        "dialect": {"enum": [None, *dialects] if assignment.brief.axis == "language_ability" else [None]},
    }
    user = _object({"text": _text(_LONGEST_TEXT), **controls})
    alternative = _object({"axis": {"enum": list(wording.texts["alternative_axes"])}, "text": _text(_LONGEST_TEXT)})
    answers = {"type": "array", "items": alternative, "maxItems": 2}
    assistant = _object({"text": _text(_LONGEST_TEXT), **controls, "alternatives": answers})
    exchange: Json = {"user": user, "assistant": assistant}
    first = {"user": user, "call": _call(assignment.called), "assistant": assistant} if assignment.called else exchange
    kinds = [first] + [exchange] * (assignment.exchanges - 1)
    dialogue = {f"exchange_{number}": _object(kind) for number, kind in enumerate(kinds, 1)}
    persona = {"persona": _text(_LONGEST_TEXT)} if assignment.brief.axis == "role_play" else {}
    return _object({**persona, **dialogue})


def read_script(answer: str, assignment: Assignment) -> Json:
    """Returns {persona, tools, turns} as the bank does.

    Raises:
        ValueError: The answer is not what was asked for; the message says where.
    """
    try:
        written = json.loads(answer)
        turns: list[Json] = []
        for number in range(1, assignment.exchanges + 1):
            turns += _turns(written[f"exchange_{number}"], assignment.called if number == 1 else None)
        persona = written["persona"] if assignment.brief.axis == "role_play" else None
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the answer lacks or garbles {error}") from None
    if persona is not None and not isinstance(persona, str):
        raise ValueError("the persona is not a text")
    return {"persona": persona, "tools": list(assignment.tools), "turns": turns}


def _turns(exchange: Json, called: Json | None) -> list[Json]:
    """Returns the two turns of an exchange, or four when a tool is called."""
    turns = [_turn("user", exchange["user"])]
    if called:
        call = {"name": called["name"], "arguments": dict(exchange["call"]["arguments"])}
        result = {str(pair["name"]): pair["value"] for pair in exchange["call"]["result"]}
        silent: Json = dict.fromkeys(_SPOKEN) | {
            "emotion": "neutral",
            "level": 1,
            "speed": "normal",
            "alternatives": [],
        }
        turns.append({"role": "assistant", **silent, "text": "", "call": _compact(call)})
        turns.append({"role": "tool", **silent, "text": _compact(result), "call": None})
    return [*turns, _turn("assistant", exchange["assistant"])]


def _turn(role: str, spoken: Json) -> Json:
    turn = {name: spoken[name] for name in _SPOKEN}
    if not isinstance(turn["text"], str) or not turn["text"].strip():
        raise ValueError(f"a turn of the {role} has no text")
    alternatives = [{name: str(a[name]) for name in ("axis", "text")} for a in spoken.get("alternatives") or []]
    return {"role": role, **turn, "call": None, "alternatives": alternatives}


def _example(brief: Brief, bank: ScriptBank) -> Json | None:
    """Returns the bank's dialogue for a brief, in English where it has none in the language."""
    for language in (brief.language, "en"):
        try:
            return bank.write([Brief(brief.brief_id, language, brief.axis, brief.seed)])[0]
        except RecordError:
            continue
    return None


def _call(tool: Json) -> Json:
    pair = _object({"name": _text(30), "value": _text(60)})
    result = {"type": "array", "items": pair, "minItems": 1, "maxItems": 4}
    return _object({"arguments": _closed(tool.get("parameters") or {}), "result": result})


def _closed(parameters: Json) -> Json:
    """Returns a tool's parameters with a bound on every text, so that an answer comes to an end."""
    bounded = {n: {**p, "maxLength": 60} if p.get("type") == "string" and "enum" not in p else p
               for n, p in (parameters.get("properties") or {}).items()}  # fmt: skip
    return {"type": "object", "additionalProperties": False, **parameters, "properties": bounded}


def _object(properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _text(longest: int) -> Json:
    return {"type": "string", "minLength": 1, "maxLength": longest}


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
