"""Silero through onnxruntime: the sequence model says what the step-wise one says, however the stream is cut."""

import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from data_engine.backends.protocols import VoiceActivityDetector
from data_engine.backends.vad_silero import CONTEXT, HOP, SileroVad, hop_frames, silero_folder


@pytest.fixture(scope="module")
def vad():
    detector = SileroVad()
    detector.open()
    yield detector
    detector.close()


@pytest.fixture(scope="module")
def talk(conversation):
    return soundfile.read(conversation, dtype="float32")[0]


def stepwise(wave):
    """The streaming model as its authors use it: one hop and its context per run."""
    session = onnxruntime.InferenceSession(str(silero_folder() / "data" / "silero_vad.onnx"))
    state, found = np.zeros((2, 1, 128), np.float32), []
    for frame in np.concatenate(list(hop_frames([wave], 64))):
        inputs = {"input": frame[None], "state": state, "sr": np.array(16000, np.int64)}
        probability, state = session.run(None, inputs)
        found.append(probability[0, 0])
    return np.array(found, np.float32)


def test_it_plays_the_role(vad):
    assert isinstance(vad, VoiceActivityDetector)
    assert (vad.sample_rate, vad.hop) == (16000, 512)
    assert vad.revision.startswith("silero-vad-")


def test_probabilities_equal_the_stepwise_model(vad, talk):
    np.testing.assert_allclose(vad.probabilities([talk]), stepwise(talk), atol=1e-6)


def test_there_is_speech_in_speech_and_none_before_it(vad, talk):
    probabilities = vad.probabilities([talk])
    assert len(probabilities) == -(-len(talk) // HOP)
    assert probabilities[: 6 * 16000 // HOP].max() < 0.5
    assert (probabilities[7 * 16000 // HOP :] > 0.5).mean() > 0.8


def test_blocks_and_runs_do_not_change_the_result(vad, talk):
    short = SileroVad(max_hops=7)
    short.open()
    cut = talk[96000:160000]
    blocks = np.split(cut, [1, 63, 600, 600, 5000, 40001])
    np.testing.assert_array_equal(short.probabilities(blocks), short.probabilities([cut]))
    np.testing.assert_allclose(short.probabilities(blocks), vad.probabilities([cut]), atol=1e-6)


@pytest.mark.parametrize("blocks", [[], [np.zeros(0, np.float32)]])
def test_an_empty_stream_has_no_hops(vad, blocks):
    assert vad.probabilities(blocks).shape == (0,)


@settings(max_examples=60)
@given(st.lists(st.integers(0, 3000), max_size=8), st.integers(1, 9))
def test_frames_hold_each_sample_once_after_the_context(sizes, max_hops):
    wave = np.arange(1, sum(sizes) + 1, dtype=np.float32)
    blocks = np.split(wave, np.cumsum(sizes)[:-1]) if sizes else []
    arrays = list(hop_frames(blocks, max_hops))
    assert all(1 <= len(array) <= max_hops for array in arrays)
    frames = np.concatenate([np.zeros((0, CONTEXT + HOP), np.float32), *arrays])
    new = frames[:, CONTEXT:].ravel()
    np.testing.assert_array_equal(new[: len(wave)], wave)
    assert len(new) - len(wave) < HOP
    assert not new[len(wave) :].any()
    np.testing.assert_array_equal(frames[1:, :CONTEXT], frames[:-1, -CONTEXT:])


def test_finding_the_weights_imports_neither_torch_nor_the_package():
    code = (
        "import sys; from data_engine.backends.vad_silero import SileroVad; SileroVad().open();"
        "assert not {'torch', 'silero_vad'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
