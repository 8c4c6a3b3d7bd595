"""Ids are content: a hash of what makes a record what it is, never a counter or a file name."""

from __future__ import annotations

import hashlib

ID_LENGTH = 32
"""Hex digits kept of a SHA-256, 128 bits."""

_SPLITS = (("test", 2), ("validation", 4), ("train", 100))


def content_id(*parts: object) -> str:
    """Returns the id of a record that is defined by `parts`.

    Args:
        parts: Strings, integers, floats, None; told apart by type and position.

    Returns:
        32 hex digits.
    """
    digest = hashlib.sha256()
    for part in parts:
        text = f"{type(part).__name__}:{part!r}".encode()
        digest.update(len(text).to_bytes(4, "big") + text)
    return digest.hexdigest()[:ID_LENGTH]


def seed_of(*parts: object) -> int:
    """Returns a 32-bit seed that depends on `parts` only."""
    return int(content_id("seed", *parts)[:8], 16)


def split_of(record_id: str) -> str:
    """Returns train, validation or test (96 : 2 : 2) for a recording or dialogue id.

    A hash decides, so a recording never leaks across splits and adding data moves nothing.
    """
    bucket = int(content_id("split", record_id)[:8], 16) % 100
    return next(name for name, below in _SPLITS if bucket < below)
