"""The Dask runner: one task per stretch of a shard on `distributed`; results are small reports."""

from data_engine.runners.dask.options import DaskOptions
from data_engine.runners.dask.runner import DaskRunner

__all__ = ["DaskOptions", "DaskRunner"]
