"""The converted segmentation network is the original's; its turns and voices are what the role promises."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import soundfile
from pyannote.core import Annotation, Segment, Timeline
from pyannote.metrics.diarization import DiarizationErrorRate

from data_engine.backends import diarizer_pyannet
from data_engine.backends.diarizer_pyannet import (
    MODEL,
    PyanNetDiarizer,
    embedded_windows,
    frame_edges,
    frames_of,
    likeliest,
    overlap_added,
    overlapping_windows,
)  # fmt: skip
from data_engine.models.speaker_segmentation import FIRST, FRAMES, STRIDE, WINDOW, export, wheel_weights

RATE = 16000


@pytest.fixture(scope="module")
def diarizer():
    built = PyanNetDiarizer()
    built.open()
    yield built
    built.close()


@pytest.fixture(scope="module")
def talk(conversation):
    return soundfile.read(conversation, dtype="float32")[0]


def test_the_file_that_ships_is_made_again_byte_for_byte(tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("torch")
    export(wheel_weights(), tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").read_bytes() == MODEL.read_bytes()


def test_the_network_is_the_original(diarizer, talk):
    """Weights are in eight bits and half precision, so activities differ a little; who speaks does not."""
    if importlib.util.find_spec("asteroid_filterbanks") is None:
        pytest.skip("the libraries of pyannote.audio are not installed")
    import torch
    from pyannote.audio.models.segmentation import PyanNet

    from data_engine.models.speaker_segmentation import read_weights

    network = PyanNet(lstm={"hidden_size": 128, "num_layers": 4, "bidirectional": True, "monolithic": True})
    network.classifier, network.activation = torch.nn.Linear(128, 3), torch.nn.Sigmoid()
    network.load_state_dict({name: torch.from_numpy(value) for name, value in read_weights(wheel_weights()).items()})
    windows = np.stack(list(overlapping_windows(talk[5 * RATE : 20 * RATE], FRAMES)))
    with torch.inference_mode():
        wanted = network.eval()(torch.from_numpy(windows)[:, None]).numpy()
    found = np.stack([diarizer.activity(window)[0] for window in windows])
    assert np.abs(found - wanted).max() < 0.15
    assert ((found > 0.5) == (wanted > 0.5)).mean() > 0.995


@pytest.mark.parametrize("samples", [0, 1, 8000, WINDOW - FIRST, WINDOW, WINDOW + 1, 3 * WINDOW + 77])
def test_every_sample_is_in_a_frame(samples):
    step = 59
    windows = list(overlapping_windows(np.zeros(samples, np.float32), step))
    assert all(len(window) == WINDOW for window in windows)
    edges = frame_edges((len(windows) - 1) * step + FRAMES, samples)
    assert edges[0] == 0
    assert edges[-1] == samples
    assert (np.diff(edges) >= 0).all()


def test_the_frames_of_a_speaker_are_cut_out_and_joined():
    wave = np.arange(2 * WINDOW, dtype=np.float32)
    chosen = np.zeros(FRAMES, bool)
    chosen[[3, 10]] = True
    found = frames_of(wave, 2, 7, chosen)
    assert len(found) == 2 * STRIDE
    assert found[0] == 2 * 7 * STRIDE + FIRST - STRIDE // 2 + 3 * STRIDE
    assert found[STRIDE] == found[0] + 7 * STRIDE
    assert len(frames_of(wave[:1000], 0, 7, np.ones(FRAMES, bool))) < 1000, "frames behind the end hold nothing"


def test_overlapping_windows_are_averaged():
    values = np.stack([np.full((FRAMES, 1), 2.0), np.full((FRAMES, 1), 4.0)]).astype(np.float32)
    mean = overlap_added(values, 100)[:, 0]
    assert len(mean) == FRAMES + 100
    assert mean[[0, 99, 100, FRAMES - 1, FRAMES, -1]].tolist() == [2, 2, 3, 3, 4, 4]


def test_as_many_speak_as_are_counted():
    scores = np.array([[0.9, 0.5, 0.1], [0.9, 0.5, 0.1], [0.9, 0.5, 0.1], [0.9, 0, 0]], np.float32)
    speaks = likeliest(scores, np.array([[0.4], [1.2], [1.8], [3]], np.float32))
    assert speaks.sum(axis=1).tolist() == [0, 1, 2, 1]
    assert speaks[1].tolist() == [True, False, False]


@pytest.mark.parametrize("count", [1, 64, 65, 66])
def test_the_windows_whose_voices_are_embedded_hear_everything_together(count):
    chosen = embedded_windows(count)
    assert chosen[0]
    assert chosen[-1]
    assert (chosen[1:] | chosen[:-1]).all(), "of two neighbours one is embedded"
    assert chosen.all() == (count <= 64)


def test_half_of_the_voices_find_the_same_turns_in_a_long_wave(diarizer, talk, monkeypatch):
    """A window without voices follows its neighbours: who speaks when is what all voices would have found."""
    wave = np.concatenate([np.roll(talk, shift * RATE) for shift in (0, 7, 13, 22)])
    found = []
    for most in (64, 1000):
        monkeypatch.setattr(diarizer_pyannet, "_ALL_WINDOWS", most)
        turns = Annotation()
        for number, turn in enumerate(diarizer.diarize([wave])[0].turns):
            turns[Segment(turn.start, turn.start + turn.num_samples), number] = str(turn.speaker)
        found.append(turns)
    assert len(found[0].labels()) == len(found[1].labels())
    assert DiarizationErrorRate()(found[1], found[0], uem=Timeline([Segment(0, len(wave))])) < 0.03


def test_turns_are_in_order_inside_the_wave_and_voices_have_unit_length(diarizer, talk):
    (found,) = diarizer.diarize([talk])
    assert len(found.embeddings) == 2
    assert np.allclose(np.linalg.norm(found.embeddings, axis=1), 1, atol=1e-5)
    assert list(found.turns) == sorted(found.turns)
    assert {turn.speaker for turn in found.turns} == {0, 1}
    assert all(turn.num_samples > 0 and turn.start + turn.num_samples <= len(talk) for turn in found.turns)


@pytest.mark.parametrize("wave", [np.zeros(0), np.zeros(10), np.zeros(3 * RATE)])
def test_nobody_speaks_in_silence(diarizer, wave):
    (found,) = diarizer.diarize([wave.astype(np.float32)])
    assert found.turns == ()
    assert found.embeddings.shape == (0, 256)


def test_the_revision_is_known_without_loading_and_follows_the_weights(tmp_path):
    other = tmp_path / "other.onnx"
    other.write_bytes(MODEL.read_bytes() + b"\0")
    assert PyanNetDiarizer().revision == PyanNetDiarizer(model=str(MODEL)).revision
    assert PyanNetDiarizer().revision != PyanNetDiarizer(model=str(other)).revision
    assert Path(MODEL).stat().st_size < 3_100_000
