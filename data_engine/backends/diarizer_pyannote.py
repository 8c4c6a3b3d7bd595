"""Role `diarization`, production: `SpeakerDiarization` of pyannote.audio (Bredin 2023, Interspeech)."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_engine.backends.codec_files import files_hash
from data_engine.backends.protocols import Wave
from data_engine.backends.protocols_listening import Diarization, SpeakerTurn
from data_engine.backends.pyannote_folder import CONFIG, localised, parts_of, read_pipeline, snapshot
from data_engine.core.errors import ConfigError, MissingExtraError

_RATE = 16000
_SILENT = 1e-4
"""Peak up to which there is nobody to hear."""
_SHORTEST = 400
_NEEDED_BY = ("diarization", "diarization 'pyannote'")


class PyannoteDiarizer:
    """Segmentation with overlaps, speaker embedding and clustering, as a pipeline folder describes them.

    Takes the layouts of `pyannote/speaker-diarization-community-1` (VBx clustering with PLDA) and of
    `pyannote/speaker-diarization-3.1` (agglomerative clustering). A checkpoint is a pickle, which may hold code: take
    only those of authors you trust. No measurement is sent to anybody.

    Args:
        model: Folder with a config.yaml, or a hub id.
        model_revision: Commit or tag of a hub id; needed, since a moving branch would be another model each day.
        model_revisions: Hub id -> commit or tag of models that the pipeline takes from other repositories (3.1 does).
        offline: Take hub ids from the local cache only.
        device: `cpu`, `cuda` or `cuda:N`.
        segmentation_batch_size: Windows of audio that the segmentation sees at once.
        embedding_batch_size: Speakers of windows that the embedding sees at once.
        num_speakers: Of every wave, when known.
        min_speakers: At least so many.
        max_speakers: At most so many.
        threads: Threads of the networks on the CPU.
    """

    sample_rate = _RATE

    def __init__(
        self, model: str | None = None, model_revision: str | None = None,
        model_revisions: Mapping[str, str] | None = None, offline: bool = True, device: str = "cpu",
        segmentation_batch_size: int = 32, embedding_batch_size: int = 32, num_speakers: int | None = None,
        min_speakers: int | None = None, max_speakers: int | None = None, threads: int = 1,
    ) -> None:  # fmt: skip
        self._name, self._model_revision, self._offline = model or "", model_revision, offline
        self._model_revisions, self._device, self._threads = dict(model_revisions or {}), device, threads
        self._batches = {
            "segmentation_batch_size": max(segmentation_batch_size, 1),
            "embedding_batch_size": max(embedding_batch_size, 1),
        }
        self._counts = _speaker_counts(num_speakers, min_speakers, max_speakers)
        self._pipeline: Any = None
        self._dimensions = 0

    @property
    def revision(self) -> str:
        """Version of the library, which clusters, with SHA-256 over config and models; hub ids stand for theirs.

        Raises:
            MissingExtraError: pyannote.audio is not installed.
            ConfigError: A file is missing, or a hub id has no revision.
        """
        try:
            library = version("pyannote.audio")
        except PackageNotFoundError as error:
            raise MissingExtraError("pyannote.audio", *_NEEDED_BY) from error
        folder = Path(self._checked_name())
        if not folder.is_dir():
            others = [f"hf:{name}@{commit}" for name, commit in sorted(self._model_revisions.items())]
            return f"{library}-{files_hash([], f'hf:{self._name}@{self._model_revision}', *others)}"
        parts = parts_of(read_pipeline(folder), folder, self._model_revisions)
        files = [file for name, part in parts.items() if part.path for file in part.files(name)]
        remote = [part.address for part in parts.values() if not part.path]
        return f"{library}-{files_hash([folder / CONFIG, *files], *remote)}"

    def open(self) -> None:
        """Loads the models.

        Raises:
            MissingExtraError: pyannote.audio, torch or something they need is not installed.
            ConfigError: A model is not there or cannot be loaded, or the device is missing.
        """
        name = self._checked_name()
        # Set before the import, which would otherwise switch reporting to the authors on.
        os.environ["PYANNOTE_METRICS_ENABLED"] = "false"
        load = _loader(self._device, self._threads)
        folder = Path(name) if Path(name).is_dir() else snapshot(name, str(self._model_revision), self._offline)
        config = read_pipeline(folder)
        config = localised(config, parts_of(config, folder, self._model_revisions), self._offline)
        config["pipeline"]["params"].update(self._batches)
        self._pipeline = load(config, name)
        # The library has no public way to ask for it; its own answer for a file without speech reads the same.
        self._dimensions = int(self._pipeline._embedding.dimension)

    def close(self) -> None:
        """Frees them."""
        self._pipeline = None

    def diarize(self, waves: Sequence[Wave]) -> list[Diarization]:
        """Returns turns and voices of each wave, speakers numbered as they come.

        Args:
            waves: float32 [samples] each, 16 kHz; windows of one wave fill the batches, so the result for a wave does
                not depend on the others.

        Raises:
            MemoryError: A batch size is too large for the device.
        """
        assert self._pipeline is not None, "open() first"
        return [self._diarize(np.asarray(wave, np.float32)) for wave in waves]

    def _diarize(self, wave: Wave) -> Diarization:
        if len(wave) < _SHORTEST or np.abs(wave).max() <= _SILENT:
            return Diarization((), np.zeros((0, self._dimensions), np.float32))
        try:
            found = self._apply(wave, self._counts)
        except ValueError:
            if not self._counts:
                raise
            # k-means refuses more speakers than there are windows with a voice: a short wave has as many as are heard.
            found = self._apply(wave, {})
        return as_diarization(found.speaker_diarization, found.speaker_embeddings, len(wave))

    def _apply(self, wave: Wave, counts: Mapping[str, int]) -> Any:
        import torch

        file = {"waveform": torch.from_numpy(wave.copy())[None], "sample_rate": _RATE, "uri": "wave"}
        with redirect_stdout(sys.stderr):  # clustering prints; stdout is for results
            return self._pipeline(file, **counts)

    def _checked_name(self) -> str:
        if not self._name:
            raise ConfigError(
                "diarization 'pyannote' needs the option 'model': a folder with a config.yaml, or a hub id"
            )
        if not Path(self._name).is_dir() and not self._model_revision:
            raise ConfigError(
                f"there is no folder '{self._name}'. If it is a hub id, give 'model_revision' a commit or tag too"
            )
        return self._name


def _speaker_counts(exact: int | None, least: int | None, most: int | None) -> dict[str, int]:
    """Returns the counts that are asked for, by pyannote's names.

    Raises:
        ConfigError: No number of speakers fits.
    """
    named = {"num_speakers": exact, "min_speakers": least, "max_speakers": most}
    counts = {name: count for name, count in named.items() if count is not None}
    if any(count < 1 for count in counts.values()) or (least or 1) > (most or least or 1):
        raise ConfigError(f"diarization 'pyannote': no number of speakers fits {counts}")
    if exact is not None and not (least or exact) <= exact <= (most or exact):
        raise ConfigError(
            f"diarization 'pyannote': num_speakers lies outside of min_speakers and max_speakers: {counts}"
        )
    return counts


def _loader(device: str, threads: int) -> Any:
    """Returns a function (config, name) -> pipeline on a device.

    Raises:
        MissingExtraError: A library is not installed.
        ConfigError: The device is missing.
    """
    try:
        import torch
        from pyannote.audio import Pipeline
        from pyannote.audio.core.plda import PLDA
    except ImportError as error:
        raise MissingExtraError(error.name or "pyannote.audio", *_NEEDED_BY) from error
    if device != "cpu" and not torch.cuda.is_available():
        raise ConfigError(f"device '{device}': torch sees no CUDA here; use device cpu")

    def load(config: dict[str, Any], name: str) -> Any:
        # Without one the library downloads the gated PLDA of another pipeline, also for clusterings that use none.
        config["pipeline"]["params"].setdefault("plda", PLDA.__new__(PLDA))
        try:
            with redirect_stdout(sys.stderr):
                pipeline: Any = Pipeline.from_pretrained(config)
                pipeline.to(torch.device(device))
        except Exception as error:  # readers of yaml, pickles and arrays, and version checks raise their own
            raise ConfigError(f"pyannote.audio cannot load '{name}': {type(error).__name__}: {error}") from error
        if device == "cpu":
            torch.set_num_threads(threads)
        return pipeline

    return load


def as_diarization(annotation: Any, embeddings: npt.NDArray[Any] | None, num_samples: int) -> Diarization:
    """Returns turns in samples and unit-length voices from what pyannote found.

    Args:
        annotation: `pyannote.core.Annotation`, seconds.
        embeddings: [labels, dimensions], in the order of its labels; NaN or zeros where there is none.
        num_samples: Length of the wave; the last window reaches beyond it.
    """
    spans: list[tuple[int, int, str]] = []
    for segment, _, label in annotation.itertracks(yield_label=True):
        start, end = (min(max(round(time * _RATE), 0), num_samples) for time in (segment.start, segment.end))
        if end > start:
            spans.append((start, end - start, label))
    numbers = {label: n for n, label in enumerate(dict.fromkeys(label for _, _, label in sorted(spans)))}
    turns = sorted(SpeakerTurn(start, length, numbers[label]) for start, length, label in spans)
    rows = [annotation.labels().index(label) for label in numbers]
    voices = np.nan_to_num(np.asarray(embeddings, np.float64)[rows])
    lengths = np.linalg.norm(voices, axis=1, keepdims=True)
    return Diarization(tuple(turns), (voices / np.where(lengths > 0, lengths, 1)).astype(np.float32))
