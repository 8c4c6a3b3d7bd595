"""The voices a run may speak with: where they are, and the rule that a voice speaks by consent only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import model_validator

from data_engine.core.config import Settings, speed_knob
from data_engine.core.errors import RecordError

CLONE = "clone"
CONSENT_COLUMNS = ("consent_basis", "allowed_uses")


class TableReference(Settings):
    """Where a table of another pipeline is. The same rows in another folder are the same setting.

    Attributes:
        uri: Output folder with the table; any fsspec URI. Empty: there is none.
        digest: Hash over the committed parts of that table; without one the folder stands for its content.
    """

    uri: str = speed_knob("")
    digest: str = ""

    @model_validator(mode="before")
    @classmethod
    def _with_digest(cls, value: Any) -> Any:
        given = {"uri": value or ""} if isinstance(value, str | None) else value
        if isinstance(given, Mapping) and given.get("uri") and not given.get("digest"):
            return {**given, "digest": given["uri"]}
        return given


def may_be_cloned(voice: Mapping[str, Any]) -> bool:
    """Returns whether a voice has a consent basis and allows cloning."""
    return bool((voice.get("consent_basis") or "").strip()) and CLONE in (voice.get("allowed_uses") or ())


def require_consent(voice_id: str, voice: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Returns the voice when it may be cloned; an unknown voice may not.

    Raises:
        RecordError: VOICE_NOT_CONSENTED, saying what is missing.
    """
    if voice is None:
        raise RecordError("VOICE_NOT_CONSENTED", f"voice {voice_id} is not in the voices table, so nobody allowed it")
    if not (voice.get("consent_basis") or "").strip():
        raise RecordError("VOICE_NOT_CONSENTED", f"voice {voice_id} has no consent basis")
    if CLONE not in (voice.get("allowed_uses") or ()):
        allowed = ", ".join(voice.get("allowed_uses") or ()) or "nothing"
        raise RecordError("VOICE_NOT_CONSENTED", f"voice {voice_id} allows {allowed}, not {CLONE}")
    return voice
