"""Where torch computes: the device that a back end was given, and the processor's threads."""

from __future__ import annotations

from typing import Any

from data_engine.core.errors import ConfigError, MissingExtraError


def torch_device(device: str, threads: int, extra: str, needed_by: str) -> Any:
    """Returns the `torch.device` to compute on, and gives the CPU its number of threads.

    Raises:
        MissingExtraError: torch is not installed.
        ConfigError: The device is missing.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("torch", extra, needed_by) from error
    if device != "cpu" and not torch.cuda.is_available():
        raise ConfigError(f"device '{device}': torch sees no CUDA here; use device cpu")
    if device == "cpu":
        torch.set_num_threads(threads)
    return torch.device(device)
