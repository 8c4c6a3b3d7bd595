"""Stages by name. Each class is built from its pydantic `Config` and has a `spec`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data_engine.core.config import choices, signature_config, validate
from data_engine.core.registry import lookup
from data_engine.core.stage import Stage

ENTRY_POINTS = "data_engine.stages"

STAGES: dict[str, str] = {
    "decode": "data_engine.stages.decode:Decode",
    "segment": "data_engine.stages.segment:SegmentSpeech",
    "diarize": "data_engine.stages.diarize:Diarize",
    "cut": "data_engine.stages.cut:Cut",
    "extract": "data_engine.stages.extract:Extract",
    "separate": "data_engine.stages.separate:Separate",
    "transcribe": "data_engine.stages.transcribe:Transcribe",
    "align": "data_engine.stages.align:Align",
    "privacy": "data_engine.stages.privacy:Privacy",
    "annotate": "data_engine.stages.annotate:Annotate",
    "tokenize": "data_engine.stages.tokenize:Tokenize",
    "fingerprint": "data_engine.stages.fingerprint:Fingerprint",
    "match": "data_engine.stages.match:Match",
    "mark": "data_engine.stages.mark:Mark",
    "filter": "data_engine.stages.filter:Filter",
    "shortlist": "data_engine.stages.shortlist:ShortlistSegments",
    "voices": "data_engine.stages.voices:Voices",
    "voiceprint": "data_engine.stages.voiceprint:Voiceprint",
    "link": "data_engine.stages.link:Link",
    "unite": "data_engine.stages.unite:Unite",
    "script": "data_engine.stages.script:WriteScript",
    "cast": "data_engine.stages.cast:Cast",
    "speak": "data_engine.stages.speak:Speak",
    "verify": "data_engine.stages.verify:Verify",
    "select": "data_engine.stages.select:Select",
    "assemble": "data_engine.stages.assemble:Assemble",
    "pair": "data_engine.stages.pair:Pair",
    "teach": "data_engine.training.teach:Teach",
    "admit": "data_engine.training.teach:Admit",
}


def build_stage(name: str, config: Mapping[str, Any]) -> Stage:
    """Returns the stage, built but not opened.

    Raises:
        ConfigError: The stage or a key of its configuration is unknown.
    """
    stage = lookup("stage", name, STAGES, ENTRY_POINTS)
    return stage(validate(stage.Config, config, f"stage '{name}'"))  # type: ignore[no-any-return]


def stage_signature_parts(name: str, config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns the configuration less speed knobs, and the revision of each model, without loading one."""
    from data_engine.backends.catalog import build_backend

    stage = lookup("stage", name, STAGES, ENTRY_POINTS)
    settings = validate(stage.Config, config, f"stage '{name}'")
    chosen = choices(settings)
    revisions = {role: build_backend(role, c.name, c.options).revision for role, c in chosen.items()}
    return signature_config(settings), revisions
