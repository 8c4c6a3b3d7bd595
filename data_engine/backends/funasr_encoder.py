"""States of a FunASR encoder in Paraformer layout, many clips at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_engine.backends.protocols import Wave
from data_engine.backends.semantic_session import length_batches
from data_engine.core.errors import ConfigError, MissingExtraError
from data_engine.models.features import Floats
from data_engine.models.kaldi_fbank import FRAME, LFR_STEP

_FILES = ("config.yaml", "configuration.json", "am.mvn")
_WEIGHTS = ("model.pt", "model.pb")
_EXTRA = "step-audio"


def folder_files(folder: Path) -> list[Path]:
    """Returns the files of a folder that decide its states.

    Raises:
        ConfigError: It has no weights.
    """
    weights = [folder / name for name in _WEIGHTS if (folder / name).is_file()]
    if not weights:
        raise ConfigError(f"'{folder}' is no FunASR folder: there is neither {' nor '.join(_WEIGHTS)}")
    return [*(folder / name for name in _FILES if (folder / name).is_file()), *weights]


class FunasrEncoder:
    """An opened encoder.

    Args:
        model: Folder or hub id.
        device: `cpu`, `cuda` or `cuda:N`.
        threads: Of torch, on the CPU.
        hub: `ms` or `hf`, of a hub id.
        revision: Of a hub id.
        offline: Take a hub id from the local cache only.

    Raises:
        MissingExtraError: funasr or torch is not installed.
        ConfigError: The model cannot be loaded, has no offline encoder, or the device is missing.
    """

    def __init__(
        self, model: str, device: str, threads: int, hub: str = "ms", revision: str | None = None, offline: bool = True
    ) -> None:
        try:
            import torch
            from funasr import AutoModel
        except ImportError as error:
            raise MissingExtraError(error.name or "funasr", _EXTRA, "codec 'step-audio'") from error
        if device != "cpu" and not torch.cuda.is_available():
            raise ConfigError(f"device '{device}': torch sees no CUDA here; use device cpu")
        folder = model if Path(model).is_dir() else _snapshot(model, hub, revision, offline)
        # FunASR quietly falls back to the CPU, prints, looks for updates and takes four threads unless told not to.
        quiet: dict[str, Any] = {"disable_update": True, "disable_pbar": True, "log_level": "ERROR"}
        loaded = AutoModel(model=folder, device=device, ncpu=threads, check_latest=False, **quiet)
        self._model, self._frontend, self._device = loaded.model.eval(), loaded.kwargs.get("frontend"), device
        if self._frontend is None or not hasattr(self._model, "encode"):
            raise ConfigError(f"'{model}' is no Paraformer: its model has no frontend or no encoder")
        if hasattr(self._model, "encode_chunk"):
            raise ConfigError(f"'{model}' is a streaming Paraformer, whose states depend on how a clip is cut into "
                              "chunks; codec 'step-audio' takes an offline one")  # fmt: skip
        # Dither adds noise to the wave: the same clip would get other tokens each time.
        self._frontend.dither = 0.0

    def states(self, waves: Sequence[Wave], batch_frames: int) -> list[Floats]:
        """Returns the states of each wave, float32 [60 ms frames, size]; none for a wave below 25 ms.

        Args:
            waves: float32 [samples] at 16 kHz, full scale 1.
            batch_frames: Filterbank frames (10 ms) of a batch, with its padding.
        """
        long = [number for number, wave in enumerate(waves) if len(wave) >= FRAME]
        features = {number: self._features(waves[number]) for number in long}
        empty = np.zeros((0, int(self._model.encoder.output_size())), np.float32)
        found: list[Floats] = [empty] * len(waves)
        lengths = [len(features[number]) for number in long]
        for batch in length_batches(lengths, max(batch_frames // LFR_STEP, 1)):
            chosen = [long[position] for position in batch]
            for number, states in zip(chosen, self._encode([features[n] for n in chosen]), strict=True):
                found[number] = states
        return found

    def _features(self, wave: Wave) -> Any:
        """Returns normalised stacked filterbanks [frames, 560] of one wave; alone, so that no neighbour pads it."""
        import torch

        features, lengths = self._frontend(torch.from_numpy(np.ascontiguousarray(wave))[None], [len(wave)])
        return features[0, : int(lengths[0])].float()

    def _encode(self, features: Sequence[Any]) -> list[Floats]:
        import torch

        lengths = torch.tensor([len(rows) for rows in features], dtype=torch.int32)
        padded = torch.nn.utils.rnn.pad_sequence(list(features), batch_first=True)
        with torch.inference_mode():
            states = self._model.encode(padded.to(self._device), lengths.to(self._device))[0].float().cpu().numpy()
        return [rows[: int(length)] for rows, length in zip(states, lengths, strict=True)]


def _snapshot(name: str, hub: str, revision: str | None, offline: bool) -> str:
    """Returns the local folder of a hub id."""
    try:
        if hub == "hf":
            from huggingface_hub import snapshot_download

            return str(snapshot_download(name, revision=revision, local_files_only=offline))
        from modelscope.hub.snapshot_download import snapshot_download as from_modelscope

        return str(from_modelscope(name, revision=revision, local_files_only=offline))
    except ImportError as error:
        raise MissingExtraError(error.name or "modelscope", _EXTRA, f"the hub id '{name}'") from error
    except Exception as error:  # each hub raises its own
        remedy = "; set offline: false to download it" if offline else ""
        raise ConfigError(f"cannot get '{name}' at '{revision}' from {hub}: {error}{remedy}") from error
