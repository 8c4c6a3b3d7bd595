"""What trainers import: rows of committed shards as a torch dataset, packed blocks, padded batches."""

from data_engine.core.errors import MissingExtraError

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise MissingExtraError("torch", "train", "data_engine.loader") from error

from data_engine.loader.batches import collate, mask_audio
from data_engine.loader.dataset import ShardDataset
from data_engine.loader.packed import PackedDataset
from data_engine.loader.packing import OverLong, PackingReport, pack

__all__ = ["OverLong", "PackedDataset", "PackingReport", "ShardDataset", "collate", "mask_audio", "pack"]
