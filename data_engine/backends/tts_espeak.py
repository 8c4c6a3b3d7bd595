"""Embedded speech synthesis: espeak-ng speaks, WORLD moves it towards the consented voice.

No weights, no service: it is there so that every path of the engine runs on any machine, with prosody that obeys
the controls exactly. A production voice is a service away (role `tts`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_engine.backends import espeak_library
from data_engine.backends.espeak_library import RATE_RANGE, VARIANTS, Utterance, shared_library
from data_engine.backends.prosody_rules import CONTROLS, asked_prosody, read_rules, rules_digest, spoken_voice
from data_engine.backends.protocols import Speech, SpeechRequest, Wave
from data_engine.backends.timbre import SAMPLE_RATE, SpeakerNorms, analyse, speaker_norms
from data_engine.backends.voice_rendering import (
    HIGH_VOICE_HZ,
    VoiceTargets,
    deviations,
    render,
    require_sound,
    require_words,
    resampled,
)
from data_engine.core.errors import ConfigError

_METHOD = "exemplars-1"
_NORMAL_RATE, _NORMAL_RATES = 175, {"cmn": 200, "yue": 168}
"""Words per minute, by espeak-ng voice, that come to 4.6 syllables per second of speech, conversation's pace."""

_AUDIBLE = 300
_CALIBRATION = "1 2 3 4 5 6 7 8 9 10. 11 12 13 20 34 57 68 100."
"""Digits: espeak-ng reads them aloud in every language it has."""


def source_variant(seed: int, high_voice: bool) -> str:
    """Returns the espeak-ng variant a seed chooses, among the female ones for a high voice, else the male ones."""
    group = [name for name in VARIANTS if name.startswith("f" if high_voice else "m")]
    return group[seed % len(group)]


class EspeakSynthesizer:
    """Role `tts`, name `espeak`.

    Args:
        alpha: How far the timbre is moved to the voice, 0..1. Words stay as clear as espeak-ng's own up to about 0.8.
        controls: Folder of the control files; default: those of the package.
    """

    def __init__(self, alpha: float = 0.7, controls: str | None = None) -> None:
        if not 0 <= alpha <= 1:
            raise ConfigError(f"tts back end 'espeak': alpha must be within 0..1, got {alpha}")
        self._alpha = alpha
        self._folder = Path(controls) if controls else CONTROLS
        self._rules = read_rules(self._folder)
        self.languages = frozenset(self._rules.dialects)
        self._voices = VoiceTargets()
        self._norms: dict[tuple[str, str], SpeakerNorms] = {}

    @property
    def revision(self) -> str:
        """Versions of library, vocoder, control files and method."""
        return f"{espeak_library.library_revision()}+{_vocoder()}+{rules_digest(self._folder)}+{_METHOD}"

    def open(self) -> None:
        """Loads the library.

        Raises:
            MissingExtraError: espeakng-loader or pyworld is not installed.
        """
        shared_library()
        analyse(np.zeros(SAMPLE_RATE // 10, np.float32))

    def close(self) -> None:
        """Forgets voices; the library stays with the process."""
        self._voices = VoiceTargets()
        self._norms.clear()

    def speak(self, requests: Sequence[SpeechRequest]) -> list[Speech]:
        """Returns one utterance per request, at 16 kHz.

        Raises:
            RecordError: UNSUPPORTED_LANGUAGE, UNSUPPORTED_CONTROL, or SYNTHESIS_FAILED for a text without words.
        """
        return [self._speak(request) for request in requests]

    def _speak(self, request: SpeechRequest) -> Speech:
        require_words(request.text)
        spoken = spoken_voice(request.language, request.dialect, self._rules)
        asked = asked_prosody(request.emotion, request.level, request.speed, self._rules)
        voice = self._voices.of(request.voice)
        targets, alpha = deviations(request.seed, asked, self._alpha)
        variant = source_variant(request.seed, voice.f0_hz > HIGH_VOICE_HZ)
        utterance = Utterance(request.text, spoken, variant, seed=request.seed)
        utterance, neutral_seconds = at_tempo(utterance, targets.tempo)
        source = self._source_norms(spoken, variant)
        wave, lowered_db = render(_say(utterance), source, voice, targets, alpha)
        require_sound(wave, request.text)
        parameters = {
            "voice": spoken, "variant": variant, "rate_wpm": utterance.rate, "alpha": round(alpha, 4),
            "tempo": round(targets.tempo, 4), "pitch_hz": round(voice.f0_hz * targets.pitch_factor, 2),
            "range_factor": round(targets.range_factor, 4), "gain_db": round(targets.gain_db - lowered_db, 2),
            "breath": round(targets.breath, 4), "tilt_db": round(targets.tilt_db, 4),
            "neutral_seconds": round(neutral_seconds, 4),
        }  # fmt: skip
        return Speech(wave, SAMPLE_RATE, parameters)

    def _source_norms(self, spoken: str, variant: str) -> SpeakerNorms:
        key = (spoken, variant)
        if key not in self._norms:
            self._norms[key] = speaker_norms(analyse(_say(Utterance(_CALIBRATION, spoken, variant))))
        return self._norms[key]


def at_tempo(utterance: Utterance, tempo: float) -> tuple[Utterance, float]:
    """Returns the utterance at the rate that gives `tempo` times its normal tempo, and its normal length in seconds.

    espeak-ng's words per minute are nominal; one correction against the measured length brings them within 3 %.
    """
    at_normal = _NORMAL_RATES.get(utterance.voice, _NORMAL_RATE)
    normal = spoken_seconds(shared_library().say(replace(utterance, rate=at_normal)).samples)
    first = _rate(at_normal * tempo)
    reached = normal / max(spoken_seconds(shared_library().say(replace(utterance, rate=first)).samples), 1e-3)
    corrected = first if abs(reached / tempo - 1) < 0.01 else _rate(first * tempo / max(reached, 0.1))
    return replace(utterance, rate=corrected), normal


def spoken_seconds(samples: npt.NDArray[np.int16]) -> float:
    """Returns the seconds from the first audible sample to the last."""
    audible = np.flatnonzero(np.abs(samples.astype(np.int32)) > _AUDIBLE)
    return float(audible[-1] - audible[0] + 1) / espeak_library.SAMPLE_RATE if len(audible) else 0.0


def _rate(words_per_minute: float) -> int:
    return int(np.clip(round(words_per_minute), *RATE_RANGE))


def _say(utterance: Utterance) -> Wave:
    samples = shared_library().say(utterance).samples
    return resampled(samples.astype(np.float32) / 32768.0, espeak_library.SAMPLE_RATE)


def _vocoder() -> str:
    try:
        return f"pyworld-{version('pyworld')}"
    except PackageNotFoundError:
        return "pyworld-missing"
