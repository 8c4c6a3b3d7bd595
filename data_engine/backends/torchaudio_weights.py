"""Weights of torchaudio's models: a state dict on this disk, or one that torchaudio publishes for a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from data_engine.backends.codec_files import files_hash
from data_engine.backends.torch_device import torch_device
from data_engine.core.errors import ConfigError, MissingExtraError

EXTRA = "torchaudio"


def weights_revision(model: str, bundles: Mapping[str, str], needed_by: str) -> str:
    """Returns SHA-256 of a file of weights; of a bundle, torchaudio's version and its name stand for them.

    Args:
        model: Path or name of a bundle.
        bundles: Name -> file on torchaudio's server.
        needed_by: Back end, for messages.

    Raises:
        MissingExtraError: torchaudio is not installed.
        ConfigError: `model` is neither.
    """
    if Path(model).is_file():
        return files_hash([Path(model)])
    if model not in bundles:
        raise ConfigError(
            f"{needed_by} needs the option 'model': a file with a state dict (.safetensors, .pt, .pth), or one of "
            f"{sorted(bundles)}; there is no file '{model}'"
        )
    try:
        return f"torchaudio-{version('torchaudio')}-{model}"
    except PackageNotFoundError as error:
        raise MissingExtraError("torchaudio", EXTRA, needed_by) from error


def load_weights(network: Any, model: str, bundles: Mapping[str, str], offline: bool, needed_by: str) -> None:
    """Loads a state dict into a network; a file is read as tensors only, code in it is never run.

    Args:
        network: `torch.nn.Module`.
        model: Path or name of a bundle.
        bundles: Name -> file on torchaudio's server.
        offline: Take the weights of a bundle from the local cache only.
        needed_by: Back end, for messages.

    Raises:
        MissingExtraError: safetensors is not installed.
        ConfigError: The weights are not there, or those of another network.
    """
    path = Path(model) if Path(model).is_file() else _bundle_file(bundles[model], offline, needed_by)
    try:
        network.load_state_dict(_read(path, needed_by))
    except (AttributeError, RuntimeError, TypeError) as error:
        raise ConfigError(f"{needed_by}: '{path}' holds the weights of another network: {error}") from error


def _read(path: Path, needed_by: str) -> Any:
    """Returns the tensors of a file by name."""
    import torch

    try:
        if path.suffix != ".safetensors":
            return torch.load(path, map_location="cpu", weights_only=True)
        from safetensors.torch import load_file
    except ImportError as error:
        raise MissingExtraError("safetensors", EXTRA, needed_by) from error
    except Exception as error:  # pickles and archives raise their own
        raise ConfigError(f"{needed_by}: cannot read '{path}': {type(error).__name__}: {error}") from error
    try:
        return load_file(path)
    except Exception as error:  # safetensors raises its own
        raise ConfigError(f"{needed_by}: cannot read '{path}': {error}") from error


def _bundle_file(key: str, offline: bool, needed_by: str) -> Path:
    """Returns the local file of a bundle, in torchaudio's cache."""
    import torch
    from torchaudio.utils import _download_asset  # what the bundles themselves call

    cached = Path(torch.hub.get_dir()) / "torchaudio" / key
    if offline and not cached.is_file():
        raise ConfigError(f"{needed_by}: '{cached}' is not there; set offline: false to download it")
    try:
        return Path(_download_asset(key, progress=False))
    except Exception as error:  # the download raises what it likes
        raise ConfigError(f"{needed_by}: cannot download '{key}': {error}") from error


def torchaudio_device(device: str, threads: int, needed_by: str) -> Any:
    """Returns the `torch.device` to compute on, and gives the CPU its number of threads.

    Raises:
        MissingExtraError: torch or torchaudio is not installed.
        ConfigError: The device is missing.
    """
    try:
        import torchaudio  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(error.name or "torchaudio", EXTRA, needed_by) from error
    return torch_device(device, threads, EXTRA, needed_by)
