"""Exact duplicates: equal bytes under different names. Only files that share their size are read."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from data_engine.core.errors import RecordError
from data_engine.io.ingest.localize import Localizer

_HEAD, _CHUNK = 1 << 16, 1 << 20
_THREADS = 8

Row = Mapping[str, Any]


def find_duplicates(rows: Sequence[Row]) -> dict[str, str]:
    """Returns item_id -> item_id of the first item with the same bytes, for the later ones.

    Sizes are compared first, then the first 64 KiB, then everything.

    Args:
        rows: Rows of `source.v1` in order; those already marked as duplicates are left out.
    """
    fresh = [row for row in rows if row["size"] > 0 and not row["duplicate_of"]]
    suspects = _shared(fresh, [row["size"] for row in fresh])
    heads = list(_digests(suspects, _HEAD))
    suspects = _shared(suspects, heads)
    first: dict[str, str] = {}
    found = {}
    for row, content in zip(suspects, _digests(suspects, None), strict=True):
        original = first.setdefault(content, row["item_id"]) if content else row["item_id"]
        if original != row["item_id"]:
            found[row["item_id"]] = original
    return found


def _shared(rows: Sequence[Row], keys: Sequence[Hashable]) -> list[Row]:
    """Returns the rows whose key another row has too, in order."""
    counts = Counter(keys)
    return [row for row, key in zip(rows, keys, strict=True) if key is not None and counts[key] > 1]


def _digests(rows: Sequence[Row], limit: int | None) -> Iterator[str | None]:
    """Yields size and SHA-256 over the first `limit` bytes of each item; None for what cannot be read.

    Plain files are read by several threads, members of one archive in turn.
    """
    plain = [row for row in rows if row["member"] is None]
    with ThreadPoolExecutor(_THREADS) as pool:
        hashed = pool.map(lambda row: _digest(Localizer(), row, limit), plain)
        localizer = Localizer()
        for row in rows:
            yield next(hashed) if row["member"] is None else _digest(localizer, row, limit)
        localizer.close()


def _digest(localizer: Localizer, row: Row, limit: int | None) -> str | None:
    digest, left = hashlib.sha256(), row["size"] if limit is None else min(limit, row["size"])
    try:
        with localizer.opened(row["uri"], row["member"]) as file:
            while left > 0 and (chunk := file.read(min(left, _CHUNK))):
                digest.update(chunk)
                left -= len(chunk)
    except (OSError, RecordError):  # but a failing store ends the planning: another plan would come of it
        return None
    return f"{row['size']}-{digest.hexdigest()}"
