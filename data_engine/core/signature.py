"""Signatures: what an output depends on, as a hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def signature(name: str, version: str, config: Mapping[str, Any], revisions: Mapping[str, str], upstream: str) -> str:
    """Returns the signature of a stage: equal signatures mean equal output.

    Args:
        name: Stage.
        version: Stage version.
        config: Its configuration less speed knobs; JSON types.
        revisions: Revision of each model it uses, by role.
        upstream: Signature of what feeds it.

    Returns:
        32 hex digits.
    """
    return digest({"name": name, "version": version, "config": config, "models": revisions, "upstream": upstream})


def digest(value: Any) -> str:
    """Returns 32 hex digits over the canonical JSON of `value`."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
