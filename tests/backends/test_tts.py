"""The embedded synthesizers obey their controls, repeat themselves exactly and refuse what they cannot say."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data_engine.backends.espeak_library import SAMPLE_RATE, Utterance, shared_library, variant_text
from data_engine.backends.prosody_rules import ProsodyTargets, asked_prosody, read_rules, spoken_voice
from data_engine.backends.protocols import SpeechRequest, VoicePrompt
from data_engine.backends.timbre import analyse
from data_engine.backends.tts_espeak import EspeakSynthesizer, at_tempo, spoken_seconds
from data_engine.backends.tts_flite import FliteSynthesizer, flite_command
from data_engine.core.errors import ConfigError, RecordError
from data_engine.runners.threads import ONE_THREAD

TEXT = "The weather in Paris is sunny today, so take your sunglasses with you."
RULES = read_rules()


def prompt(variant, voice_id):
    """A voice that espeak-ng itself speaks: any voice will do, and none is anybody's."""
    text = "Six spoons of fresh snow peas, five thick slabs of blue cheese, and a snack for her brother Bob."
    wave = shared_library().say(Utterance(text, "en-gb-scotland", variant)).samples / 32768.0
    return VoicePrompt(voice_id, wave.astype(np.float32), SAMPLE_RATE, text, np.zeros(256, np.float32))


@pytest.fixture(scope="module")
def synthesizer():
    synthesizer = EspeakSynthesizer()
    synthesizer.open()
    yield synthesizer
    synthesizer.close()


@pytest.fixture(scope="module")
def voice():
    return prompt("f4", "high")


def speak(synthesizer, voice, text=TEXT, language="en", seed=3, **controls):
    return synthesizer.speak([SpeechRequest(text, language, voice, seed, **controls)])[0]


def median_hz(speech):
    f0 = analyse(speech.wave).f0
    return float(np.median(f0[f0 > 0]))


def level_db(speech):
    return 10 * np.log10(np.mean(np.square(speech.wave)))


def test_an_utterance_does_not_depend_on_what_was_said_before():
    says = [
        Utterance(text, voice, variant, rate)
        for text, voice in ((TEXT, "en-us"), ("今天天气怎么样？", "cmn"), ("Guten Tag!", "de"))
        for variant in ("f1", "f3", "m1", "m8")
        for rate in (130, 250)
    ]
    first = {u: shared_library().say(u).samples.tobytes() for u in says}
    for seed in range(3):
        random.Random(seed).shuffle(says)
        assert all(shared_library().say(u).samples.tobytes() == first[u] for u in says)


def test_variants_lose_only_what_carries_state():
    assert variant_text("name x\nflutter 8\necho 9 9\nroughness 4\npitch 1 2") == (
        "name x\npitch 1 2\nflutter 0\nroughness 8\n"
    )


def test_words_come_with_their_place_in_text_and_sound():
    spoken = shared_library().say(Utterance("good morning world", "en-us", "m3"))
    assert [(start, length) for start, length, _ in spoken.words] == [(0, 4), (5, 7), (13, 5)]
    samples = [sample for _, _, sample in spoken.words]
    assert samples == sorted(samples)
    assert samples[-1] < len(spoken.samples)


def test_a_voice_espeak_does_not_have_is_a_bad_record():
    with pytest.raises(RecordError, match="SYNTHESIS_FAILED"):
        shared_library().say(Utterance("hello", "xx-nowhere", "m3"))


def test_another_process_speaks_the_same_bytes():
    """Whatever it said before. Workers compute with one thread: another number of them changes last bits."""
    root = Path(__file__).resolve().parents[2]
    script = (
        "import hashlib; from tests.backends.test_tts import *; s = EspeakSynthesizer(); s.open(); {first}"
        "print(hashlib.sha256(speak(s, prompt('f4', 'high')).wave.tobytes()).hexdigest())"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", script.format(first=first)], capture_output=True, text=True, cwd=root, check=True,
            env={**os.environ, **ONE_THREAD},
        ).stdout.split()[-1]
        for first in ("", "speak(s, prompt('m8', 'low'), 'Something else first.', seed=8);")
    }  # fmt: skip
    assert len(said) == 1


