"""Emotion, speed and dialect as numbers: what the synthesizer aims at and what verification compares with.

After the rule-based emotional synthesis reviewed in Schroeder, "Emotional Speech Synthesis: A Review" (2001);
assets/controls/emotions.yaml says which rule follows whom.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_engine.core.config import read_yaml
from data_engine.core.errors import ConfigError, RecordError

LEVELS = 5
CONTROLS = Path(__file__).parent.parent / "assets" / "controls"
_FILES = ("emotions.yaml", "speeds.yaml", "dialects.yaml")
_CHANGES = ("pitch", "range", "tempo", "gain_db", "breath", "tilt_db")


@dataclass(frozen=True, slots=True)
class ProsodyRules:
    """The three control files.

    Attributes:
        emotions: Emotion -> change at full strength, by the names of `_CHANGES`.
        speeds: Speed -> tempo factor.
        dialects: Language -> dialect -> voice of espeak-ng; the first dialect is the default.
    """

    emotions: Mapping[str, Mapping[str, float]]
    speeds: Mapping[str, float]
    dialects: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class ProsodyTargets:
    """What was asked, relative to neutral speech of the same voice at normal speed.

    Attributes:
        tempo: Syllables per second, as a factor.
        pitch_factor: Median F0, as a factor.
        range_factor: Spread of log F0, as a factor.
        gain_db: Level, in dB.
        breath: Aperiodic share added to voiced speech, 0..1.
        tilt_db: Change of spectral slope above 1 kHz, in dB per octave.
    """

    tempo: float = 1.0
    pitch_factor: float = 1.0
    range_factor: float = 1.0
    gain_db: float = 0.0
    breath: float = 0.0
    tilt_db: float = 0.0


def read_rules(folder: Path = CONTROLS) -> ProsodyRules:
    """Returns the rules in a folder of control files.

    Raises:
        ConfigError: A file is missing or an emotion lacks a change.
    """
    emotions, speeds, dialects = (read_yaml(folder / name) for name in _FILES)
    changes = {name: rule for name, rule in emotions.items() if name != "sources"}
    for name, rule in changes.items():
        if not isinstance(rule, dict) or set(rule) != set(_CHANGES):
            raise ConfigError(f"'{folder / _FILES[0]}': emotion '{name}' must have exactly {', '.join(_CHANGES)}")
    return ProsodyRules(changes, speeds, dialects)


def rules_digest(folder: Path = CONTROLS) -> str:
    """Returns a hash of the control files, for signatures.

    Raises:
        ConfigError: A file cannot be read.
    """
    digest = hashlib.sha256()
    for name in _FILES:
        try:
            content = (folder / name).read_bytes()
        except OSError as error:
            raise ConfigError(f"cannot read the controls '{folder / name}': {error.strerror}") from error
        digest.update(len(content).to_bytes(8, "big") + content)
    return digest.hexdigest()[:16]


def asked_prosody(emotion: str, level: int, speed: str, rules: ProsodyRules) -> ProsodyTargets:
    """Returns the targets of a control: level n applies n/5 of the emotion's full change.

    Raises:
        RecordError: UNSUPPORTED_CONTROL, the emotion, level or speed is unknown.
    """
    change = _known(rules.emotions, emotion, "emotion")
    if not 1 <= level <= LEVELS:
        raise RecordError("UNSUPPORTED_CONTROL", f"level {level} of '{emotion}' is not within 1..{LEVELS}")
    share = level / LEVELS
    return ProsodyTargets(
        tempo=_known(rules.speeds, speed, "speed") * (1 + share * change["tempo"]),
        pitch_factor=1 + share * change["pitch"],
        range_factor=1 + share * change["range"],
        gain_db=share * change["gain_db"],
        breath=share * change["breath"],
        tilt_db=share * change["tilt_db"],
    )


def spoken_voice(language: str, dialect: str | None, rules: ProsodyRules) -> str:
    """Returns the espeak-ng voice of a language and dialect.

    Raises:
        RecordError: UNSUPPORTED_LANGUAGE or UNSUPPORTED_CONTROL.
    """
    voices = rules.dialects.get(language)
    if voices is None:
        known = ", ".join(sorted(rules.dialects))
        raise RecordError("UNSUPPORTED_LANGUAGE", f"no voice speaks '{language}'; known languages: {known}")
    return next(iter(voices.values())) if dialect is None else _known(voices, dialect, f"dialect of '{language}'")


def _known(mapping: Mapping[str, Any], name: str, kind: str) -> Any:
    if name not in mapping:
        raise RecordError("UNSUPPORTED_CONTROL", f"there is no {kind} '{name}'; known: {', '.join(mapping)}")
    return mapping[name]
