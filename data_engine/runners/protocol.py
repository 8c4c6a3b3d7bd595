"""What a runner is: it executes shards of a plan, and it sums something up over many parts. Nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Protocol

from data_engine.core.plan import Plan
from data_engine.io.storage import Storage

Report = dict[str, Any]
"""{shard, status: committed | skipped, groups} or {shard, status: dead, reason, attempts}; JSON types."""


class Summary(Protocol):
    """Something small that is known of many parts: counted part by part on any machine, joined in one place.

    An instance is pickled; what `count` returns is small and picklable.
    """

    def count(self, storage: Storage, part: str) -> Any:
        """Returns what one part adds.

        Args:
            storage: Output folder.
            part: Name of a file inside it.
        """
        ...

    def join(self, counted: Sequence[Any]) -> Any:
        """Returns the whole; `counted` is in the order of the parts, so sums of floats are equal on every engine."""
        ...


class Runner(Protocol):
    """Executes plans; a context manager that holds its processes or its cluster as long as it is open.

    Built as `Class(workers, options)`: number of processes where the runner makes its own, and `runner.options`.
    """

    def __enter__(self) -> Runner:
        """Takes nothing yet: workers start with the first plan."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends its processes."""
        ...

    def run(self, plan: Plan, shards: Sequence[int]) -> Iterator[Report]:
        """Runs shards that are not committed yet and yields a report for each, in order of completion.

        Raises:
            ConfigError, ContractError, StorageError: The run cannot go on, whatever the shard.
        """
        ...

    def summarise(self, summary: Summary, storage: Storage, parts: Sequence[str]) -> Any:
        """Returns the summary over the parts of an output folder."""
        ...
