"""Role `codec`, production: Step-Audio's two tokenizers as released, FunASR's encoder and CosyVoice's ONNX file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_engine.backends.codec_files import files_hash, read_codebook
from data_engine.backends.codec_speech import SpeechDecoder
from data_engine.backends.funasr_encoder import FunasrEncoder
from data_engine.backends.funasr_loading import folder_files
from data_engine.backends.protocols import CodeStreams, Wave
from data_engine.backends.semantic_session import SemanticSession
from data_engine.core.errors import ConfigError
from data_engine.models.codec_views import code_counts, nearest, normalise_peak
from data_engine.models.features import Floats

_NO_DECODER = (
    "codec 'step-audio' cannot decode: give the option 'decoder' the ONNX file of a token decoder (and 'vocoder' that "
    "of a vocoder), or leave synthesis of audio to the role tts"
)


class StepAudioCodec:
    """Dual-codebook tokenizer of Step-Audio (arXiv 2502.11946, sec. 3.1), many clips at a time.

    Args:
        linguistic: Folder in FunASR's Paraformer layout, or a hub id.
        codebook: `linguistic_tokenizer.npy`; default: the one in the folder.
        semantic: `speech_tokenizer_v1.onnx`.
        decoder: ONNX file of a token decoder (`data_engine.models.decoder_export`), if speech is wanted.
        vocoder: ONNX file of a vocoder; Griffin-Lim when not given.
        device: `cpu`, `cuda` or `cuda:N`, for both tokenizers and the decoder.
        hub: Where a hub id is looked up: `ms` (ModelScope) or `hf` (Hugging Face).
        model_revision: Commit or tag of a hub id; needed, since a moving branch has no tokenizer hash.
        offline: Take a hub id from the local cache only.
        batch_seconds: Seconds of audio, with padding, that a network sees at once.
        threads: Threads of the networks on the CPU.
        quant_bits: Bit width stamped into records.
    """

    sample_rate = 16000

    def __init__(
        self, linguistic: str | None = None, semantic: str | None = None, codebook: str | None = None,
        decoder: str | None = None, vocoder: str | None = None, device: str = "cpu", hub: str = "ms",
        model_revision: str | None = None, offline: bool = True, batch_seconds: float = 120.0, threads: int = 1,
        quant_bits: int = 32,
    ) -> None:  # fmt: skip
        self._linguistic, self._model_revision = linguistic or "", model_revision
        self._codebook_path = Path(codebook) if codebook else Path(self._linguistic) / "linguistic_tokenizer.npy"
        self._semantic_path = Path(semantic) if semantic else None
        self._speech = (Path(decoder) if decoder else None, Path(vocoder) if vocoder else None)
        self._device, self._threads, self._batch_frames = device, threads, int(batch_seconds * 100)
        self._hub, self._offline = hub, offline
        self.quant_bits = quant_bits
        self._encoder: FunasrEncoder | None = None
        self._semantic: SemanticSession | None = None
        self._decoder: SpeechDecoder | None = None
        self._codebook: Floats = np.zeros((0, 0), np.float32)

    @property
    def revision(self) -> str:
        """SHA-256 over the tokenizer files, the tokenizer hash; of a hub id, its name and revision stand for them.

        Raises:
            ConfigError: A file is missing, or a hub id has no revision.
        """
        files = [self._codebook_path, self._semantic_file()]
        folder = Path(self._checked_linguistic())
        if folder.is_dir():
            return files_hash([*folder_files(folder), *files])
        return files_hash(files, f"{self._hub}:{self._linguistic}@{self._model_revision}")

    def open(self) -> None:
        """Loads both tokenizers, and the decoder if there is one.

        Raises:
            MissingExtraError: funasr, torch or onnxruntime is not installed.
            ConfigError: A file is missing or not what it should be.
        """
        name, semantic = self._checked_linguistic(), self._semantic_file()
        self._codebook = read_codebook(self._codebook_path)
        self._encoder = FunasrEncoder(name, self._device, self._threads, self._hub, self._model_revision, self._offline)
        self._semantic = SemanticSession(semantic, self._device, self._threads, self._batch_frames)
        if self._speech[0]:
            self._decoder = SpeechDecoder(self._speech[0], self._speech[1], self._device, self._threads)

    def close(self) -> None:
        """Frees them."""
        self._encoder = self._semantic = self._decoder = None

    def encode(self, waves: Sequence[Wave]) -> list[CodeStreams]:
        """Returns the codes of each wave, independent of the waves beside it.

        Args:
            waves: float32 [samples] at 16 kHz, any length; peak-normalised here, not trimmed.
        """
        assert self._encoder is not None, "open() first"
        assert self._semantic is not None
        normal = [normalise_peak(wave) for wave in waves]
        states = self._encoder.states(normal, self._batch_frames)
        counts = [code_counts(len(wave))[0] for wave in waves]
        linguistic = [nearest(rows[:count], self._codebook) for rows, count in zip(states, counts, strict=True)]
        semantic = self._semantic.encode(normal)
        pairs = zip(linguistic, semantic, strict=True)
        return [CodeStreams(vq02.astype(np.uint16), vq06) for vq02, vq06 in pairs]

    def decode(self, streams: Sequence[CodeStreams], speakers: Sequence[npt.NDArray[np.float32]]) -> list[Wave]:
        """Returns 1,920 samples, 120 ms, per complete group, in the voice of each speaker embedding [256].

        Raises:
            ConfigError: No decoder was given.
        """
        return self._spoken().speak(streams, speakers)

    def decode_stream(self, codes: CodeStreams, speaker: npt.NDArray[np.float32], groups: int = 5) -> Iterator[Wave]:
        """Yields speech `groups` complete groups of 120 ms at a time, for who plays it while codes still come.

        Raises:
            ConfigError: No decoder was given or no vocoder.
        """
        return self._spoken().stream(codes, speaker, groups)

    def _spoken(self) -> SpeechDecoder:
        if self._decoder is None:
            raise ConfigError(_NO_DECODER)
        return self._decoder

    def _semantic_file(self) -> Path:
        if self._semantic_path is None:
            raise ConfigError("codec 'step-audio' needs the option 'semantic': the path of speech_tokenizer_v1.onnx")
        return self._semantic_path

    def _checked_linguistic(self) -> str:
        if not self._linguistic:
            raise ConfigError("codec 'step-audio' needs the option 'linguistic': a FunASR folder, or a hub id")
        if not Path(self._linguistic).is_dir() and not self._model_revision:
            raise ConfigError(
                f"there is no folder '{self._linguistic}'. If it is a hub id, give 'model_revision' a commit or tag too"
            )
        return self._linguistic
