"""The teacher espeak-ng: the engine's own embedded voices, plain or moved to a real voice by WORLD as in a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_engine.backends.espeak_library import SAMPLE_RATE as ESPEAK_RATE
from data_engine.backends.espeak_library import VARIANTS, SpokenText, Utterance, shared_library
from data_engine.backends.prosody_rules import ProsodyRules, asked_prosody, read_rules
from data_engine.backends.timbre import (
    SpeakerNorms,
    VoiceExemplars,
    analyse,
    colour,
    move_pitch,
    move_timbre,
    resynthesize,
    speaker_norms,
)
from data_engine.core.errors import RecordError
from data_engine.models.phones import TimedPhone, from_espeak, warped
from data_engine.training.speech.spoken import SAMPLE_RATE, Spoken, Wave, levelled, resampled
from data_engine.training.speech.texts import Sentence

LICENCE = "output of espeak-ng (GPL program; its output is free)"
SOURCE, RENDERED_SOURCE = "espeak-ng", "espeak-ng+WORLD"
_ENGLISH = ("en-us", "en-us-nyc", "en", "en-gb-scotland", "en-gb-x-rp", "en-029")
_WEIGHTS = (0.62, 0.1, 0.1, 0.06, 0.06, 0.06)
_CALIBRATION = "1 2 3 4 5 6 7 8 9 10. 11 12 13 20 34 57 68 100."


def voice_of(sentence: Sentence, rng: np.random.Generator) -> str:
    """Returns an espeak-ng voice for a sentence, drawn among the English dialects."""
    if sentence.language == "zh":
        return "cmn-latn-pinyin" if sentence.pinyin else "cmn"
    return str(rng.choice(_ENGLISH, p=_WEIGHTS))


def speak(sentence: Sentence, utterance: Utterance, warp: float, split: str) -> Spoken:
    """Returns a sentence as espeak-ng says it.

    Args:
        sentence: What is said.
        utterance: How.
        warp: Factor on pitch and formants; the utterance becomes shorter by it.
        split: train or test.

    Raises:
        RecordError: SYNTHESIS_FAILED, it said nothing or used a phone we do not have.
    """
    said, phones = _said(sentence, utterance)
    wave = at_16k(said)
    warped_wave = resampled(wave, 1 / warp) if warp != 1 else wave
    times = warped(phones, SAMPLE_RATE / ESPEAK_RATE / warp, len(warped_wave))
    speaker = f"{utterance.voice}+{utterance.variant}" + (f"*{warp:.2f}" if warp != 1 else "")
    return Spoken(levelled(warped_wave), sentence.text, sentence.language, speaker, SOURCE, LICENCE, split, times)


def _said(sentence: Sentence, utterance: Utterance) -> tuple[SpokenText, list[TimedPhone]]:
    said = shared_library().say(utterance)
    phones = from_espeak(said.phonemes, len(said.samples), sentence.language == "zh")
    if phones is None or len(phones) < 2:
        why = "with a phone we do not have" if phones is None else "with fewer than two phones"
        raise RecordError("SYNTHESIS_FAILED", f"espeak-ng ({utterance.voice}) said '{sentence.text[:60]}' {why}")
    return said, phones


def at_16k(said: SpokenText) -> Wave:
    """Returns what espeak-ng said at 16 kHz, float32 [samples]."""
    return resampled(said.samples.astype(np.float32) / 32768.0, SAMPLE_RATE / ESPEAK_RATE)


def draw(sentence: Sentence, rng: np.random.Generator) -> Spoken:
    """Returns a sentence by a drawn voice, rate and pitch; half of them with another vocal tract."""
    warp = float(rng.uniform(0.86, 1.16)) if rng.random() < 0.5 else 1.0
    return speak(sentence, _drawn_utterance(sentence, rng), warp, "train")


def natural(sentence: Sentence, number: int) -> Spoken:
    """Returns a test sentence in the variants at their own pitch and rate, by turns."""
    voice = voice_of(sentence, np.random.default_rng(number)) if sentence.language == "zh" else "en-us"
    return speak(sentence, Utterance(sentence.text, voice, VARIANTS[number % len(VARIANTS)]), 1.0, "test")


def _drawn_utterance(sentence: Sentence, rng: np.random.Generator, rates: tuple[int, int] = (110, 250)) -> Utterance:
    rate, pitch, pitch_range = (int(rng.integers(*bounds)) for bounds in (rates, (15, 90), (20, 95)))
    variant = VARIANTS[rng.integers(len(VARIANTS))]
    voice, seed = voice_of(sentence, rng), int(rng.integers(1_000_000))
    return Utterance(sentence.text, voice, variant, rate, pitch, pitch_range, seed=seed)


@dataclass(frozen=True, slots=True, eq=False)
class TargetVoice:
    """A real voice to move to: name, licence of its audio, exemplars."""

    name: str
    licence: str
    exemplars: VoiceExemplars


class VoiceRenderer:
    """Moves espeak-ng's voices to real ones as the embedded synthesizer does, keeping the phone times.

    Args:
        voices: Where to go.
        rates: Words per minute, from and to; the engine's fastest happy speech is at 330.
    """

    def __init__(self, voices: Sequence[TargetVoice], rates: tuple[int, int] = (110, 250)) -> None:
        self._voices, self._rates = voices, rates
        self._rules: ProsodyRules = read_rules()
        self._norms: dict[tuple[str, str], SpeakerNorms] = {}

    def draw(self, sentence: Sentence, rng: np.random.Generator, split: str = "train") -> Spoken:
        """Returns a sentence in a drawn voice with a drawn emotion; raises RecordError as `speak` does."""
        utterance = _drawn_utterance(sentence, rng, self._rates)
        said, phones = _said(sentence, utterance)
        target = self._voices[int(rng.integers(len(self._voices)))]
        wave = self._rendered(at_16k(said), utterance, target, rng)
        times: list[TimedPhone] = warped(phones, SAMPLE_RATE / ESPEAK_RATE, len(wave))
        licence = f"{LICENCE}; voice: {target.licence}"
        speaker = f"{utterance.voice}+{utterance.variant}>{target.name}"
        return Spoken(levelled(wave), sentence.text, sentence.language, speaker, RENDERED_SOURCE, licence, split, times)

    def _rendered(self, wave: Wave, utterance: Utterance, target: TargetVoice, rng: np.random.Generator) -> Wave:
        emotions = sorted(self._rules.emotions)
        asked = asked_prosody(emotions[rng.integers(len(emotions))], int(rng.integers(1, 6)), "normal", self._rules)
        source = self._source_norms(utterance.voice, utterance.variant)
        frames = move_timbre(analyse(wave), source, target.exemplars, float(rng.uniform(0.5, 0.8)))
        spread = asked.range_factor * target.exemplars.log_f0_spread / source.log_f0_spread
        median_hz = float(np.exp(target.exemplars.log_f0_median)) * asked.pitch_factor
        return resynthesize(colour(move_pitch(frames, spread, median_hz), asked))

    def _source_norms(self, voice: str, variant: str) -> SpeakerNorms:
        key = (voice, variant)
        if key not in self._norms:
            spoken_by = "cmn" if voice == "cmn-latn-pinyin" else voice
            said = shared_library().say(Utterance(_CALIBRATION, spoken_by, variant))
            self._norms[key] = speaker_norms(analyse(at_16k(said)))
        return self._norms[key]
