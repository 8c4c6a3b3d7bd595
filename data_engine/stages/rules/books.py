"""The conservation law for one dialogue of a fold: each candidate is a parent, a reject or unused, once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from data_engine.core.errors import ContractError, RecordError
from data_engine.core.schema import Schema
from data_engine.core.stage import Reject, StageResult
from data_engine.stages.rules.dialogue import Row


class DialogueBook:
    """What became of the candidates of one dialogue.

    Args:
        candidates: All rows of the dialogue, in order.
    """

    def __init__(self, candidates: list[Row]) -> None:
        self.candidates = candidates
        self.rows: list[Row] = []
        self.metrics: dict[str, float] = {}
        self._rejects: dict[str, Reject] = {}
        self._reasons: dict[str, str] = {}

    @property
    def parents(self) -> set[str]:
        """Candidates that an output row was made of."""
        return {name for row in self.rows for name in row["parents"]}

    def count(self, metric: str, value: float = 1) -> None:
        """Adds to a metric."""
        self.metrics[metric] = self.metrics.get(metric, 0) + value

    def reject(self, candidates: Iterable[Row], error: RecordError | ContractError) -> None:
        """Books candidates as rejected, unless they turn out to be parents of another row; the first code stays.

        A ContractError of the token functions is about the text of this script, so it is SCRIPT_INVALID here.
        """
        code, detail = (error.code, error.detail) if isinstance(error, RecordError) else ("SCRIPT_INVALID", str(error))
        for row in candidates:
            name = row["candidate_id"]
            self._rejects.setdefault(name, Reject(name, code, detail, input_ref=row["dialogue_id"]))

    def leave(self, candidates: Iterable[Row], reason: str) -> None:
        """Books why candidates are left out, should nothing else become of them."""
        self._reasons |= {row["candidate_id"]: reason for row in candidates}

    @property
    def rejects(self) -> list[Reject]:
        """Rejected candidates that no row was made of."""
        parents = self.parents
        return [reject for name, reject in self._rejects.items() if name not in parents]

    def unused(self, why: Callable[[Row], str]) -> dict[str, str]:
        """Returns the reason of each candidate that is neither parent nor reject: what `leave` said, else `why`."""
        accounted = self.parents | self._rejects.keys()
        left = [row for row in self.candidates if row["candidate_id"] not in accounted]
        return {row["candidate_id"]: self._reasons.get(row["candidate_id"]) or why(row) for row in left}


def close_books(books: Iterable[DialogueBook], produces: Schema, why: Callable[[Row], str]) -> StageResult:
    """Returns the result of a fold over whole dialogues.

    Args:
        books: One per dialogue, in order.
        produces: Schema of the rows.
        why: Candidate -> why it was left out, where the book does not say.
    """
    rows: list[Row] = []
    rejects: list[Reject] = []
    unused: dict[str, str] = {}
    metrics: dict[str, Any] = {}
    for book in books:
        rows += book.rows
        rejects += book.rejects
        unused |= book.unused(why)
        for name, value in book.metrics.items():
            metrics[name] = metrics.get(name, 0) + value
    return StageResult(produces.batch(rows), rejects, metrics, unused)