def test_takes_of_one_turn_differ_and_say_how(synthesizer, voice):
    takes = [speak(synthesizer, voice, seed=seed) for seed in range(4)]
    assert len({take.wave.tobytes() for take in takes}) == 4
    assert len({json.dumps(dict(take.parameters), sort_keys=True) for take in takes}) == 4


@pytest.mark.parametrize("speed", ["slow2", "fast2"])
def test_the_tempo_asked_for_is_the_tempo_spoken(speed):
    asked = asked_prosody("neutral", 1, speed, RULES).tempo
    for language in ("en-us", "cmn"):
        text = TEXT if language == "en-us" else "今天天气怎么样？我们一起去公园走走吧。"
        utterance, normal = at_tempo(Utterance(text, language, "m3"), asked)
        assert normal / spoken_seconds(shared_library().say(utterance).samples) == pytest.approx(asked, rel=0.04)


def test_speeds_are_heard_in_order(synthesizer, voice):
    lengths = [len(speak(synthesizer, voice, speed=speed).wave) for speed in RULES.speeds]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] / lengths[-1] == pytest.approx(1.45 / 0.7, rel=0.1)


def test_pitch_is_the_voices_own_times_the_emotions(synthesizer, voice):
    neutral, happy = (speak(synthesizer, voice, emotion=e, level=5) for e in ("neutral", "happy"))
    own = analyse_prompt(voice)
    assert median_hz(neutral) == pytest.approx(own, rel=0.05)
    assert median_hz(happy) / median_hz(neutral) == pytest.approx(1.5, rel=0.08)
    assert neutral.parameters["pitch_hz"] == pytest.approx(median_hz(neutral), rel=0.05)


def analyse_prompt(voice):
    import soxr

    f0 = analyse(soxr.resample(voice.wave, voice.sample_rate, 16000)).f0
    return float(np.median(f0[f0 > 0]))


def test_a_measured_pitch_of_the_voice_wins(synthesizer):
    known = prompt("m8", "told")
    told = VoicePrompt("told-130", known.wave, known.sample_rate, None, known.embedding, f0_median_hz=130.0)
    assert median_hz(speak(synthesizer, told)) == pytest.approx(130, rel=0.06)


def test_levels_grow_evenly_from_neutral_to_the_full_change():
    factors = [asked_prosody("happy", level, "normal", RULES).pitch_factor for level in range(1, 6)]
    assert factors == pytest.approx([1.1, 1.2, 1.3, 1.4, 1.5])
    assert asked_prosody("neutral", 5, "normal", RULES) == ProsodyTargets()


def test_anger_is_louder_than_sadness_and_nothing_clips(synthesizer, voice):
    angry, sad = (speak(synthesizer, voice, emotion=e, level=5) for e in ("angry", "sad"))
    assert level_db(angry) - level_db(sad) == pytest.approx(11, abs=2)
    assert np.abs(angry.wave).max() < 0.98


@pytest.mark.parametrize(("language", "text"), [("zh", "今天天气怎么样？"), ("de", "Guten Morgen"), ("fr", "Bonjour")])
def test_other_languages_are_spoken(synthesizer, voice, language, text):
    assert 0.4 < len(speak(synthesizer, voice, text, language).wave) / 16000 < 4


@pytest.mark.parametrize("language", sorted(RULES.dialects))
def test_every_dialect_has_a_voice(language):
    for dialect in (None, *RULES.dialects[language]):
        name = spoken_voice(language, dialect, RULES)
        assert spoken_seconds(shared_library().say(Utterance("1 2 3", name, "m3")).samples) > 0.3


