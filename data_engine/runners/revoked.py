"""Revoked commits: how often a group's shard was replayed, and the files that its later commits took the place of.

A commit is revoked by removing its marker, after a note of what it named. The old files stay until the run is complete
again, so whoever reads the tables that `run.json` names is not disturbed.
"""

from __future__ import annotations

from typing import Any

from data_engine.core.plan import Group
from data_engine.io.shards import marker_name
from data_engine.io.storage import Storage
from data_engine.runners.ledger import Record

FOLDER = "work/revoked"


def _note_name(pipeline: str, group: str, shard: int) -> str:
    return marker_name(f"{FOLDER}/{pipeline}.{group}", shard)


def count_replays(storage: Storage, pipeline: str, group: Group, shard: int) -> int:
    """Returns how often a group's shard was replayed under the signature it has now."""
    note = storage.read_json(_note_name(pipeline, group.name, shard))
    return int(note["replays"]) if note and note["signature"] == group.signature else 0


def revoke(storage: Storage, record: Record) -> None:
    """Takes back a commit: its shard is run again by the next run. What it published stays until then.

    The ledger of the group must be gone: it would bring the commit back beside the next one.

    Args:
        storage: Output folder.
        record: Commit record of a group's shard.
    """
    name = _note_name(record["pipeline"], record["group"], record["shard"])
    before: dict[str, Any] = storage.read_json(name) or {}
    note = {
        "signature": record["signature"],
        "replays": record.get("replays", 0) + 1,
        "obsolete": sorted({*before.get("obsolete", ()), *_files(record)}),
    }
    storage.write_json(name, note)
    storage.remove_file(marker_name(record["table"], record["shard"]))


def _files(record: Record) -> list[str]:
    tables = [f"{table}/{part['file']}" for table, part in record["tables"].items()]
    return [f"{record['table']}/{record['file']}", *tables]


def remove_obsolete(storage: Storage) -> int:
    """Removes the files of revoked commits that new ones have taken the place of; returns how many.

    Call it when `run.json` names the new ones.
    """
    removed = 0
    for folder in storage.list(FOLDER):
        names = [f"{FOLDER}/{folder}/{name}" for name in storage.list(f"{FOLDER}/{folder}")]
        for name, note in zip(names, storage.read_jsons(names), strict=True):
            record = storage.read_json(f"rejects/{folder}/{name.rpartition('/')[2]}") if note else None
            if note and record and note["obsolete"]:
                old = set(note["obsolete"]) - set(_files(record))
                for file in old:
                    storage.remove_file(file)
                removed += len(old)
                storage.write_json(name, {**note, "obsolete": []})
    return removed
