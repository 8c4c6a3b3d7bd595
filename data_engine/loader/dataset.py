"""The torch dataset over an output folder: every row once per epoch over all ranks and workers, exactly resumable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from data_engine.core.errors import ConfigError, ContractError
from data_engine.core.schema import load_schema
from data_engine.core.signature import digest
from data_engine.io.matching import checked_filters
from data_engine.io.mixtures import read_mixture
from data_engine.io.shards import ROWS_PER_BATCH, TABLE_SCHEMAS
from data_engine.io.storage import Storage
from data_engine.loader.order import Shuffle, consumer_range, windows
from data_engine.loader.reading import Row, UnitReader, list_units, row_of

STATE_VERSION = 1


class ShardDataset(IterableDataset[Row]):
    """Rows of a table of one or more output folders.

    Sharding: the rows of an epoch stand in one order, and each consumer (a worker of a rank) takes a contiguous
    share of it. Shares differ by at most one row however many shards, batches, ranks and workers there are; `filters`
    are applied after that, so filtered shares are about equal only. A consumer reads the record batches of its share,
    none else; a batch that lies across two shares is read by both.

    Shuffle: record batches (64 rows) are put in a random order, then the rows of every `shuffle_buffer` rows' worth
    of consecutive batches. Both depend on seed, epoch and position alone.

    State: `state_dict` is the number of rows done. Because no order depends on what was read before, restoring reads
    one window (at most `shuffle_buffer` rows) however far the epoch has come. With worker processes each worker has a
    state of its own: torchdata's `StatefulDataLoader` collects them; torch's `DataLoader` does not.

    Args:
        outputs: Output folder or folders: local paths or fsspec URIs.
        table: Table to read, e.g. "aqaa", "preferences", "segments".
        columns: Columns of the rows; none: all of them. Others are not even decompressed.
        filters: Column -> value or values a row must have, e.g. {"split": "train", "language": ["en", "zh"]}.
        mixture: Name of a mixture (`data-engine mix`) that each folder has: only its rows are given out. Like
            `filters` it is applied to each consumer's share.
        decisions: Name of the filter result (`data-engine filter`) that segments are read with; none: the one in
            force now in each folder; "run": what the run itself decided.
        shuffle: Shuffle the rows.
        seed: Seed of the shuffle.
        shuffle_buffer: Rows mixed with each other, rounded down to whole batches.
        rank: This process; none: as torch.distributed says, else 0.
        world_size: Number of processes; none: as torch.distributed says, else 1.
        storage_options: Options of the file system.

    Raises:
        ConfigError: No such table, column, filter value, filter result or mixture; a folder without committed parts; a
            bad rank.
        ContractError: Folders were made with two tokenizers. Raised while iterating when a later row shows it.
    """

    def __init__(
        self,
        outputs: str | Sequence[str],
        table: str,
        *,
        columns: Sequence[str] | None = None,
        filters: Mapping[str, Any] | None = None,
        mixture: str | None = None,
        decisions: str | None = None,
        shuffle: bool = False,
        seed: int = 0,
        shuffle_buffer: int = 1024,
        rank: int | None = None,
        world_size: int | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        uris = [outputs] if isinstance(outputs, str) else list(outputs)
        if table not in TABLE_SCHEMAS:
            raise ConfigError(f"there is no table '{table}'; tables are {', '.join(TABLE_SCHEMAS)}")
        schema = load_schema(TABLE_SCHEMAS[table])
        unknown = set(columns or ()) - set(schema.names)
        if unknown:
            raise ConfigError(f"{schema} has no column {sorted(unknown)}; it has {', '.join(schema.names)}")
        self.shuffle = Shuffle(shuffle, seed, shuffle_buffer)
        self.rank, self.world_size = _process(rank, world_size)
        folders = [Storage(uri, storage_options) for uri in uris]
        self._reader = UnitReader(
            folders, list_units(folders, table, decisions), schema, tuple(columns or schema.names),
            checked_filters(schema, filters or {}), [read_mixture(folder, mixture) for folder in folders if mixture],
        )  # fmt: skip
        self._check_mixtures(table)
        self._reader.check_folders()
        self._fingerprint = self._describe(table)
        # Shared memory, so that `set_epoch` reaches workers that live on between epochs.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]
        self._position = 0
        self._resume: dict[str, int] | None = None

    @property
    def num_rows(self) -> int:
        """Rows of all ranks and workers in an epoch, before filters."""
        return int(self._reader.units.rows.sum())

    @property
    def epoch(self) -> int:
        """Number of the epoch that the next iteration reads."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch, which changes the shuffle; call it before each epoch, on every rank.

        A loaded state counts for its own epoch only: another epoch starts at its first row.
        """
        self._epoch.fill_(epoch)

    def __iter__(self) -> Iterator[Row]:
        """Yields rows as dicts; number lists are arrays. Starts after a loaded state, else at the first row."""
        consumer, consumers = self._consumer()
        self._position = self._start(consumer, consumers)
        return self._rows(consumer, consumers)

    def _rows(self, consumer: int, consumers: int) -> Iterator[Row]:
        share = consumer_range(self.num_rows, consumer, consumers)
        batches = max(self.shuffle.buffer // ROWS_PER_BATCH, 1) if self.shuffle.enabled else 1
        rows = self._reader.units.rows
        for window in windows(rows, batches, self.shuffle, self.epoch, share, self._position):
            pieces = self._reader.read(window.pieces)
            ends = np.cumsum([batch.num_rows for batch, _ in pieces])
            for step in range(self._position - window.first, window.order.size):
                number = int(window.order[step])
                holder = int(np.searchsorted(ends, number, side="right"))
                batch, keep = pieces[holder]
                index = number - int(ends[holder]) + batch.num_rows
                self._position = window.first + step + 1
                if keep[index]:
                    yield row_of(batch, index)

    def state_dict(self) -> dict[str, Any]:
        """Returns where this consumer is: the next iteration after `load_state_dict` yields the very next row."""
        if self._resume is not None:
            return {"version": STATE_VERSION, "fingerprint": self._fingerprint, **self._resume}
        consumer, consumers = self._consumer()
        place = {"epoch": self.epoch, "position": self._position, "consumer": consumer, "consumers": consumers}
        return {"version": STATE_VERSION, "fingerprint": self._fingerprint, **place}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Makes the next iteration go on after the row the state was taken at.

        Raises:
            ContractError: The state belongs to other shards, filters or shuffle settings.
        """
        if state.get("version") != STATE_VERSION or state.get("fingerprint") != self._fingerprint:
            raise ContractError(
                "this loader state belongs to another dataset: shards, filters, seed, shuffle and shuffle_buffer must "
                "be those it was saved with"
            )
        self._resume = {key: int(state[key]) for key in ("epoch", "position", "consumer", "consumers")}
        self.set_epoch(self._resume["epoch"])

    def _start(self, consumer: int, consumers: int) -> int:
        resume, self._resume = self._resume, None
        if resume is None or resume["epoch"] != self.epoch:
            return 0
        if (resume["consumer"], resume["consumers"]) != (consumer, consumers):
            raise ContractError(
                f"this loader state is that of consumer {resume['consumer']} of {resume['consumers']}, here is "
                f"consumer {consumer} of {consumers}: resume with the same number of ranks and workers"
            )
        return resume["position"]

    def _consumer(self) -> tuple[int, int]:
        worker = get_worker_info()
        workers = worker.num_workers if worker else 1
        return self.rank * workers + (worker.id if worker else 0), self.world_size * workers

    def _check_mixtures(self, table: str) -> None:
        for mixture in self._reader.mixtures:
            if mixture.table != table:
                raise ConfigError(f"mixture '{mixture.name}' is one of the table '{mixture.table}', not of '{table}'")

    def _describe(self, table: str) -> str:
        hashes = [part.marker["sha256"] for _, part in self._reader.units.sources]
        filters = {name: list(values) for name, values in self._reader.filters.items()}
        described: list[Any] = [table, hashes, filters, self.shuffle.enabled, self.shuffle.seed, self.shuffle.buffer]
        described += [mixture.sha256 for mixture in self._reader.mixtures]
        return digest(described + self._reader.filter_results)


def _process(rank: int | None, world_size: int | None) -> tuple[int, int]:
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    if world_size is None:
        world_size = torch.distributed.get_world_size() if distributed else 1
    if rank is None:
        rank = torch.distributed.get_rank() if distributed else 0
    if not 0 <= rank < world_size:
        raise ConfigError(f"rank {rank} is outside 0..{world_size - 1}")
    return rank, world_size
