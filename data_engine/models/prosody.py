"""How a clip is said, as numbers: pitch, energy, rate, voice quality and movement of the spectrum.

Nothing depends on the level of the recording, nor on other clips of the speaker: a single clip is all a user has.
Sources: the kinds of measures of GeMAPS (Eyben et al. 2016, IEEE Trans. Affective Computing 7), by formulas of our own.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from data_engine.models.acoustics import FRAMES_PER_SECOND, Activity, activity, energy_dbfs, runs
from data_engine.models.features import Floats, apply_filterbank, mel_filterbank, power_spectrogram
from data_engine.models.pitch import F0, fundamental_frequency
from data_engine.models.syllables import count_nuclei

SAMPLE_RATE = 16000
LEAST_SECONDS = 0.3
"""Of speech; less says nothing about prosody."""

_N_FFT, _WINDOW, _HOP = 1024, 512, 160
_MELS, _LOWEST_HZ, _HIGHEST_HZ = 24, 80.0, 7600.0
_CEPSTRA = 12
_LEVEL_DBFS = -26.0
_FLOOR = 1e-10
_REFERENCE_HZ = 100.0
_LEAST_VOICED = 5
_REGIONS = (("low", 80.0, 1000.0), ("high", 1000.0, 5000.0), ("top", 5000.0, 7600.0))

Values = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Measures = dict[str, float]


def prosody(wave: Floats) -> Measures | None:
    """Returns the measures of one clip by name, NaN where one cannot be taken; None without 0.3 s of speech.

    Args:
        wave: float32 [samples], mono, 16 kHz.

    Raises:
        MissingExtraError: pyworld is not installed.
    """
    where = activity(wave, SAMPLE_RATE)
    if where.speech_seconds < LEAST_SECONDS:
        return None
    wave = levelled(wave, where)
    f0 = fundamental_frequency(wave, SAMPLE_RATE)
    power = power_spectrogram(wave, _N_FFT, _WINDOW, _HOP, "hann").astype(np.float64)
    size = min(len(f0), len(power), len(where.levels))
    f0, power, active, levels = f0[:size], power[:size], where.active[:size], where.levels[:size]
    voiced = (f0 > 0.0) & active
    return {
        **pitch_measures(f0, voiced, active),
        **energy_measures(levels, active, voiced),
        **rate_measures(wave, f0, where),
        **voice_measures(power, f0, voiced, active),
        **cepstral_measures(power, active),
    }


def levelled(wave: Floats, where: Activity) -> Floats:
    """Returns the wave with its speech at -26 dBFS, so that no floor below depends on the level of a recording."""
    return wave * np.float32(10.0 ** ((_LEVEL_DBFS - (energy_dbfs(where) or 0.0)) / 20.0))


def pitch_measures(f0: F0, voiced: Mask, active: Mask) -> Measures:
    """Returns place, spread and movement of the pitch in semitones, and how much is voiced."""
    names = ("f0_median", "f0_low", "f0_high", "f0_spread", "f0_std", "f0_movement", "f0_rise", "f0_fall", "f0_final")
    lengths = np.diff(runs(voiced), axis=1)[:, 0]
    shares = {
        "voiced_share": float(voiced.sum() / max(1, active.sum())),
        "voiced_run": float(lengths.mean() / FRAMES_PER_SECOND) if len(lengths) else 0.0,
    }
    if voiced.sum() < _LEAST_VOICED:
        return shares | dict.fromkeys(names, np.nan)
    semitones = 12.0 * np.log2(np.where(voiced, f0, _REFERENCE_HZ) / _REFERENCE_HZ)
    median = float(np.median(semitones[voiced]))
    heard = voiced & (np.abs(semitones - median) <= 12.0)  # beyond an octave are errors of the estimate
    within = heard[1:] & heard[:-1]
    steps = np.diff(semitones)[within]
    low, high = np.percentile(semitones[heard], [10, 90])
    last = semitones[heard][-10:].mean()
    rise, fall = steps[steps > 0], steps[steps < 0]
    values = (median, low, high, high - low, semitones[heard].std(), _mean(np.abs(steps)), _mean(rise), _mean(fall),
              last - median)  # fmt: skip
    return shares | {name: float(value) for name, value in zip(names, values, strict=True)}


def energy_measures(levels: Values, active: Mask, voiced: Mask) -> Measures:
    """Returns spread and movement of the level in dB, none of them its height."""
    heard = levels[active]
    steps = np.diff(levels)[active[1:] & active[:-1]]
    low, median, high = np.percentile(heard, [10, 50, 90])
    return {
        "energy_std": float(heard.std()),
        "energy_range": float(high - low),
        "energy_peak": float(high - median),
        "energy_attack": _mean(steps[steps > 0]),
        "energy_decay": _mean(steps[steps < 0]),
        "energy_shimmer": _mean(np.abs(np.diff(levels)[voiced[1:] & voiced[:-1]])),
    }


def rate_measures(wave: Floats, f0: F0, where: Activity) -> Measures:
    """Returns syllables per second of speech, and the share and number of pauses between first and last speech."""
    found = runs(where.speech)
    whole = (found[-1, 1] - found[0, 0]) / FRAMES_PER_SECOND
    return {
        "rate": count_nuclei(wave, SAMPLE_RATE, f0) / where.speech_seconds,
        "pause_share": float(1.0 - where.speech_seconds / whole),
        "pauses": float((len(found) - 1) / whole),
    }


def voice_measures(power: Values, f0: F0, voiced: Mask, active: Mask) -> Measures:
    """Returns slopes and balances of the spectrum in dB, how periodic the voice is, and its first two harmonics."""
    hertz: Values = np.arange(power.shape[1], dtype=np.float64) * (SAMPLE_RATE / _N_FFT)
    measures: Measures = {}
    for name, chosen in (("voiced", voiced), ("unvoiced", active & ~voiced)):
        measures |= {f"{key}_{name}": value for key, value in _balances(power[chosen], hertz).items()}
    periodic = cepstral_peak(power[voiced], f0[voiced])
    harmonics = harmonic_difference(power[voiced], f0[voiced], hertz)
    return measures | {
        "cpp_mean": _mean(periodic), "cpp_std": _std(periodic), "h1_h2": _mean(harmonics), "h1_h2_std": _std(harmonics),
        **_flux(power, active),
    }  # fmt: skip


def _balances(power: Values, hertz: Values) -> Measures:
    """Returns mean and spread over frames of energy ratios of regions, Hammarberg index and slope."""
    names = ("alpha", "top", "hammarberg", "slope_low", "slope_high")
    if len(power) < _LEAST_VOICED:
        return dict.fromkeys([*names, "alpha_std", "slope_high_std"], np.nan)
    sums = {name: power[:, (hertz >= low) & (hertz < high)].sum(axis=1) for name, low, high in _REGIONS}
    level = _db(power)
    strongest = [level[:, (hertz >= low) & (hertz < high)].max(axis=1) for low, high in ((80, 2000), (2000, 5000))]
    alpha, slope = _db(sums["high"]) - _db(sums["low"]), _slope(level, hertz, 500.0, 3000.0)
    rows = (alpha, _db(sums["top"]) - _db(sums["low"]), strongest[0] - strongest[1],
            _slope(level, hertz, 80.0, 500.0), slope)  # fmt: skip
    means = {name: float(row.mean()) for name, row in zip(names, rows, strict=True)}
    return means | {"alpha_std": float(alpha.std()), "slope_high_std": float(slope.std())}


def _slope(level: Values, hertz: Values, low: float, high: float) -> Values:
    """Returns dB per kHz of the regression line of each frame."""
    chosen = (hertz >= low) & (hertz < high)
    centred = (hertz[chosen] - hertz[chosen].mean()) / 1000.0
    slopes: Values = level[:, chosen] @ centred / (centred @ centred)
    return slopes


def cepstral_peak(power: Values, f0: F0) -> Values:
    """Returns how far the cepstrum at the period stands out from its neighbourhood, per frame [frames], in dB.

    Source: cepstral peak prominence (Hillenbrand & Houde 1996), with the period known and a mean for the line.
    """
    cepstrum: Values = np.fft.irfft(_db(power), axis=1)[:, : _N_FFT // 2]
    period = np.rint(SAMPLE_RATE / np.maximum(f0, 1.0)).astype(np.int64)
    around = np.clip(period[:, None] + np.arange(-3, 4), 0, cepstrum.shape[1] - 1)
    peak = np.take_along_axis(cepstrum, around, axis=1).max(axis=1)
    floor = np.abs(cepstrum[:, 32:400]).mean(axis=1)
    return np.asarray(peak - floor)


def harmonic_difference(power: Values, f0: F0, hertz: Values) -> Values:
    """Returns the level of the first harmonic over that of the second, per frame [frames], in dB."""
    level, step = _db(power), float(hertz[1])
    found = []
    for number in (1, 2):
        around = np.rint(number * f0 / step).astype(np.int64)[:, None] + np.arange(-2, 3)
        found.append(np.take_along_axis(level, np.clip(around, 0, level.shape[1] - 1), axis=1).max(axis=1))
    return np.asarray(found[0] - found[1])


def _flux(power: Values, active: Mask) -> Measures:
    """Returns how fast the spectrum changes: the mean distance of neighbouring frames whose energy is made one."""
    unit = np.sqrt(power / np.maximum(power.sum(axis=1, keepdims=True), _FLOOR))
    steps = np.sqrt(np.square(np.diff(unit, axis=0)).sum(axis=1))[active[1:] & active[:-1]]
    return {"flux": _mean(steps), "flux_std": _std(steps)}


def cepstral_measures(power: Values, active: Mask) -> Measures:
    """Returns spreads and speeds of mel cepstra over the speech.

    Their means are left out: they tell a microphone and a room from another before they tell an emotion.
    """
    filters = mel_filterbank(SAMPLE_RATE, _N_FFT, _MELS, _LOWEST_HZ, _HIGHEST_HZ)
    bands = np.log(np.maximum(apply_filterbank(power.astype(np.float32), filters), _FLOOR)).astype(np.float64)
    order = np.arange(1, _CEPSTRA + 1)[:, None]
    basis = np.cos(np.pi * order * (np.arange(_MELS) + 0.5) / _MELS) * np.sqrt(2.0 / _MELS)
    cepstra = bands @ basis.T
    speeds = np.abs(np.diff(cepstra, axis=0))[active[1:] & active[:-1]]
    columns = {"std": cepstra[active].std(axis=0), "speed": speeds.mean(axis=0)}
    return {f"mfcc{n + 1}_{kind}": float(row[n]) for kind, row in columns.items() for n in range(_CEPSTRA)}


def _db(power: Values) -> Values:
    return np.asarray(10.0 * np.log10(np.maximum(power, _FLOOR)))


def _mean(values: Values) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _std(values: Values) -> float:
    return float(values.std()) if len(values) else float("nan")
