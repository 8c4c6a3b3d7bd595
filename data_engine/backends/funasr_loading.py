"""Models in FunASR's layout: which files decide what they say, and loading them without network and surprises."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from data_engine.backends.codec_files import files_hash
from data_engine.core.errors import ConfigError, MissingExtraError

_ENCODER_FILES = ("config.yaml", "configuration.json", "am.mvn")
_TEXT_FILES = ("tokens.json", "tokens.txt", "seg_dict")
_WEIGHTS = ("model.pt", "model.pb")


def folder_files(folder: Path, with_text: bool = False) -> list[Path]:
    """Returns the files of a folder that decide its states.

    Args:
        folder: In FunASR's layout.
        with_text: Those that turn tokens into text too.

    Raises:
        ConfigError: It has no weights.
    """
    weights = [folder / name for name in _WEIGHTS if (folder / name).is_file()]
    if not weights:
        raise ConfigError(f"'{folder}' is no FunASR folder: there is neither {' nor '.join(_WEIGHTS)}")
    pieces = sorted(folder.glob("*.model")) if with_text else []
    names = (*_ENCODER_FILES, *(_TEXT_FILES if with_text else ()))
    return [*(folder / name for name in names if (folder / name).is_file()), *pieces, *weights]


def checked_name(name: str, hub_revision: str | None, needed_by: str) -> str:
    """Returns a folder or hub id.

    Args:
        name: As it was given.
        hub_revision: Commit or tag of a hub id.
        needed_by: Role and name of the back end.

    Raises:
        ConfigError: It is neither a folder nor a hub id with a revision.
    """
    if not name:
        raise ConfigError(f"{needed_by} needs the option 'model': a FunASR folder, or a hub id")
    if not Path(name).is_dir() and not hub_revision:
        raise ConfigError(f"there is no folder '{name}'. If it is a hub id, give 'model_revision' a commit or tag too")
    return name


def model_revision(name: str, hub: str, hub_revision: str | None) -> str:
    """Returns SHA-256 over the files of a folder; of a hub id, its name and revision stand for them."""
    if Path(name).is_dir():
        return files_hash(folder_files(Path(name), with_text=True))
    return files_hash([], f"{hub}:{name}@{hub_revision}")


def load_funasr(
    model: str, device: str, threads: int, hub: str, revision: str | None, offline: bool, needed_by: tuple[str, str]
) -> Any:
    """Returns a loaded `funasr.AutoModel`, in evaluation mode; code that comes with a checkpoint is never run.

    Args:
        model: Folder or hub id.
        device: `cpu`, `cuda` or `cuda:N`.
        threads: Of torch, on the CPU.
        hub: `ms` (ModelScope) or `hf` (Hugging Face), of a hub id.
        revision: Of a hub id.
        offline: Take a hub id from the local cache only.
        needed_by: The extra that brings funasr, and what needs it.

    Raises:
        MissingExtraError: funasr, torch or the hub's library is not installed.
        ConfigError: The model is not there or cannot be loaded, or the device is missing.
    """
    extra, purpose = needed_by
    try:
        import torch

        with redirect_stdout(sys.stderr):  # it prints on import and on loading; stdout is for results
            from funasr import AutoModel
    except ImportError as error:
        raise MissingExtraError(error.name or "funasr", extra, purpose) from error
    if device != "cpu" and not torch.cuda.is_available():
        raise ConfigError(f"device '{device}': torch sees no CUDA here; use device cpu")
    folder = model if Path(model).is_dir() else _snapshot(model, hub, revision, offline, extra)
    # FunASR quietly falls back to the CPU, prints, looks for updates and takes four threads unless told not to.
    quiet: dict[str, Any] = {"disable_update": True, "disable_pbar": True, "log_level": "ERROR"}
    try:
        with redirect_stdout(sys.stderr):
            loaded = AutoModel(model=folder, device=device, ncpu=threads, check_latest=False, **quiet)
    except (AssertionError, AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(f"FunASR cannot load '{model}': {type(error).__name__}: {error}") from error
    loaded.model.eval()
    frontend = loaded.kwargs.get("frontend")
    if frontend is not None:
        # Dither adds noise to the wave: the same clip would be heard differently each time.
        frontend.dither = 0.0
    return loaded


def _snapshot(name: str, hub: str, revision: str | None, offline: bool, extra: str) -> str:
    """Returns the local folder of a hub id."""
    try:
        if hub == "hf":
            from huggingface_hub import snapshot_download

            return str(snapshot_download(name, revision=revision, local_files_only=offline))
        from modelscope.hub.snapshot_download import snapshot_download as from_modelscope

        return str(from_modelscope(name, revision=revision, local_files_only=offline))
    except ImportError as error:
        raise MissingExtraError(error.name or "modelscope", extra, f"the hub id '{name}'") from error
    except Exception as error:  # each hub raises its own
        remedy = "; set offline: false to download it" if offline else ""
        raise ConfigError(f"cannot get '{name}' at '{revision}' from {hub}: {error}{remedy}") from error
