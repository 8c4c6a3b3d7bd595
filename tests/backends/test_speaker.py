"""The speaker encoder is Resemblyzer's, without torch, and tells two people apart."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data_engine.backends.speaker_resemblyzer import (
    MODEL,
    ResemblyzerEmbedder,
    partial_mels,
    partial_starts,
    raise_volume,
)

TURNS = {"90": [(10.57, 14.4), (18.6, 21.4)], "91": [(14.7, 17.9), (21.8, 28.4)]}
"""Stretches of one speaker alone in the conversation, seconds."""


@pytest.fixture(scope="module")
def embedder():
    made = ResemblyzerEmbedder(chunk=5)
    made.open()
    yield made
    made.close()


@pytest.fixture(scope="module")
def speech(conversation):
    samples, rate = soundfile.read(conversation, dtype="float32")
    assert rate == ResemblyzerEmbedder.sample_rate
    return {who: [samples[int(a * rate) : int(b * rate)] for a, b in spans] for who, spans in TURNS.items()}


def test_one_speaker_is_more_like_himself_than_like_the_other(embedder, speech):
    embeddings = embedder.embed(speech["90"] + speech["91"])
    cosine = embeddings @ embeddings.T
    assert min(cosine[0, 1], cosine[2, 3]) > cosine[:2, 2:].max() + 0.05


def test_embeddings_have_unit_length_and_do_not_depend_on_the_company(embedder, speech):
    waves = speech["90"] + speech["91"]
    together = embedder.embed(waves)
    alone = np.concatenate([embedder.embed([wave]) for wave in waves])
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert together.dtype == np.float32


@pytest.mark.parametrize("samples", [0, 1, 159, 8000, 25600, 25601])
def test_short_waves_are_padded(embedder, samples):
    wave = np.random.default_rng(1).standard_normal(samples).astype(np.float32)
    embedding = embedder.embed([wave])
    assert embedding.shape == (1, 256)
    assert np.isfinite(embedding).all()


def test_no_waves_give_no_embeddings(embedder):
    assert embedder.embed([]).shape == (0, 256)


def test_level_does_not_matter_below_the_target(embedder, speech):
    wave = speech["91"][0]
    quiet = embedder.embed([wave * np.float32(0.1), wave * np.float32(0.01)])
    np.testing.assert_allclose(quiet[0], quiet[1], atol=1e-4)


def test_volume_is_raised_never_lowered():
    tone = np.sin(np.arange(16000)).astype(np.float32)
    assert np.sqrt(np.mean(raise_volume(tone * 0.001) ** 2)) == pytest.approx(10 ** (-30 / 20), rel=1e-4)
    np.testing.assert_array_equal(raise_volume(tone), tone)
    np.testing.assert_array_equal(raise_volume(np.zeros(10, np.float32)), 0.0)


@pytest.mark.parametrize(
    ("seconds", "starts"),
    [(0.5, [0]), (1.6, [0]), (1.96, [0]), (1.98, [0, 77]), (10.0, list(range(0, 848, 77)))],
)
def test_partial_utterances_cover_three_quarters_at_least(seconds, starts):
    assert partial_starts(int(seconds * 16000), rate=1.3, min_coverage=0.75).tolist() == starts


def test_the_network_equals_the_torch_model_of_the_wheel(embedder, speech):
    torch = pytest.importorskip("torch")
    spec = importlib.util.find_spec("resemblyzer")
    if spec is None:
        pytest.skip("the Resemblyzer wheel is not installed")
    path = Path(spec.submodule_search_locations[0]) / "pretrained.pt"
    state = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
    lstm, linear = torch.nn.LSTM(40, 256, 3, batch_first=True), torch.nn.Linear(256, 256)
    lstm.load_state_dict({name[5:]: value for name, value in state.items() if name.startswith("lstm.")})
    linear.load_state_dict({name[7:]: value for name, value in state.items() if name.startswith("linear.")})
    for wave in speech["90"] + speech["91"]:
        with torch.no_grad():
            hidden = lstm(torch.from_numpy(partial_mels(wave, 1.3, 0.75)))[1][0][-1]
            mean = torch.nn.functional.normalize(torch.relu(linear(hidden)), dim=1).mean(dim=0)
        np.testing.assert_allclose(embedder.embed([wave])[0], (mean / mean.norm()).numpy(), atol=1e-4)


def test_the_asset_is_what_the_export_command_writes(tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("torch")
    if importlib.util.find_spec("resemblyzer") is None:
        pytest.skip("the Resemblyzer wheel is not installed")
    output = tmp_path / "model.onnx"
    command = [sys.executable, "-m", "data_engine.models.speaker_encoder", "--output", str(output)]
    subprocess.run(command, check=True, capture_output=True)
    assert output.read_bytes() == MODEL.read_bytes()


def test_revision_names_the_weights_and_needs_no_loading(tmp_path):
    other = tmp_path / "other.onnx"
    other.write_bytes(b"other weights")
    assert ResemblyzerEmbedder().revision == ResemblyzerEmbedder(chunk=3).revision
    assert ResemblyzerEmbedder(model=str(other)).revision != ResemblyzerEmbedder().revision
