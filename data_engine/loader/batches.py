"""Batches of tensors: padding for examples, and the mask of masked DPO for TRL's batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from data_engine.loader.packing import IGNORE, example_labels
from data_engine.tokens.vocabulary import AUDIO_OFFSET

Batch = dict[str, torch.Tensor]


def collate(rows: Sequence[Mapping[str, Any]], *, pad_id: int = 0, multiple_of: int = 1) -> Batch:
    """Pads AQAA examples to the longest of the batch, or stacks packed blocks.

    Args:
        rows: Rows with `input_ids` and `loss_mask`, or blocks of `pack`.
        pad_id: Padding on the right.
        multiple_of: Lengths are rounded up to a multiple of it.

    Returns:
        For examples `input_ids`, `labels` (-100 where the loss does not count), `attention_mask` and `position_ids`,
        for blocks their own keys; int64, shape (rows, length).
    """
    if "segment_ids" in rows[0]:
        return {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}
    longest = max(len(row["input_ids"]) for row in rows)
    shape = (len(rows), -(-longest // multiple_of) * multiple_of)
    ids, labels = np.full(shape, pad_id, np.int64), np.full(shape, IGNORE, np.int64)
    attention = np.zeros(shape, np.int64)
    for index, row in enumerate(rows):
        length = len(row["input_ids"])
        ids[index, :length], labels[index, :length] = row["input_ids"], example_labels(row)
        attention[index, :length] = 1
    arrays = {"input_ids": ids, "labels": labels, "attention_mask": attention}
    arrays["position_ids"] = np.broadcast_to(np.arange(shape[1]), shape).copy()
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def mask_audio(collator: Callable[[list[Any]], dict[str, Any]]) -> Callable[[list[Any]], dict[str, Any]]:
    """Wraps TRL's preference collator so that audio ids carry no DPO loss.

    Masked DPO of Step-Audio-AQAA (arXiv 2506.08967): m_t is 0 for the audio vocabulary. Text, markers and the end of
    turn keep their loss, as in the `mask_chosen` and `mask_rejected` columns of the preferences table.

    Args:
        collator: For example `trl.trainer.dpo_trainer.DataCollatorForPreference(pad_token_id=...)`.
    """

    def collate_masked(examples: list[Any]) -> dict[str, Any]:
        batch = collator(examples)
        return {**batch, "completion_mask": batch["completion_mask"] * (batch["input_ids"] < AUDIO_OFFSET)}

    return collate_masked
