"""Separation `hdemucs`: a small HDEMUCS of torchaudio, its state dict as torchaudio's bundles hold it."""

import importlib.util
import pickle
import sys

import numpy as np
import pytest

from data_engine.backends.catalog import build_backend
from data_engine.backends.protocols import Backend
from data_engine.backends.separation_hdemucs import chunk_starts, cross_fade
from data_engine.core.errors import ConfigError, MissingExtraError
from tests.backends.tiny_torchaudio import HDEMUCS, SOURCES, hdemucs, write

HAS_TORCHAUDIO = all(importlib.util.find_spec(name) for name in ("torch", "torchaudio"))
needs_torchaudio = pytest.mark.skipif(not HAS_TORCHAUDIO, reason="torchaudio is not installed (extra torchaudio)")
RATE = 44100


def built(path, **options):
    return build_backend("separation", "hdemucs", {"model": str(path), "architecture": HDEMUCS, **options})


def opened(path, **options):
    separator = built(path, **options)
    separator.open()
    return separator


def music(seconds, seed=0):
    """Returns a chord with noise, float32 [samples]."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    chord = sum(np.sin(2 * np.pi * hertz * time) for hertz in (220, 277, 330))
    return (0.1 * chord + 0.02 * rng.normal(size=len(time))).astype(np.float32)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write(hdemucs(), tmp_path_factory.mktemp("hdemucs") / "hdemucs.pt")


@pytest.fixture(scope="module")
def separator(weights):
    return opened(weights, chunk_seconds=1.0, overlap_seconds=0.1)


@needs_torchaudio
def test_it_keeps_the_contract_of_its_role(separator):
    assert isinstance(separator, Backend)
    assert separator.sample_rate == RATE
    waves = [music(0.7), music(2.35), music(0.01), np.zeros(RATE, np.float32), np.zeros(0, np.float32), music(1.0)]
    found = separator.speech(waves)
    assert [len(voice) for voice in found] == [len(wave) for wave in waves]
    assert all(voice.dtype == np.float32 and np.isfinite(voice).all() for voice in found)
    assert not found[3].any(), "silence stays silence"
    assert separator.speech([]) == []


@needs_torchaudio
def test_a_wave_is_separated_the_same_alone_and_in_any_order(separator, weights):
    waves = [music(1.6, 1), music(0.5, 2)]
    together = separator.speech(waves)
    again = opened(weights, chunk_seconds=1.0, overlap_seconds=0.1).speech(waves[::-1])[::-1]
    assert [voice.tobytes() for voice in together] == [voice.tobytes() for voice in again]


@needs_torchaudio
@pytest.mark.parametrize("voice", SOURCES)
def test_the_source_asked_for_is_what_the_library_gives_for_it(weights, voice):
    import torch

    wave = music(0.5)
    normal = (wave - wave.mean()) / wave.std()
    with torch.inference_mode():
        stereo = torch.from_numpy(normal).expand(1, 2, -1)
        expected = hdemucs()(stereo)[0, SOURCES.index(voice)].mean(0).numpy() * wave.std() + wave.mean()
    np.testing.assert_allclose(opened(weights, voice=voice).speech([wave])[0], expected, atol=1e-5)


@needs_torchaudio
def test_level_and_batch_size_change_nothing_else(separator, weights):
    wave = music(2.35)
    whole = separator.speech([wave])[0]
    np.testing.assert_allclose(separator.speech([wave / 8])[0] * 8, whole, atol=1e-4)
    one = opened(weights, chunk_seconds=1.0, overlap_seconds=0.1, batch_size=1)
    np.testing.assert_allclose(one.speech([wave])[0], whole, atol=1e-4)


@needs_torchaudio
def test_weights_may_be_safetensors(weights, tmp_path):
    other = write(hdemucs(), tmp_path / "hdemucs.safetensors")
    wave = music(0.4)
    assert opened(other).speech([wave])[0].tobytes() == opened(weights).speech([wave])[0].tobytes()
    assert built(other).revision != built(weights).revision


@needs_torchaudio
def test_weights_of_another_network_are_refused(weights, tmp_path):
    with pytest.raises(ConfigError, match="another network"):
        opened(weights, architecture={**HDEMUCS, "channels": 16})
    with pytest.raises(ConfigError, match="another network"):
        opened(write(hdemucs(SOURCES[:2]), tmp_path / "two.pt"))
    with pytest.raises(ConfigError, match="architecture"):
        opened(weights, architecture={"no_such_argument": 1})
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="cannot read"):
        opened(tmp_path / "broken.safetensors")


@needs_torchaudio
def test_code_in_a_file_of_weights_is_never_run(tmp_path):
    class Planted:
        def __reduce__(self):
            return (open, (str(tmp_path / "was_run"), "w"))

    (tmp_path / "planted.pt").write_bytes(pickle.dumps({"weight": Planted()}))
    with pytest.raises(ConfigError, match="cannot read"):
        opened(tmp_path / "planted.pt")
    assert not (tmp_path / "was_run").exists()


@needs_torchaudio
def test_a_bundle_is_taken_from_the_cache(weights, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="offline"):
        opened("HDEMUCS_HIGH_MUSDB_PLUS")
    cached = tmp_path / "hub" / "torchaudio" / "models" / "hdemucs_high_trained.pt"
    cached.parent.mkdir(parents=True, exist_ok=True)
    cached.write_bytes(weights.read_bytes())
    wave = music(0.4)
    assert opened("HDEMUCS_HIGH_MUSDB_PLUS").speech([wave])[0].tobytes() == opened(weights).speech([wave])[0].tobytes()


@needs_torchaudio
def test_a_device_that_is_not_there_is_a_configuration_error(weights):
    import torch

    if torch.cuda.is_available():
        assert len(opened(weights, device="cuda").speech([music(0.4)])[0]) == round(0.4 * RATE)
    else:
        with pytest.raises(ConfigError, match="cuda"):
            opened(weights, device="cuda")


def test_without_options_it_is_torchaudios_bundle():
    import inspect

    pipelines = pytest.importorskip("torchaudio.pipelines")
    from data_engine.backends.separation_hdemucs import BUNDLES, HdemucsSeparator

    bundle = pipelines.HDEMUCS_HIGH_MUSDB_PLUS
    assert bundle.sample_rate == HdemucsSeparator.sample_rate
    assert {name: getattr(pipelines, name)._model_path for name in BUNDLES} == BUNDLES
    default = inspect.signature(HdemucsSeparator).parameters["sources"].default
    separator = HdemucsSeparator("HDEMUCS_HIGH_MUSDB_PLUS")
    assert list(default) == bundle._model_factory_func.keywords["sources"]
    network = bundle._model_factory_func()
    assert {name: getattr(network, name) for name in separator._architecture} == separator._architecture


def test_the_revision_is_of_weights_and_network(tmp_path):
    path = tmp_path / "weights.pt"
    path.write_bytes(b"weights")
    seen = {built(path).revision, built(path, architecture={}).revision, built(path, sources=["vocals"]).revision}
    path.write_bytes(b"others")
    assert len(seen | {built(path).revision}) == 4
    with pytest.raises(ConfigError, match="HDEMUCS_HIGH_MUSDB_PLUS"):
        _ = built(tmp_path / "nothing.pt").revision
    with pytest.raises(ConfigError, match="'model'"):
        _ = build_backend("separation", "hdemucs", {}).revision


@pytest.mark.parametrize(
    "options", [{"voice": "singing"}, {"chunk_seconds": 0.1}, {"chunk_seconds": 1, "overlap_seconds": 0.6}]
)
def test_options_that_cannot_be_are_refused(options):
    with pytest.raises(ConfigError, match="hdemucs"):
        build_backend("separation", "hdemucs", {"model": "m", **options})


def test_a_missing_library_says_how_to_install_it(tmp_path, monkeypatch):
    (tmp_path / "weights.pt").write_bytes(b"weights")
    monkeypatch.setitem(sys.modules, "torchaudio", None)
    with pytest.raises(MissingExtraError, match=r"speech-data-engine\[torchaudio\]"):
        opened(tmp_path / "weights.pt")


@pytest.mark.parametrize("num_samples", [1, 99, 100, 101, 180, 181, 1000])
def test_chunks_cover_a_wave_and_join_without_a_seam(num_samples):
    starts = chunk_starts(num_samples, 100, 20)
    assert starts[0] == 0
    assert starts[-1] + min(100, num_samples) == num_samples
    assert all(0 < step <= 80 for step in np.diff(starts))
    wave = np.random.default_rng(0).normal(size=num_samples).astype(np.float32)
    joined = cross_fade([wave[start : start + 100] for start in starts], starts, num_samples, 20)
    np.testing.assert_allclose(joined, wave, atol=1e-6)
    step = cross_fade([np.zeros(100), np.ones(100)], [0, 80], 180, 20)
    assert np.all(np.diff(step) >= 0), "one chunk fades into the next"
    assert step[79] == 0
    assert step[100] == 1
