"""Sequence packing: AQAA examples into blocks of one length, nothing cut, no attention or loss across examples."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from data_engine.core.errors import ConfigError, ContractError

IGNORE = -100
"""Label that the loss leaves out, as torch's cross entropy has it."""
Block = dict[str, npt.NDArray[np.int64]]
OverLong = Literal["raise", "skip"]


@dataclass(slots=True)
class PackingReport:
    """What became of the examples; counts go up while blocks are drawn.

    Attributes:
        examples: Examples seen.
        packed: Of them, packed.
        over_long: Of them, left out because they are longer than a block.
        over_long_ids: Their `example_id`s.
        blocks: Blocks made.
        ids: Ids in them, padding not counted.
        padding: Padding ids in them.
    """

    examples: int = 0
    packed: int = 0
    over_long: int = 0
    over_long_ids: list[str] = field(default_factory=list)
    blocks: int = 0
    ids: int = 0
    padding: int = 0


def pack(
    examples: Iterable[Mapping[str, Any]],
    max_length: int,
    *,
    pad_id: int = 0,
    window: int = 256,
    over_long: OverLong = "raise",
    report: PackingReport | None = None,
) -> Iterator[Block]:
    """Packs examples into blocks of exactly `max_length` ids.

    Examples are taken `window` at a time and packed best fit, longest first. Labels are unshifted, as Hugging Face
    models expect; the first id of every example has none, so that no example is predicted from the one before it.
    Positions restart at every example, which is what tells a model with variable-length attention where one ends.

    Args:
        examples: Rows with `input_ids` and `loss_mask`, shape (n,) each; `example_id` names them in errors.
        max_length: Ids of a block.
        pad_id: Fills a block up.
        window: Examples packed together: more pad less and hold more in memory.
        over_long: What to do with an example longer than a block: stop with an error, or leave it out whole, count it
            in `report` and warn at the end. None is ever cut.
        report: Is filled while blocks are drawn.

    Yields:
        `input_ids`, `labels` (-100 where `loss_mask` is 0), `position_ids` and `segment_ids` (1, 2, ... in a block, 0
        for padding), int64, shape (max_length,).

    Raises:
        ConfigError: A length or window that is not positive.
        ContractError: An example is too long and `over_long` is "raise", or its mask has another length.
    """
    if max_length < 1 or window < 1:
        raise ConfigError(f"max_length={max_length}, window={window}: both must be at least 1")
    report = report if report is not None else PackingReport()
    source = iter(examples)
    while rows := list(islice(source, window)):
        yield from pack_window(rows, max_length, pad_id, over_long, report)
    if report.over_long:
        warnings.warn(f"{report.over_long} examples longer than {max_length} ids were left out", stacklevel=2)


def pack_window(
    rows: Sequence[Mapping[str, Any]], max_length: int, pad_id: int, over_long: OverLong, report: PackingReport
) -> list[Block]:
    """Returns the blocks of one window of rows; arguments as `pack`."""
    report.examples += len(rows)
    kept = [row for row in rows if _fits(row, max_length, over_long, report)]
    lengths = [len(row["input_ids"]) for row in kept]
    blocks = [_block([kept[i] for i in members], max_length, pad_id) for members in best_fit(lengths, max_length)]
    report.packed += len(kept)
    report.blocks += len(blocks)
    report.ids += sum(lengths)
    report.padding += len(blocks) * max_length - sum(lengths)
    return blocks


def best_fit(lengths: Sequence[int], max_length: int) -> list[list[int]]:
    """Returns which items share a block: best fit, longest first, members in their own order.

    Args:
        lengths: Length of every item, at most `max_length`.
        max_length: Room of a block.
    """
    blocks: list[list[int]] = []
    room: list[int] = []
    for item in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        fitting = [b for b, left in enumerate(room) if left >= lengths[item]]
        if not fitting:
            blocks.append([])
            room.append(max_length)
        block = min(fitting, key=lambda b: (room[b], b)) if fitting else len(room) - 1
        blocks[block].append(item)
        room[block] -= lengths[item]
    return [sorted(members) for members in blocks]


def example_labels(row: Mapping[str, Any]) -> npt.NDArray[np.int64]:
    """Returns the ids of an example where its loss counts and -100 elsewhere, unshifted, shape (n,).

    Raises:
        ContractError: Ids and mask differ in length.
    """
    ids, mask = np.asarray(row["input_ids"], np.int64), np.asarray(row["loss_mask"])
    if ids.shape != mask.shape:
        raise ContractError(f"{_name(row)} has {ids.size} ids and {mask.size} mask values")
    return np.where(mask != 0, ids, IGNORE)


def _fits(row: Mapping[str, Any], max_length: int, over_long: OverLong, report: PackingReport) -> bool:
    length = len(row["input_ids"])
    if length <= max_length:
        return True
    if over_long == "raise":
        raise ContractError(
            f"{_name(row)} has {length} ids, a block holds {max_length}. Raise max_length, or pass over_long='skip' to "
            "leave such examples out; none is ever cut."
        )
    report.over_long += 1
    report.over_long_ids.append(str(row.get("example_id", "")))
    return False


def _block(rows: Sequence[Mapping[str, Any]], max_length: int, pad_id: int) -> Block:
    lengths = [len(row["input_ids"]) for row in rows]
    padding = max_length - sum(lengths)
    labels = [example_labels(row) for row in rows]
    for example in labels:
        example[:1] = IGNORE
    sizes = [*lengths, padding]
    return {
        "input_ids": np.concatenate([*(np.asarray(r["input_ids"], np.int64) for r in rows), np.full(padding, pad_id)]),
        "labels": np.concatenate([*labels, np.full(padding, IGNORE)]),
        "position_ids": np.concatenate([np.arange(size) for size in sizes]),
        "segment_ids": np.repeat([*range(1, len(rows) + 1), 0], sizes),
    }


def _name(row: Mapping[str, Any]) -> str:
    return f"example '{row.get('example_id', '?')}'"
