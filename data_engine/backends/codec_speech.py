"""Speech from codes through ONNX: the token decoder makes a mel spectrogram, the vocoder the wave."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_engine.backends.protocols import CodeStreams, Wave
from data_engine.backends.semantic_session import onnx_session
from data_engine.core.errors import ConfigError
from data_engine.models.features import Floats, MelSettings
from data_engine.models.griffin_lim import griffin_lim, mel_to_power
from data_engine.models.overlap_add import inverse_spectrum
from data_engine.tokens.layout import num_groups

FRAMES_PER_GROUP, GROUP_SAMPLES, SPEAKER_SIZE = 12, 1920, 256
_MEL = MelSettings()
_SEED = 0


class SpeechDecoder:
    """An opened token decoder.

    Args:
        decoder: ONNX: linguistic [1, 2 groups], semantic [1, 3 groups], speaker [1, 256] and noise
            [1, 12 groups, 80] to natural log mel [1, 12 groups, 80] every 10 ms.
        vocoder: ONNX: mel [1, frames, 80] to log magnitude and phase [1, frames, 642]; Griffin-Lim when None.
        device: As `onnx_session`.
        threads: As `onnx_session`.
        temperature: Deviation of the noise that flow matching starts from.
    """

    def __init__(
        self, decoder: Path, vocoder: Path | None, device: str = "cpu", threads: int = 1, temperature: float = 0.6
    ) -> None:
        self._decoder = onnx_session(decoder, device, threads)
        self._vocoder = onnx_session(vocoder, device, threads) if vocoder else None
        self._temperature = np.float32(temperature)

    def speak(self, streams: Sequence[CodeStreams], speakers: Sequence[Floats]) -> list[Wave]:
        """Returns 1,920 samples per complete group of each stream, at most 0.999 in magnitude.

        Args:
            streams: Codes; those beyond the last complete group are not heard.
            speakers: Unit-length embedding [256] of each.

        Raises:
            ConfigError: An embedding is not of the size the decoder was trained with.
        """
        return [self._one(stream, speaker) for stream, speaker in zip(streams, speakers, strict=True)]

    def _one(self, stream: CodeStreams, speaker: Floats) -> Wave:
        groups = num_groups(len(stream.vq02), len(stream.vq06))
        if not groups:
            return np.zeros(0, np.float32)
        if speaker.shape != (SPEAKER_SIZE,):
            raise ConfigError(f"the token decoder needs speaker embeddings of {SPEAKER_SIZE} numbers: choose the role "
                              f"speaker 'resemblyzer'; this one has shape {speaker.shape}")  # fmt: skip
        shape = (1, groups * FRAMES_PER_GROUP, _MEL.n_mels)
        noise = np.random.default_rng(_SEED).standard_normal(shape, np.float32) * self._temperature
        inputs = {
            "linguistic": stream.vq02[None, : 2 * groups].astype(np.int64),
            "semantic": stream.vq06[None, : 3 * groups].astype(np.int64),
            "speaker": speaker[None].astype(np.float32), "noise": noise,
        }  # fmt: skip
        mel = self._decoder.run(["mel"], inputs)[0][0]
        wave = self._wave(np.concatenate([mel, mel[-1:]]), groups * GROUP_SAMPLES)
        return np.asarray(wave * np.float32(0.999 / max(0.999, float(np.abs(wave).max()))), np.float32)

    def _wave(self, mel: Floats, num_samples: int) -> Wave:
        if self._vocoder is None:
            return griffin_lim(np.sqrt(mel_to_power(np.exp(mel), _MEL)), num_samples, _MEL)
        spectrum = self._vocoder.run(["spectrum"], {"mel": mel[None]})[0][0]
        return inverse_spectrum(spectrum, _MEL.hop)[:num_samples]
