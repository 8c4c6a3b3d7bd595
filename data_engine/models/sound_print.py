"""Sound prints: what stays of a recording when it is re-encoded, filtered, made louder, trimmed or played 2 % faster.

Three quantities, all made of band levels between 280 and 3500 Hz, which every codec and telephone keeps:

- *anchors*, the peaks of the speech level (syllable nuclei), found at the same place in every copy;
- *words*, integers of a locality-sensitive hash (Charikar 2002: signs of projections) of the sound around an anchor;
- a *print*, how bands rise and fall against their neighbours in time and frequency (as the sub-band energy differences
  of Haitsma and Kalker 2002, but with a magnitude), which tells a copy from the same words said again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from data_engine.models.features import Floats, apply_filterbank, power_spectrogram

SAMPLE_RATE = 16_000
HOP = 160
"""Samples from one frame to the next, 10 ms."""

BANDS = 32
TABLES, WORD_BITS = 48, 16
COLUMNS = 75
"""Columns of a print, 20 ms each: 0.74 s to both sides of its anchor."""

_FFT, _WINDOW, _PADDING = 1024, 512, 4_000
_LOWEST_HZ, _HIGHEST_HZ = 280.0, 3_500.0
_RANGE_DB, _SILENT = 40.0, 16
_SMOOTHING, _APART, _ANCHOR_RANGE_DB, _RISE_DB = 4.0, 15, 25.0, 6.0
_AROUND, _AUDIBLE_DB = np.arange(-20, 21, 2), 20.0
_STEP, _IN_TIME, _IN_FREQUENCY = 2, 6, 10
_NEARBY_TIME, _NEARBY_BANDS = 20.0, BANDS / 6
_SCALE, _MOST = 1.5, 7
_FEWEST_COLUMNS = 10
_SPEEDS, _OFFSETS = (1.0, 0.98, 1.02), np.arange(-3, 4)

Samples = npt.NDArray[np.int16]
Integers = npt.NDArray[np.int64]
Floats64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sound:
    """The band levels of a stretch of sound.

    Attributes:
        bands: Levels, dB below the loudest, float32 [frames, BANDS].
        level: Level of all bands together, dB, float32 [frames].
    """

    bands: Floats
    level: Floats


def band_levels(samples: Samples) -> Sound:
    """Returns the band levels of sound, with a quarter of a second of silence at both ends.

    What is 40 dB below the loudest frame counts as silence, so that a codec's noise floor, dither and digital silence
    are the same.

    Args:
        samples: int16 [samples] at 16 kHz.
    """
    centred = samples - samples.mean() if samples.size else samples  # an offset would begin and end with a click
    wave = np.pad(centred.astype(np.float32) / 32768, _PADDING)
    power = apply_filterbank(power_spectrogram(wave, _FFT, _WINDOW, HOP), _filterbank())
    total = power.sum(axis=1)
    floor = max(float(total.max(initial=0.0)), 1e-12) * 10 ** (-_RANGE_DB / 10)
    bands = 10 * np.log10(np.maximum(power, floor / BANDS))
    return Sound((bands - bands.max()).astype(np.float32), 10 * np.log10(np.maximum(total, floor)).astype(np.float32))


def is_silent(samples: Samples) -> bool:
    """Returns whether 16-bit sound holds nothing but an offset and a few steps of noise."""
    return not samples.size or int(samples.max()) - int(samples.min()) < _SILENT


def anchors(sound: Sound) -> Integers:
    """Returns the frames at which the level peaks, int64 [anchors]."""
    from scipy.ndimage import gaussian_filter1d, maximum_filter1d

    level = gaussian_filter1d(sound.level, _SMOOTHING)
    peak = (level == maximum_filter1d(level, _APART)) & (level > level.max() - _ANCHOR_RANGE_DB)
    rises = level > level.min() + _RISE_DB
    return np.flatnonzero(peak & rises)


def shapes(sound: Sound, at: Integers) -> Floats64:
    """Returns the sound around anchors as cosine coefficients without its level, float64 [anchors, coefficients].

    What is 20 dB below the loudest band around an anchor does not count: codecs drop it, clipping fills it up.
    """
    from scipy.fft import dct
    from scipy.ndimage import gaussian_filter1d

    smooth = gaussian_filter1d(sound.bands, 3.0, axis=0)
    around = smooth[np.clip(at[:, None] + _AROUND, 0, len(smooth) - 1)].astype(np.float64)
    around = np.maximum(around, around.max(axis=(1, 2), keepdims=True) - _AUDIBLE_DB)
    in_frequency = dct(around, axis=2, norm="ortho")[:, :, :_IN_FREQUENCY]
    both = dct(in_frequency, axis=1, norm="ortho")[:, :_IN_TIME]
    return np.asarray(both.reshape(len(at), _IN_TIME * _IN_FREQUENCY)[:, 1:] / _spread())


def words(shape: Floats64) -> Integers:
    """Returns the words of shapes, int64 [anchors, TABLES]; close shapes share some."""
    signs = (shape @ _planes()).reshape(len(shape), TABLES, WORD_BITS) > 0
    return np.asarray(signs @ (1 << np.arange(WORD_BITS, dtype=np.int64)), np.int64)


def relief(sound: Sound) -> Floats:
    """Returns how bands stand out against their neighbourhood, float32 [frames, BANDS], 0 where all is silent.

    The mean over 0.4 s is taken from each band, which removes gain and filters, then the mean over a sixth of the
    bands, which removes the rhythm and the coarse shape that the same words of the same speaker share.
    """
    from scipy.ndimage import gaussian_filter1d

    smooth = gaussian_filter1d(sound.bands, 1.5, axis=0)
    apart = smooth - gaussian_filter1d(smooth, _NEARBY_TIME, axis=0)
    return np.asarray(apart - gaussian_filter1d(apart, _NEARBY_BANDS, axis=1), np.float32)


def prints(sound: Sound, at: Integers) -> list[bytes]:
    """Returns the print around each anchor: COLUMNS x BANDS numbers of 4 bits; empty where little is heard."""
    stands = np.pad(np.clip(np.rint(relief(sound) / _SCALE), -_MOST, _MOST).astype(np.int8), ((200, 200), (0, 0)))
    columns = (np.arange(COLUMNS) - COLUMNS // 2) * _STEP
    cut = stands[at[:, None] + columns + 200] + 8
    packed = (cut[..., ::2] << 4 | cut[..., 1::2]).astype(np.uint8)
    enough = (cut != 8).any(axis=2).sum(axis=1) >= _FEWEST_COLUMNS
    return [one.tobytes() if some else b"" for one, some in zip(packed, enough, strict=True)]


def print_similarity(one: bytes, other: bytes) -> float:
    """Returns the highest correlation of two prints, -1..1, over shifts of 60 ms and speeds of 2 %; 0 for empty ones.

    Playing faster moves the bands as well: by 0.26 of the distance from one to the next.
    """
    if not one or not other:
        return 0.0
    first, second = _unpacked(one), _unpacked(other)
    best = 0.0
    for speed in _SPEEDS:
        moved = _moved(second, np.log(speed) / np.log(_HIGHEST_HZ / _LOWEST_HZ) * (BANDS + 1))
        middle = COLUMNS // 2
        index = np.rint((np.arange(COLUMNS) - middle) * speed).astype(int) + middle + _OFFSETS[:, None]
        there = (index >= 0) & (index < COLUMNS)
        shifted = moved[np.clip(index, 0, COLUMNS - 1)] * there[:, :, None]
        power = np.einsum("otb,otb->o", shifted, shifted) * np.einsum("ot,tb->o", there, first**2)
        product = np.einsum("otb,tb->o", shifted, first)
        best = max(best, float((product / np.sqrt(np.maximum(power, 1.0))).max()))
    return best


def sounding_columns(packed: bytes) -> int:
    """Returns how many columns of a print hold anything, 0..COLUMNS."""
    silent = np.frombuffer(packed, np.uint8).reshape(-1, BANDS // 2) == 0x88
    return int((~silent).any(axis=1).sum())


def _unpacked(packed: bytes) -> Floats64:
    pairs = np.frombuffer(packed, np.uint8).reshape(COLUMNS, BANDS // 2)
    return np.stack([pairs >> 4, pairs & 15], axis=2).reshape(COLUMNS, BANDS).astype(np.float64) - 8.0


def _moved(columns: Floats64, bands: float) -> Floats64:
    """Returns columns whose bands are moved up by less than one band."""
    neighbour = np.roll(columns, 1 if bands > 0 else -1, axis=1)
    return np.asarray((1 - abs(bands)) * columns + abs(bands) * neighbour)


@cache
def _filterbank() -> Floats:
    edges = np.geomspace(_LOWEST_HZ, _HIGHEST_HZ, BANDS + 2)
    bins = np.linspace(0.0, SAMPLE_RATE / 2, _FFT // 2 + 1)
    lower, centre, upper = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    filters = np.maximum(0.0, np.minimum((bins - lower) / (centre - lower), (upper - bins) / (upper - centre)))
    return np.asarray(filters / filters.sum(axis=1, keepdims=True), np.float32)


@cache
def _spread() -> Floats64:
    """Standard deviations of the coefficients over speech in twenty languages, which are a product within 6 %."""
    in_time = np.array([12.2, 8.0, 10.6, 5.7, 6.5, 4.0])
    in_frequency = np.array([2.17, 1.78, 1.51, 1.10, 0.96, 0.80, 0.77, 0.70, 0.66, 0.65])
    return np.asarray(np.outer(in_time, in_frequency).reshape(-1)[1:])


@cache
def _planes() -> Floats64:
    size = _IN_TIME * _IN_FREQUENCY - 1
    return np.asarray(np.random.default_rng(2002).integers(0, 2, (size, TABLES * WORD_BITS)) * 2.0 - 1.0)
