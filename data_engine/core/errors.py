"""Errors by level: record, batch, shard, run. Each says what was wrong, with which input, what to do."""

from __future__ import annotations


class EngineError(Exception):
    """Base of every error the engine raises on purpose."""


class ConfigError(EngineError):
    """A configuration that cannot run: raised before any work starts, exit code 2."""


class ContractError(EngineError):
    """Data or a stage broke its declared contract: a bug or a foreign file, never a bad recording."""


class StorageError(EngineError):
    """Output cannot be written or read back, and trying again will not help (disk full, permission, damaged part)."""


class ClusterError(EngineError):
    """The cluster that was to do the work is lost or does not take work: exit code 1, run again to finish."""


class BusyError(EngineError):
    """Another live run holds the output folder: exit code 1, wait for it and run again."""


class ShardError(EngineError):
    """One shard failed as a whole: it is retried, then recorded as dead."""


class TransientStorageError(ShardError):
    """Storage kept failing (5xx, time-outs, broken connections) until the backoff gave up: the shard is tried again."""


class BatchError(EngineError):
    """A batch does not fit (memory, model limits): the harness halves it until it does."""


class RecordError(EngineError):
    """One record is bad: it becomes a reject row.

    Args:
        code: A value of the `code` field of `schemas/reject.v1.json`.
        detail: One sentence for the person who looks at the rejects.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail

    def __reduce__(self) -> tuple[type[RecordError], tuple[str, str]]:
        return type(self), (self.code, self.detail)


class MissingExtraError(ConfigError):
    """A back end needs a library that is not installed."""

    def __init__(self, library: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the library '{library}', which is not installed. "
            f"Install it with: pip install 'speech-data-engine[{extra}]'"
        )
        self.library, self.extra, self.purpose = library, extra, purpose

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str, str]]:
        return type(self), (self.library, self.extra, self.purpose)
