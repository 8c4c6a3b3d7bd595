"""Speech from codes through ONNX: the token decoder makes a mel spectrogram, the vocoder the wave."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
_WHOLE_GROUPS, _OVERLAP = 500, 16
"""A minute at once, and two seconds around it."""


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

    def stream(
        self, codes: CodeStreams, speaker: Floats, groups: int = 5, behind: int = 8, ahead: int = 4
    ) -> Iterator[Wave]:
        """Yields the speech of `groups` groups of 120 ms after the other, each made with what lies around it only.

        Args:
            codes: Codes of one utterance.
            speaker: Unit-length embedding [256].
            groups: Groups of a chunk.
            behind: Groups before a chunk that are decoded again for it.
            ahead: Groups after a chunk that must be there before it is spoken: the delay.

        Raises:
            ConfigError: There is no vocoder, or the embedding has another size.
        """
        if self._vocoder is None:
            raise ConfigError("speech in chunks needs a vocoder: Griffin-Lim finds the phases of a whole utterance")
        _check(speaker)
        total = num_groups(len(codes.vq02), len(codes.vq06))
        for first in range(0, total, groups):
            last, start = min(first + groups, total), max(0, first - behind)
            stop = min(last + ahead, total)
            wave = self._wave(self._mel(codes, speaker, start, stop), (stop - start) * GROUP_SAMPLES)
            yield np.clip(wave[(first - start) * GROUP_SAMPLES : (last - start) * GROUP_SAMPLES], -0.999, 0.999)

    def _one(self, codes: CodeStreams, speaker: Floats) -> Wave:
        groups = num_groups(len(codes.vq02), len(codes.vq06))
        if not groups:
            return np.zeros(0, np.float32)
        _check(speaker)
        if self._vocoder is not None and groups > _WHOLE_GROUPS:  # memory stays flat however long the speech is
            return np.concatenate(list(self.stream(codes, speaker, _WHOLE_GROUPS, _OVERLAP, _OVERLAP)))
        wave = self._wave(self._mel(codes, speaker, 0, groups), groups * GROUP_SAMPLES)
        return np.asarray(wave * np.float32(0.999 / max(0.999, float(np.abs(wave).max()))), np.float32)

    def _mel(self, codes: CodeStreams, speaker: Floats, start: int, stop: int) -> Floats:
        """Returns natural log mel of groups start..stop, one frame longer: the last one is said twice."""
        inputs = {
            "linguistic": codes.vq02[None, 2 * start : 2 * stop].astype(np.int64),
            "semantic": codes.vq06[None, 3 * start : 3 * stop].astype(np.int64),
            "speaker": speaker[None].astype(np.float32), "noise": self._temperature * _noise(start, stop)[None],
        }  # fmt: skip
        mel: Floats = self._decoder.run(["mel"], inputs)[0][0]
        return np.concatenate([mel, mel[-1:]])

    def _wave(self, mel: Floats, num_samples: int) -> Wave:
        if self._vocoder is None:
            return griffin_lim(np.sqrt(mel_to_power(np.exp(mel), _MEL)), num_samples, _MEL)
        spectrum = self._vocoder.run(["spectrum"], {"mel": mel[None]})[0][0]
        return inverse_spectrum(spectrum, _MEL.hop)[:num_samples]


def _noise(start: int, stop: int) -> Floats:
    """Returns where flow matching starts, [12 groups, 80]; a group's noise is the same in a chunk and in the whole."""
    shape = (FRAMES_PER_GROUP, _MEL.n_mels)
    drawn = [np.random.default_rng([_SEED, group]).standard_normal(shape, np.float32) for group in range(start, stop)]
    return np.concatenate(drawn)


def _check(speaker: Floats) -> None:
    if speaker.shape != (SPEAKER_SIZE,):
        raise ConfigError(f"the token decoder needs speaker embeddings of {SPEAKER_SIZE} numbers: choose the role "
                          f"speaker 'resemblyzer'; this one has shape {speaker.shape}")  # fmt: skip
