"""Role `codec`, embedded: this project's own small tokenizers and decoder as ONNX, without torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_engine.backends.codec_files import files_hash, read_codebook
from data_engine.backends.codec_speech import SpeechDecoder
from data_engine.backends.protocols import CodeStreams, Wave
from data_engine.backends.semantic_session import SemanticSession, onnx_session
from data_engine.core.errors import ConfigError
from data_engine.models.codec_views import code_counts, nearest, normalise_peak
from data_engine.models.features import Floats
from data_engine.models.kaldi_fbank import SAMPLE_RATE, kaldi_fbank, low_frame_rate

FOLDER = Path(__file__).parent.parent / "assets" / "codec_nano"
ENCODER, CODEBOOK, SEMANTIC = "encoder.onnx", "linguistic_tokenizer.npy", "speech_tokenizer_v1.onnx"
DECODER, VOCODER = "decoder.onnx", "vocoder.onnx"

FULL_BITS, SMALL_BITS = 32, 8


def network_file(folder: Path, name: str, bits: int) -> Path:
    """Returns the file of a tokenizer in 32 or 8 bits.

    Raises:
        ConfigError: Another number of bits.
    """
    if bits not in (FULL_BITS, SMALL_BITS):
        raise ConfigError(f"the tokenizers of codec 'nano' have {SMALL_BITS} or {FULL_BITS} bits, not {bits}")
    return folder / (name.replace(".onnx", ".int8.onnx") if bits == SMALL_BITS else name)


class NanoCodec:
    """Small Step-Audio tokenizers (arXiv 2502.11946, sec. 3.1): k-means on encoder states, FSQ semantic codes.

    Args:
        path: Folder with encoder.int8.onnx, linguistic_tokenizer.npy, speech_tokenizer_v1.int8.onnx and, to decode,
            decoder.onnx and vocoder.onnx; the shipped one when not given.
        bits: 8; 32 takes encoder.onnx and speech_tokenizer_v1.onnx, the float files of a training.
        threads: Threads of a network.
        batch_seconds: Seconds of audio the semantic tokenizer sees at once.
        temperature: Deviation of the noise the decoder starts from.
    """

    sample_rate = SAMPLE_RATE

    def __init__(
        self, path: str | None = None, bits: int = SMALL_BITS, threads: int = 1, batch_seconds: float = 120.0,
        temperature: float = 0.6,
    ) -> None:  # fmt: skip
        self._folder = Path(path) if path else FOLDER
        self.quant_bits = bits
        self._encoder_file, self._semantic_file = (
            network_file(self._folder, name, bits) for name in (ENCODER, SEMANTIC)
        )
        self._threads, self._batch_frames, self._temperature = threads, int(batch_seconds * 100), temperature
        self._encoder: Any = None
        self._semantic: SemanticSession | None = None
        self._decoder: SpeechDecoder | None = None
        self._codebook: Floats = np.zeros((0, 0), np.float32)

    @property
    def revision(self) -> str:
        """SHA-256 over the tokenizer files: the tokenizer hash. The decoder is none of its business.

        Raises:
            ConfigError: A file is missing.
        """
        return files_hash([self._encoder_file, self._folder / CODEBOOK, self._semantic_file])

    def open(self) -> None:
        """Loads the tokenizers, and the decoder when the folder has one.

        Raises:
            ConfigError: A file is missing or not what it should be.
            MissingExtraError: onnxruntime is not installed.
        """
        self._codebook = read_codebook(self._folder / CODEBOOK)
        self._encoder = onnx_session(self._encoder_file, "cpu", self._threads)
        self._semantic = SemanticSession(self._semantic_file, "cpu", self._threads, self._batch_frames)
        decoder, vocoder = self._folder / DECODER, self._folder / VOCODER
        if decoder.is_file():
            chosen = vocoder if vocoder.is_file() else None
            self._decoder = SpeechDecoder(decoder, chosen, "cpu", self._threads, self._temperature)

    def close(self) -> None:
        """Frees them."""
        self._encoder = self._semantic = self._decoder = None

    def encode(self, waves: Sequence[Wave]) -> list[CodeStreams]:
        """Returns the codes of each wave, independent of the waves beside it.

        Args:
            waves: float32 [samples] at 16 kHz, any length; peak-normalised here, not trimmed.
        """
        assert self._semantic is not None, "open() first"
        normal = [normalise_peak(wave) for wave in waves]
        linguistic = [self._linguistic(wave) for wave in normal]
        semantic = self._semantic.encode(normal)
        return [CodeStreams(vq02, vq06) for vq02, vq06 in zip(linguistic, semantic, strict=True)]

    def _linguistic(self, wave: Wave) -> npt.NDArray[np.uint16]:
        count, _ = code_counts(len(wave))
        if not count:
            return np.zeros(0, np.uint16)
        states = self._encoder.run(["states"], {"features": low_frame_rate(kaldi_fbank(wave))[None]})[0][0]
        return nearest(states[:count], self._codebook).astype(np.uint16)

    def decode(self, streams: Sequence[CodeStreams], speakers: Sequence[npt.NDArray[np.float32]]) -> list[Wave]:
        """Returns 1,920 samples, 120 ms, per complete group, in the voice of each speaker embedding [256].

        Raises:
            ConfigError: The folder has no decoder.
        """
        return self._spoken().speak(streams, speakers)

    def decode_stream(self, codes: CodeStreams, speaker: npt.NDArray[np.float32], groups: int = 5) -> Iterator[Wave]:
        """Yields speech `groups` complete groups of 120 ms at a time, for who plays it while codes still come.

        Raises:
            ConfigError: The folder has no decoder or no vocoder.
        """
        return self._spoken().stream(codes, speaker, groups)

    def _spoken(self) -> SpeechDecoder:
        if self._decoder is None:
            raise ConfigError(f"codec 'nano' cannot decode: there is no {DECODER} in '{self._folder}'")
        return self._decoder
