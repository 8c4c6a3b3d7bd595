"""Writes dialogues from the bank of templates that ships with the engine: no model, no service.

A template is a dialogue with slots, `{name}`: a row fills slots that belong together, a choice fills one by itself.
The seed of the brief decides which. Slots are filled everywhere: persona, texts, tool calls, tool results.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_engine.backends.protocols import Brief
from data_engine.core.config import read_yaml
from data_engine.core.errors import ConfigError, RecordError
from data_engine.core.ids import seed_of

BANK = Path(__file__).parent.parent / "assets" / "script_bank"

_SLOT = re.compile(r"\{([a-z_][a-z0-9_]*)\}")
_CONTROLS: Mapping[str, Any] = {"emotion": "neutral", "level": 1, "dialect": None, "speed": "normal"}


class ScriptBank:
    """Role `llm`, name `bank`.

    Args:
        folder: Bank as LANGUAGE/AXIS.yaml; default: the one in the package.
    """

    def __init__(self, folder: str | None = None) -> None:
        self._folder = Path(folder) if folder else BANK
        if not self._folder.is_dir():
            raise ConfigError(f"llm back end 'bank': there is no folder '{self._folder}'")
        self._templates: dict[tuple[str, str], list[dict[str, Any]]] = {}

    @property
    def revision(self) -> str:
        """Hash of every file of the bank."""
        digest = hashlib.sha256()
        for path in sorted(self._folder.glob("*/*.yaml"), key=lambda p: p.relative_to(self._folder).as_posix()):
            name, content = path.relative_to(self._folder).as_posix().encode(), path.read_bytes()
            digest.update(len(name).to_bytes(8, "big") + name + len(content).to_bytes(8, "big") + content)
        return f"bank-{digest.hexdigest()[:16]}"

    def open(self) -> None:
        """Nothing to load: files are read when a brief asks for them."""

    def close(self) -> None:
        """Forgets the files read."""
        self._templates.clear()

    def write(self, briefs: Sequence[Brief]) -> list[dict[str, Any]]:
        """Returns {persona, tools, turns} per brief; equal briefs give equal scripts.

        Raises:
            RecordError: NO_SCRIPT, the bank has no file for a brief's language and axis.
        """
        return [self._write(brief) for brief in briefs]

    def _write(self, brief: Brief) -> dict[str, Any]:
        templates = self._read(brief.language, brief.axis)
        template = templates[seed_of(brief.seed, "template") % len(templates)]
        return fill_template(template, brief.seed)

    def _read(self, language: str, axis: str) -> list[dict[str, Any]]:
        key = (language, axis)
        if key not in self._templates:
            path = self._folder / language / f"{axis}.yaml"
            known = path.parent.parent == self._folder and path.parent.is_dir() and path.is_file()
            templates = read_yaml(path).get("templates") if known else None
            if not templates:
                raise RecordError("NO_SCRIPT", f"the bank has no dialogue for language '{language}', axis '{axis}'")
            self._templates[key] = templates
        return self._templates[key]


def fill_template(template: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Returns the dialogue a template becomes with the slots a seed chooses.

    Args:
        template: Persona, tools, turns, and the rows and choices that fill slots.
        seed: Decides the row and, for each choice by itself, the value.
    """
    slots = choose_slots(template, seed)
    return {
        "persona": _filled(template.get("persona"), slots),
        "tools": list(template.get("tools") or []),
        "turns": [_turn(turn, slots) for turn in template["turns"]],
    }


def choose_slots(template: Mapping[str, Any], seed: int) -> dict[str, str]:
    """Returns the value of each slot for a seed."""
    rows, choices = template.get("rows") or [{}], template.get("choices") or {}
    name = template["name"]
    row = rows[seed_of(seed, name, "row") % len(rows)]
    chosen = {slot: values[seed_of(seed, name, "slot", slot) % len(values)] for slot, values in choices.items()}
    return {slot: str(value) for slot, value in {**chosen, **row}.items()}


def _turn(turn: Mapping[str, Any], slots: Mapping[str, str]) -> dict[str, Any]:
    call = _filled(turn.get("call"), slots)
    return {
        "role": turn["role"],
        "text": _filled(turn.get("text") or "", slots),
        **{name: turn.get(name, default) for name, default in _CONTROLS.items()},
        "call": json.dumps(call, ensure_ascii=False, sort_keys=True) if call else None,
        "alternatives": [_filled(alternative, slots) for alternative in turn.get("alternatives") or []],
    }


def _filled(value: Any, slots: Mapping[str, str]) -> Any:
    """Returns `value` with slots filled in every text inside it; a brace that names no slot is left alone."""
    if isinstance(value, str):
        return _SLOT.sub(lambda match: slots.get(match[1], match[0]), value)
    if isinstance(value, dict):
        return {key: _filled(member, slots) for key, member in value.items()}
    if isinstance(value, list):
        return [_filled(member, slots) for member in value]
    return value
