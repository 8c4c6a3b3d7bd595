"""Compares the folder of a run that was disturbed with that of one that was not: rows, bytes, and what is left over."""

import hashlib
from collections import Counter
from pathlib import Path

from data_engine.core.schema import load_schema
from data_engine.io.shards import committed_parts, read_batches
from data_engine.io.storage import Storage

_BOOKKEEPING = ("work/revoked", "work/ledger", "work/dead", "work/items")


def tables_of(folder):
    """Returns the folders inside an output folder that hold commit markers."""
    found = {str(path.parent.relative_to(folder)) for path in Path(folder).rglob("part-*.json")}
    return sorted(name for name in found if not name.startswith(_BOOKKEEPING))


def row_ids(folder):
    """Returns how often each (table, id) is committed."""
    storage, counts = Storage(str(folder)), Counter()
    for table in tables_of(folder):
        for part in committed_parts(storage, table):
            for batch in read_batches(storage, part):
                name = load_schema((batch.schema.metadata or {})[b"schema"].decode()).id
                counts.update((table, value) for value in batch.column(batch.schema.get_field_index(name)).to_pylist())
    return counts


def file_hashes(folder):
    """Returns {path: SHA-256} of every data file, named by a marker or not."""
    found = sorted(path for path in Path(folder).rglob("part-*.arrow"))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def leftovers(folder):
    """Returns scratch, unfinished files and claims that nobody holds."""
    folder = Path(folder)
    found = [
        *folder.glob("work/tmp/*"),
        *folder.rglob("*.tmp"),
        *folder.glob("work/claims/*"),
        *folder.glob("work/dead/*"),
    ]
    return sorted({str(path.relative_to(folder)) for path in found})


def compare(undisturbed, disturbed):
    """Returns {what: count or names}: rows, lost, doubled, differing, leftovers."""
    before, after = row_ids(undisturbed), row_ids(disturbed)
    files, files_after = file_hashes(undisturbed), file_hashes(disturbed)
    return {
        "rows": after.total(),
        "lost": (before - after).total(),
        "doubled": (after - before).total(),
        "files": len(files_after),
        "differing": sorted(name for name in {*files, *files_after} if files.get(name) != files_after.get(name)),
        "leftovers": leftovers(disturbed),
    }
