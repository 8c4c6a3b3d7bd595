"""What `make evaluate` measures of the aligners, on less of it: the figures may get better, not worse."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from data_engine.backends.catalog import BACKENDS, build_backend
from tests.evaluate.alignment import (
    known_speech,
    mean_duration_times,
    mean_durations,
    milliseconds,
    mono,
    neufa_times,
    split_errors,
    word_errors,
)
from tests.evaluate.references import ctm_words, json_words, references, textgrid_words

QUICK = ("mary.wav", "bobby.wav", "oranges.wav", "austen_64kb-0880.wav", "austen_64kb-0930.wav")
SHORT = """"ooTextFile"\n"TextGrid"\n0\n1.5\n<exists>\n2
"IntervalTier"\n"phones"\n0\n1.5\n1\n0\n1.5\n"a"
"IntervalTier"\n"words"\n0\n1.5\n2\n0\n0.25\n""\n0.25\n1.5\n"say ""hi"" 2"\n"""
LONG = """File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0\nxmax = 1.5\ntiers? <exists>\nsize = 1
item []:
    item [1]:\n        class = "IntervalTier"\n        name = "word"\n        xmin = 0\n        xmax = 1.5
        intervals: size = 2\n        intervals [1]:\n            xmin = 0\n            xmax = 0.25
            text = ""
        intervals [2]:\n            xmin = 0.25\n            xmax = 1.5\n            text = "say 2"\n"""


def opened(name):
    if name == "ctc" and importlib.util.find_spec("torchaudio") is None:
        pytest.skip("torchaudio is not installed")
    aligner = build_backend("aligner", name, {})
    aligner.open()
    return aligner


@pytest.mark.parametrize(("text", "word"), [(SHORT, 'say ""hi"" 2'), (LONG, "say 2")])
def test_textgrids_are_read_in_both_forms(text, word):
    found = [(one.text, one.start, one.end) for one in textgrid_words(text, "a.wav")]
    assert found == [("", 0, 0.25), (word, 0.25, 1.5)]


def test_ctm_and_json_are_read():
    assert [(one.text, one.end) for one in ctm_words("a 1 0.5 0.25 hi\n", "a.wav")] == [("hi", 0.75)]
    assert next(json_words('{"w":[{"b":0.5,"d":0.25,"t":"was(2)"}]}', "a.wav")).text == "was"
    listed = '{"tests":{"language_tests":[{"audio_file":"a.wav","words":[{"word":"hi","start_sec":1,"end_sec":2}]}]}}'
    assert next(json_words(listed, "a.wav")).start == 1


def test_phones_of_known_speech_are_found():
    aligner, utterances = opened("neufa"), list(known_speech(10))
    means = mean_durations(utterances)
    errors, plain = (
        np.concatenate([milliseconds(times(said), said.times) for said in utterances])
        for times in (lambda said: neufa_times(aligner, said), lambda said: mean_duration_times(said, means))
    )
    assert errors.mean() <= 14
    assert errors.mean() <= 0.25 * plain.mean()


@pytest.mark.parametrize("name", BACKENDS["aligner"])
def test_words_of_real_speech_are_found(name, shared_speech):
    aligner, errors, plain = opened(name), [], []
    for reference in references(shared_speech):
        if Path(reference.path).name.endswith(QUICK):
            wave = mono((shared_speech / reference.path).read_bytes())
            errors.append(word_errors(aligner, wave, reference))
            plain.append(split_errors(reference))
    assert len(errors) >= 5
    assert np.median(np.concatenate(errors)) <= 25
    assert np.median(np.concatenate(errors)) <= 0.5 * np.median(np.concatenate(plain))
