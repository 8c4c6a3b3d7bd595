"""Levels of a stream of sound, per channel, in one pass: peak, power, offset, clipping, bandwidth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data_engine.io.decoding.readers import Samples

FloatArray = npt.NDArray[np.float64]

_FULL_SCALE_FROM, _FULL_SCALE_TO = 0.999, 1.0
_ABSURD = 1e9
_OFFSET_ALWAYS, _OFFSET_LEAST, _OFFSET_SHARE = 0.05, 1e-4, 0.2
_BIN_HZ, _BAND_HZ, _LOWEST_HZ = 25.0, 100.0, 50.0
_FRAMES_PER_BLOCK = 48
_TINY = 1e-30


@dataclass(frozen=True, slots=True)
class Levels:
    """Levels of the channels of a recording; amplitudes are relative to full scale, 1.0.

    Attributes:
        num_samples: Samples per channel.
        peak: Largest magnitude as recorded, [channels].
        swing: Largest distance from the offset: the peak of what can be heard, [channels].
        offset: Mean that was or is to be removed; 0 where it does not matter, [channels].
        residual: What is left of `offset` in the blocks that were returned, [channels].
        covariance: Of the channels around their means, [channels, channels].
        clipping: Share of samples at full scale, [channels].
        non_finite: Samples that were NaN, infinite or absurd, all channels together.
        spectrum: Mean power in bands of `band_hz`, [channels, bands].
        band_hz: Width of a band in Hz.
    """

    num_samples: int
    peak: FloatArray
    swing: FloatArray
    offset: FloatArray
    residual: FloatArray
    covariance: FloatArray
    clipping: FloatArray
    non_finite: int
    spectrum: FloatArray
    band_hz: float

    @property
    def rms(self) -> FloatArray:
        """Root mean square around the mean, [channels]."""
        return np.asarray(np.sqrt(np.maximum(np.diag(self.covariance), 0.0)))

    def bandwidth_hz(self, channels: list[int], below_peak_db: float = 50.0) -> float | None:
        """Returns the upper edge of the highest band within `below_peak_db` of the strongest one.

        Args:
            channels: Channels to look at together.
            below_peak_db: 50 dB is where the long-term spectrum of speech ends in a quiet room.

        Returns:
            Hz; None for silence.
        """
        power = self.spectrum[channels].sum(axis=0)
        first = int(_LOWEST_HZ / self.band_hz)
        if not power.size or power[first:].max(initial=0.0) <= _TINY:
            return None
        loud = np.flatnonzero(power >= power[first:].max() * 10 ** (-below_peak_db / 10))
        return float((loud.max() + 1) * self.band_hz)


class LevelMeter:
    """Measures blocks as they pass and repairs them: broken samples become 0, a clear offset goes.

    Args:
        channels: Number of channels.
        sample_rate: Hz.
    """

    def __init__(self, channels: int, sample_rate: int) -> None:
        self.num_samples = self.non_finite = 0
        self._peak = np.zeros(channels)
        self._low, self._high = np.full(channels, np.inf), np.full(channels, -np.inf)
        self._sum, self._products = np.zeros(channels), np.zeros((channels, channels))
        self._clipped = np.zeros(channels, np.int64)
        self._removed: FloatArray | None = None
        self._spectrum = _LongTermSpectrum(channels, sample_rate)

    def push(self, block: Samples) -> Samples:
        """Measures float32 [channels, samples] and returns it repaired."""
        block = self._repair(block)
        magnitude = np.abs(block)
        self._peak = np.maximum(self._peak, magnitude.max(axis=1))
        at_full_scale = (magnitude >= _FULL_SCALE_FROM) & (magnitude <= _FULL_SCALE_TO)
        self._clipped += np.count_nonzero(at_full_scale, axis=1)
        if self._removed is None:
            mean = block.mean(axis=1, dtype=np.float64)
            self._removed = np.where(_matters(mean, block.std(axis=1, dtype=np.float64)), mean, 0.0)
        if self._removed.any():
            block = block - self._removed[:, None].astype(np.float32)
        self._low, self._high = np.minimum(self._low, block.min(axis=1)), np.maximum(self._high, block.max(axis=1))
        self._sum += block.sum(axis=1, dtype=np.float64)
        self._products += (block @ block.T).astype(np.float64)
        self.num_samples += block.shape[1]
        self._spectrum.push(block)
        return block

    def _repair(self, block: Samples) -> Samples:
        sound = np.abs(block) < _ABSURD
        if sound.all():
            return block
        self.non_finite += int(sound.size - np.count_nonzero(sound))
        return np.where(sound, block, np.float32(0.0))

    def levels(self) -> Levels:
        """Returns the levels of everything that was pushed; at least one sample."""
        count = self.num_samples
        mean = self._sum / count
        covariance = self._products / count - np.outer(mean, mean)
        rms = np.sqrt(np.maximum(np.diag(covariance), 0.0))
        removed = np.zeros_like(mean) if self._removed is None else self._removed
        matters = _matters(mean + removed, rms) | (removed != 0)
        return Levels(
            num_samples=count,
            peak=self._peak,
            swing=np.maximum(self._high - mean, mean - self._low),
            offset=np.where(matters, mean + removed, 0.0),
            residual=np.where(matters, mean, 0.0),
            covariance=covariance,
            clipping=self._clipped / count,
            non_finite=self.non_finite,
            spectrum=self._spectrum.bands(),
            band_hz=self._spectrum.band_hz,
        )


def _matters(mean: FloatArray, rms: FloatArray) -> npt.NDArray[np.bool_]:
    """Tells which offsets are worth removing: above -26 dBFS, or a fifth of the signal."""
    size = np.abs(mean)
    return (size > _OFFSET_ALWAYS) | ((size > _OFFSET_LEAST) & (size > _OFFSET_SHARE * rms))


class _LongTermSpectrum:
    """Mean power of Hann frames spread evenly over each block (Welch's method without overlap)."""

    def __init__(self, channels: int, sample_rate: int) -> None:
        self._length = 1 << int(np.ceil(np.log2(sample_rate / _BIN_HZ)))
        self._window = np.hanning(self._length).astype(np.float32)
        bin_hz = sample_rate / self._length
        self._bins_per_band = max(1, round(_BAND_HZ / bin_hz))
        self.band_hz = bin_hz * self._bins_per_band
        self._power = np.zeros((channels, self._length // 2 + 1))
        self._frames = 0

    def push(self, block: Samples) -> None:
        """Adds frames of float32 [channels, samples]; a block shorter than a frame is padded."""
        if block.shape[1] < self._length:
            if self._frames:
                return
            block = np.pad(block, ((0, 0), (0, self._length - block.shape[1])))
        count = block.shape[1] // self._length
        chosen = np.unique(np.linspace(0, count - 1, min(count, _FRAMES_PER_BLOCK)).astype(int))
        frames = block[:, : count * self._length].reshape(block.shape[0], count, self._length)[:, chosen]
        self._power += (np.abs(np.fft.rfft(frames * self._window, axis=-1)) ** 2).sum(axis=1)
        self._frames += len(chosen)

    def bands(self) -> FloatArray:
        """Returns mean power per band, [channels, bands]."""
        bands = self._power.shape[1] // self._bins_per_band
        kept = self._power[:, : bands * self._bins_per_band] / max(1, self._frames)
        return np.asarray(kept.reshape(kept.shape[0], bands, self._bins_per_band).mean(axis=2))