def test_dialects_sound_different(synthesizer, voice):
    waves = {speak(synthesizer, voice, dialect=d).wave.tobytes() for d in ("us", "gb", "scotland", "rp", "caribbean")}
    assert len(waves) == 5
    mandarin, cantonese = (speak(synthesizer, voice, "今日天氣好", "zh", dialect=d) for d in ("mandarin", "yue"))
    assert mandarin.wave.tobytes() != cantonese.wave.tobytes()


@pytest.mark.parametrize(
    ("code", "request_"),
    [
        ("UNSUPPORTED_LANGUAGE", {"language": "tlh"}),
        ("UNSUPPORTED_CONTROL", {"dialect": "martian"}),
        ("UNSUPPORTED_CONTROL", {"emotion": "smug"}),
        ("UNSUPPORTED_CONTROL", {"emotion": "happy", "level": 6}),
        ("UNSUPPORTED_CONTROL", {"speed": "warp"}),
        ("SYNTHESIS_FAILED", {"text": ""}),
        ("SYNTHESIS_FAILED", {"text": " ...?! \n"}),
    ],
)
def test_what_cannot_be_spoken_is_a_reject_with_its_code(synthesizer, voice, code, request_):
    with pytest.raises(RecordError) as caught:
        speak(synthesizer, voice, **request_)
    assert caught.value.code == code


def test_a_silent_prompt_still_gets_an_utterance(synthesizer):
    silent = VoicePrompt("silent", np.zeros(32000, np.float32), 16000, None, np.zeros(256, np.float32), 120.0)
    assert median_hz(speak(synthesizer, silent)) == pytest.approx(120, rel=0.06)


def test_own_controls_change_speech_and_revision(tmp_path, voice):
    for name in ("emotions", "speeds", "dialects"):
        source = Path(sys.modules["data_engine.backends.prosody_rules"].CONTROLS) / f"{name}.yaml"
        text = source.read_text(encoding="utf-8").replace("fast2: 1.45", "fast2: 2.0")
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    own, shipped = EspeakSynthesizer(controls=str(tmp_path)), EspeakSynthesizer()
    assert own.revision != shipped.revision
    assert len(speak(own, voice, speed="fast2").wave) < 0.85 * len(speak(shipped, voice, speed="fast2").wave)


def test_an_emotion_that_lacks_a_change_is_a_configuration_error(tmp_path):
    for name in ("speeds", "dialects"):
        (tmp_path / f"{name}.yaml").write_text("a: 1")
    (tmp_path / "emotions.yaml").write_text("happy: {pitch: 0.5}")
    with pytest.raises(ConfigError, match="'happy' must have exactly"):
        EspeakSynthesizer(controls=str(tmp_path))


def test_an_alpha_outside_its_range_is_a_configuration_error():
    with pytest.raises(ConfigError, match=r"within 0\.\.1"):
        EspeakSynthesizer(alpha=1.5)


def test_flite_is_told_tempo_pitch_and_text_as_arguments(tmp_path):
    targets = ProsodyTargets(tempo=2.0, pitch_factor=1.5, range_factor=2.0)
    command = flite_command("/bin/flite", "slt", "-v; rm x", tmp_path / "out.wav", targets, 200.0)
    assert command[:3] == ["/bin/flite", "-voice", "slt"]
    assert "duration_stretch=0.5000" in command
    assert "int_f0_target_mean=300.0" in command
    assert command[command.index("-t") + 1] == "-v; rm x"


def test_without_flite_the_error_says_how_to_get_it():
    absent = FliteSynthesizer(program="flite-that-is-not-there")
    assert "missing" in absent.revision
    with pytest.raises(ConfigError, match="apt install flite"):
        absent.open()


@pytest.mark.skipif(shutil.which("flite") is None, reason="the program flite is not installed")
def test_flite_speaks_in_the_voices_pitch(voice):
    flite = FliteSynthesizer()
    flite.open()
    assert median_hz(speak(flite, voice)) == pytest.approx(analyse_prompt(voice), rel=0.08)
