"""Semantic codes from `speech_tokenizer_v1.onnx`, many clips at a time, each as if it were alone.

Source: CosyVoice (arXiv 2407.05407, sec. 3.1) for the network, Step-Audio (arXiv 2502.11946) for windows of 30 s.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_engine.backends.protocols import Wave
from data_engine.core.errors import ConfigError, MissingExtraError
from data_engine.models.features import Floats
from data_engine.models.whisper_mel import TOKEN_SAMPLES, whisper_log_mel

Ints = npt.NDArray[np.int64]

WINDOW = 480_000
SHORTEST = 480
"""Samples: windows of 30 s; a last one below 480 samples is dropped (Step-Audio's inference code)."""

_PROBE_FRAMES = (97, 160, 131)
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def onnx_session(path: Path, device: str, threads: int) -> Any:
    """Returns an onnxruntime session.

    Args:
        path: ONNX file.
        device: `cpu`, `cuda` or `cuda:N`.
        threads: Of one operator on the CPU; one makes results independent of the machine's cores.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        ConfigError: The file is missing or no ONNX model, or onnxruntime has no such device.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "embedded", f"the codec's '{path.name}'") from error
    kind, _, number = device.partition(":")
    provider = _PROVIDERS.get(kind)
    if provider not in onnxruntime.get_available_providers():
        raise ConfigError(f"onnxruntime here has no device '{device}'; use cpu, or install onnxruntime-gpu for cuda")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    chosen: list[Any] = [(provider, {"device_id": int(number or 0)})] if kind == "cuda" else []
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=[*chosen, _PROVIDERS["cpu"]])
    except Exception as error:  # the library raises nothing narrower
        raise ConfigError(f"cannot load '{path}': {error}") from error


def length_batches(lengths: Sequence[int], most: int, equal: bool = False) -> list[list[int]]:
    """Returns numbers of clips grouped by length, longest first; padding adds at most a quarter to any clip.

    Args:
        lengths: Frames of each clip.
        most: Frames of a batch with its padding; a longer clip is alone.
        equal: Only clips of one length go together.
    """
    order = sorted(range(len(lengths)), key=lambda number: (-lengths[number], number))
    batches: list[list[int]] = []
    for number in order:
        longest = lengths[batches[-1][0]] if batches else 0
        fits = batches and (len(batches[-1]) + 1) * longest <= most
        near = lengths[number] == longest if equal else 4 * longest <= 5 * lengths[number]
        if fits and near:
            batches[-1].append(number)
        else:
            batches.append([number])
    return batches


class SemanticSession:
    """An opened semantic tokenizer.

    A file with a free batch dimension is asked, once, whether padded clips keep their codes; if not, only clips of
    one length go together. A file for one clip at a time gets one clip at a time.

    Args:
        path: `speech_tokenizer_v1.onnx`: feats [batch, 128, frames] and feats_length [batch] to codes.
        device: As `onnx_session`.
        threads: As `onnx_session`.
        batch_frames: Mel frames (10 ms) of a batch.
    """

    def __init__(self, path: Path, device: str = "cpu", threads: int = 1, batch_frames: int = 12_000) -> None:
        self._session = onnx_session(path, device, threads)
        inputs = self._session.get_inputs()
        if len(inputs) != 2:
            raise ConfigError(f"'{path}' has {len(inputs)} inputs; speech_tokenizer_v1.onnx has feats and feats_length")
        self._feats, self._length = (entry.name for entry in inputs)
        self._batch_frames = batch_frames
        self.batched = not isinstance(inputs[0].shape[0], int) and not isinstance(inputs[1].shape[0], int)
        self.padded = self.batched and self._keeps_codes_when_padded()

    def encode(self, waves: Sequence[Wave]) -> list[npt.NDArray[np.uint16]]:
        """Returns at most round(25 s) codes of each wave, uint16; half to even.

        Args:
            waves: float32 [samples] at 16 kHz, peak-normalised.
        """
        pieces = [(owner, piece) for owner, wave in enumerate(waves) for piece in windows(wave)]
        codes = self._run([np.ascontiguousarray(whisper_log_mel(piece).T) for _, piece in pieces])
        found: list[list[Ints]] = [[] for _ in waves]
        for owner, group in groupby(range(len(pieces)), key=lambda number: pieces[number][0]):
            found[owner] = [codes[number] for number in group]
        counts = [round(len(wave) / TOKEN_SAMPLES) for wave in waves]
        joined = [np.concatenate(parts) if parts else np.zeros(0, np.int64) for parts in found]
        return [row[:count].astype(np.uint16) for row, count in zip(joined, counts, strict=True)]

    def _run(self, mels: Sequence[Floats]) -> list[Ints]:
        lengths = [mel.shape[1] for mel in mels]
        most = self._batch_frames if self.batched else 0
        found: list[Ints] = [np.zeros(0, np.int64)] * len(mels)
        for chosen in length_batches(lengths, most, equal=not self.padded):
            codes = self._batch([mels[number] for number in chosen])
            for number, row in zip(chosen, codes, strict=True):
                found[number] = row
        return found

    def _batch(self, mels: Sequence[Floats]) -> list[Ints]:
        lengths = np.array([mel.shape[1] for mel in mels], np.int32)
        feats = np.zeros((len(mels), mels[0].shape[0], int(lengths.max())), np.float32)
        for row, mel in zip(feats, mels, strict=True):
            row[:, : mel.shape[1]] = mel
        codes = self._session.run(None, {self._feats: feats, self._length: lengths})[0]
        whole = codes.reshape(len(mels), -1).astype(np.int64)
        return [row[: (int(length) + 3) // 4] for row, length in zip(whole, lengths, strict=True)]

    def _keeps_codes_when_padded(self) -> bool:
        rng = np.random.default_rng(0)
        mels = [rng.uniform(-1, 1, (128, frames)).astype(np.float32) for frames in _PROBE_FRAMES]
        together = self._batch(mels)
        return all(np.array_equal(self._batch([mel])[0], row) for mel, row in zip(mels, together, strict=True))


def windows(wave: Wave) -> list[Wave]:
    """Returns pieces of 30 s and the rest, if it is not too short."""
    pieces = [wave[start : start + WINDOW] for start in range(0, len(wave), WINDOW)]
    return [piece for piece in pieces if len(piece) >= SHORTEST]
