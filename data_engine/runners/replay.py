"""Replay: shards whose records were rejected run again after a fix, and fold into the run.

A shard is replayed whole, from the first group that rejected. Stages are deterministic, so rows that the fix does not
touch come out the same. Taking back commits is all that is done here: the next `run` of the configuration does the
rest, and finishes it too when it was killed on the way. Pipelines that read the results are made anew where those
have changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from data_engine.core.errors import BusyError, ConfigError
from data_engine.core.schema import load_schema
from data_engine.io.shards import marker_name
from data_engine.io.storage import Storage
from data_engine.runners.books import PIPELINES, Book, mark_stale, read_book
from data_engine.runners.claims import is_alive, read_claims
from data_engine.runners.ledger import Ledger, Record, ledger_folder
from data_engine.runners.revoked import revoke

MENDABLE = ("BACKEND_FAILED", "INTERNAL", "OUT_OF_MEMORY", "UNREADABLE")
"""Codes that blame the machine, a model or the code and not the record: replayed when nothing else is asked for."""

SHARD_BY_SHARD: Mapping[str, str] = {"decide": "curate", "unite": "voices"}
"""Pipeline -> the one whose work it reads shard by shard; the others read whole tables and are signed by them."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rejected records to run again; empty means any, and all empty means `MENDABLE`.

    Attributes:
        codes: Reject codes.
        stages: Stages that rejected.
        shards: Numbers of shards; alone, they are replayed from their first group whatever they rejected.
        pipelines: Pipelines the shards belong to.
    """

    codes: frozenset[str] = frozenset()
    stages: frozenset[str] = frozenset()
    shards: frozenset[int] = frozenset()
    pipelines: frozenset[str] = frozenset()

    @property
    def whole_shards(self) -> bool:
        """Shards are named and nothing says which of their rejects."""
        return bool(self.shards) and not self.codes and not self.stages

    def rejects(self, record: Record) -> Counter[tuple[str, str]]:
        """Returns how many rejects of a commit are selected, by stage and code."""
        codes = self.codes or (frozenset() if self.stages or self.shards else frozenset(MENDABLE))
        return Counter({
            (stats["stage"], code): count
            for stats in record["stages"]
            for code, count in stats["reject_codes"].items()
            if (not codes or code in codes) and (not self.stages or stats["stage"] in self.stages)
        })  # fmt: skip


def numbers(text: str | None) -> frozenset[int]:
    """Returns the shards that `3,7,10-12` names.

    Raises:
        ConfigError: It is not a list of numbers and ranges.
    """
    found: set[int] = set()
    for piece in (text or "").split(",") if text else ():
        first, dash, last = piece.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ConfigError(f"--shards {text}: write numbers and ranges, for example 3,7,10-12")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


@dataclass(slots=True)
class Target:
    """A shard to be replayed.

    Attributes:
        pipeline: Its pipeline.
        shard: Its number.
        first: Position of the first group to run again.
        rejects: (stage, code) -> selected rejects.
    """

    pipeline: str
    shard: int
    first: int
    rejects: Counter[tuple[str, str]] = field(default_factory=Counter)


def find_targets(storage: Storage, selection: Selection) -> list[Target]:
    """Returns the committed shards that a selection asks to run again, from commit records alone.

    Raises:
        ConfigError: There is no such code, stage, pipeline or shard, or the folder holds no run.
    """
    books = [book for name in PIPELINES if (book := read_book(storage, name))]
    if not books:
        raise ConfigError(f"'{storage.uri}' holds no run: there is no work/*.plan.json. Check the path.")
    codes = next(f.values for f in load_schema("reject").fields if f.name == "code") or ()
    _check("reject code", selection.codes, codes)
    _check("pipeline of this run", selection.pipelines, [book.pipeline for book in books])
    chosen = [book for book in books if not selection.pipelines or book.pipeline in selection.pipelines]
    most = max(book.num_shards for book in chosen)
    _check("shard", [str(n) for n in selection.shards if n >= most], [f"0 to {most - 1}"])
    stages: set[str] = set()
    found = [target for book in chosen for target in _targets_of(storage, book, selection, stages)]
    _check("stage of this run", selection.stages, sorted(stages))
    return found


def _check(kind: str, wanted: Iterable[str], known: Sequence[str]) -> None:
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        raise ConfigError(f"there is no {kind} '{unknown[0]}'; known: {', '.join(known)}")


def _targets_of(storage: Storage, book: Book, selection: Selection, stages: set[str]) -> Iterator[Target]:
    targets: dict[int, Target] = {}
    for position, record in _records(storage, book):
        stages.update(stats["stage"] for stats in record["stages"])
        shard = record["shard"]
        if selection.shards and shard not in selection.shards:
            continue
        rejects = selection.rejects(record)
        if rejects or selection.whole_shards:
            target = targets.setdefault(shard, Target(book.pipeline, shard, position))
            target.first = min(target.first, position)
            target.rejects += rejects
    yield from (targets[shard] for shard in sorted(targets))


def _records(storage: Storage, book: Book) -> Iterator[tuple[int, Record]]:
    for position, (group, signature) in enumerate(book.groups.items()):
        for record in Ledger(storage, book.pipeline, group, signature).records(book.num_shards):
            yield position, record


def revoke_targets(storage: Storage, targets: Sequence[Target]) -> None:
    """Takes back the commits of shards, so that the next run makes them again.

    Last pipelines and last groups go first: whatever a kill leaves, no commit stands on one that is gone.

    Raises:
        BusyError: A live process is writing into the folder.
    """
    if not targets:
        return
    for claim in read_claims(storage).values():
        if is_alive(claim):
            raise BusyError(
                f"'{storage.uri}' is being written by process {claim.owner.pid} on {claim.owner.host.split(' ')[0]}. "
                "Wait for it or stop it, then replay."
            )
    for pipeline in later_pipelines(targets):
        mark_stale(storage, pipeline)
    books = {name: book for name in PIPELINES if (book := read_book(storage, name))}
    affected = [target for target in _with_readers(targets) if target.pipeline in books]
    for pipeline in {target.pipeline for target in affected}:
        for group, signature in books[pipeline].groups.items():
            storage.remove(ledger_folder(pipeline, group, signature))
    for target in sorted(affected, key=lambda t: PIPELINES.index(t.pipeline), reverse=True):
        for group, signature in reversed(list(books[target.pipeline].groups.items())[target.first :]):
            record = storage.read_json(marker_name(f"rejects/{target.pipeline}.{group}", target.shard))
            if record and record.get("signature") == signature:
                revoke(storage, record)


def later_pipelines(targets: Sequence[Target]) -> tuple[str, ...]:
    """Returns the pipelines after the first replayed one: what they read may change."""
    return PIPELINES[1 + min(PIPELINES.index(target.pipeline) for target in targets) :]


def _with_readers(targets: Sequence[Target]) -> list[Target]:
    """Adds the same shards of pipelines that read the replayed ones shard by shard."""
    readers = [
        Target(reader, target.shard, 0)
        for reader, source in SHARD_BY_SHARD.items()
        for target in targets
        if target.pipeline == source
    ]
    return [*targets, *readers]


def count_rejects(targets: Sequence[Target]) -> list[dict[str, Any]]:
    """Returns per pipeline, stage and code how many rejects and shards are replayed, most first."""
    counts: Counter[tuple[str, str, str]] = Counter()
    shards: Counter[tuple[str, str, str]] = Counter()
    for target in targets:
        for (stage, code), count in target.rejects.items():
            counts[target.pipeline, stage, code] += count
            shards[target.pipeline, stage, code] += 1
    names = ("pipeline", "stage", "code")
    return [
        {**dict(zip(names, key, strict=True)), "rejects": count, "shards": shards[key]}
        for key, count in counts.most_common()
    ]
