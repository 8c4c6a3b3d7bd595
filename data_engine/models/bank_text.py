"""Sentences of the script bank as plain text, for the commands that fit the embedded models."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

_BANK = Path(__file__).parent.parent / "assets" / "script_bank"
_SLOT = re.compile(r"\{(\w+)\}")


@cache
def bank_sentences(language: str) -> tuple[str, ...]:
    """Returns every distinct sentence the script bank of a language can say, slots filled, in file order.

    Each turn and alternative is filled once per row of its template; choices go round in step with the rows.

    Args:
        language: Folder of the bank: `en` or `zh`.
    """
    files = sorted((_BANK / language).glob("*.yaml"))
    documents = (yaml.safe_load(file.read_text(encoding="utf-8")) for file in files)
    texts = (text for document in documents for template in document["templates"] for text in _filled(template))
    return tuple(dict.fromkeys(text for text in texts if text))


def _filled(template: dict[str, Any]) -> Iterator[str]:
    choices: dict[str, list[Any]] = template.get("choices") or {}
    for number, row in enumerate(template.get("rows") or [{}]):
        slots = {name: values[number % len(values)] for name, values in choices.items()} | row
        for text in _texts(template):
            yield _SLOT.sub(lambda match: str(slots.get(match[1], "")), text)  # noqa: B023 (used at once)


def _texts(template: dict[str, Any]) -> Iterator[str]:
    yield template.get("persona") or ""
    for turn in template["turns"]:
        if turn["role"] != "tool":
            yield turn.get("text") or ""
            yield from (alternative["text"] for alternative in turn.get("alternatives") or [])
