"""Packed blocks as a torch dataset whose state is as exact as that of the rows below it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from torch.utils.data import IterableDataset

from data_engine.core.errors import ContractError
from data_engine.loader.dataset import ShardDataset
from data_engine.loader.packing import Block, OverLong, PackingReport, pack_window


class PackedDataset(IterableDataset[Block]):
    """Blocks of `pack` over a `ShardDataset` of the table "aqaa".

    Its state is the state of the rows before the current window and the blocks of it that are done, so restoring
    reads one window again and gives the very next block.

    Args:
        rows: Dataset with at least `input_ids` and `loss_mask`, and `example_id` for reports.
        max_length: Ids of a block.
        pad_id: Fills a block up.
        window: Examples packed together.
        over_long: As `pack`; what was left out is in `report`, which each worker process has of its own.
    """

    def __init__(
        self, rows: ShardDataset, max_length: int, *, pad_id: int = 0, window: int = 256, over_long: OverLong = "raise"
    ) -> None:
        self.rows = rows
        self.report = PackingReport()
        self._max_length, self._pad_id, self._over_long = max_length, pad_id, over_long
        self._window = window
        self._before: dict[str, Any] | None = None
        self._done = 0
        self._resumed = False

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch of the rows."""
        self.rows.set_epoch(epoch)

    def __iter__(self) -> Iterator[Block]:
        """Yields blocks as `pack`; starts after a loaded state."""
        if not self._resumed:
            self._before, self._done = None, 0
        self._resumed = False
        return self._blocks(iter(self.rows), self._done)

    def _blocks(self, rows: Iterator[Mapping[str, Any]], skip: int) -> Iterator[Block]:
        while True:
            before = self.rows.state_dict()
            window = list(islice(rows, self._window))
            blocks = pack_window(window, self._max_length, self._pad_id, self._over_long, self.report)
            for number, block in enumerate(blocks[skip:], skip + 1):
                self._before, self._done = before, number
                yield block
            skip = 0
            if len(window) < self._window:
                return

    def state_dict(self) -> dict[str, Any]:
        """Returns where this consumer is."""
        settings = {"window": self._window, "max_length": self._max_length}
        return {"rows": self._before or self.rows.state_dict(), "blocks": self._done, **settings}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Makes the next iteration go on after the block the state was taken at.

        Raises:
            ContractError: The state belongs to other rows, or to blocks of another size.
        """
        if (state["window"], state["max_length"]) != (self._window, self._max_length):
            raise ContractError(
                f"this state is of blocks of {state['max_length']} ids, packed {state['window']} examples at a time; "
                f"here they are {self._max_length} and {self._window}"
            )
        self.rows.load_state_dict(state["rows"])
        self._before, self._done, self._resumed = dict(state["rows"]), int(state["blocks"]), True
