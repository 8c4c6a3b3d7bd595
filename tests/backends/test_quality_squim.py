"""Squim `torchaudio`: a small SQUIM objective network, its state dict as torchaudio's bundle holds it."""

import importlib.util
import sys

import numpy as np
import pytest

from data_engine.backends.catalog import build_backend
from data_engine.backends.protocols import Backend
from data_engine.backends.quality_squim import equal_windows
from data_engine.core.errors import ConfigError, MissingExtraError
from tests.backends.tiny_funasr import RATE, murmur
from tests.backends.tiny_torchaudio import SQUIM, squim, write

HAS_TORCHAUDIO = all(importlib.util.find_spec(name) for name in ("torch", "torchaudio"))
needs_torchaudio = pytest.mark.skipif(not HAS_TORCHAUDIO, reason="torchaudio is not installed (extra torchaudio)")


def built(path, **options):
    return build_backend("squim", "torchaudio", {"model": str(path), "architecture": SQUIM, **options})


def opened(path, **options):
    model = built(path, **options)
    model.open()
    return model


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write(squim(), tmp_path_factory.mktemp("squim") / "squim.pth")


@pytest.fixture(scope="module")
def model(weights):
    return opened(weights, window_seconds=1.0)


@needs_torchaudio
def test_it_keeps_the_contract_of_its_role(model):
    assert isinstance(model, Backend)
    assert model.sample_rate == RATE
    scores = model.estimate([murmur(0.7), murmur(2.3, 1)])
    assert scores.shape == (2, 3)
    assert scores.dtype == np.float32
    assert np.all((scores[:, 0] >= 0) & (scores[:, 0] <= 1)), "STOI"
    assert np.all((scores[:, 1] >= 1) & (scores[:, 1] <= 4.65)), "PESQ"
    assert np.isfinite(scores[:, 2]).all()
    assert model.estimate([]).shape == (0, 3)


@needs_torchaudio
def test_silence_and_scraps_have_no_scores(model):
    scores = model.estimate([np.zeros(RATE, np.float32), murmur(0.5), murmur(0.5)[:50], np.zeros(0, np.float32)])
    assert np.isnan(scores).all(axis=1).tolist() == [True, False, True, True]
    half = np.concatenate([murmur(1.0), np.zeros(RATE, np.float32)])
    np.testing.assert_array_equal(model.estimate([half]), model.estimate([murmur(1.0)]))


@needs_torchaudio
def test_a_clip_gets_the_same_scores_alone_and_in_any_order(model, weights):
    clips = [murmur(0.7), murmur(2.3, 1), murmur(1.0, 2)]
    together = model.estimate(clips)
    alone = opened(weights, window_seconds=1.0).estimate(clips[::-1])[::-1]
    assert together.tobytes() == np.ascontiguousarray(alone).tobytes()
    one_by_one = opened(weights, window_seconds=1.0, batch_size=1).estimate(clips)
    np.testing.assert_allclose(one_by_one, together, rtol=1e-5, atol=1e-6)


@needs_torchaudio
def test_scores_are_those_of_the_library(model):
    import torch

    clip = murmur(0.9)
    with torch.inference_mode():
        expected = [float(score) for score in squim()(torch.from_numpy(clip)[None])]
        halves = [squim()(torch.from_numpy(half)[None]) for half in np.split(murmur(1.6), 2)]
    np.testing.assert_allclose(model.estimate([clip])[0], expected, rtol=1e-5)
    mean = [float(torch.stack(pair).mean()) for pair in zip(*halves, strict=True)]
    np.testing.assert_allclose(model.estimate([murmur(1.6)])[0], mean, rtol=1e-5, atol=1e-6)


@needs_torchaudio
def test_a_bundle_is_taken_from_the_cache(weights, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="offline"):
        opened("SQUIM_OBJECTIVE")
    cached = tmp_path / "hub" / "torchaudio" / "models" / "squim_objective_dns2020.pth"
    cached.parent.mkdir(parents=True, exist_ok=True)
    cached.write_bytes(weights.read_bytes())
    np.testing.assert_array_equal(
        opened("SQUIM_OBJECTIVE").estimate([murmur(1)]), opened(weights).estimate([murmur(1)])
    )


@needs_torchaudio
def test_without_options_it_is_torchaudios_network():
    from torchaudio.models import squim_objective_base, squim_objective_model
    from torchaudio.pipelines import SQUIM_OBJECTIVE

    from data_engine.backends.quality_squim import _BASE, BUNDLES

    base, ours = squim_objective_base().state_dict(), squim_objective_model(**_BASE).state_dict()
    assert {name: value.shape for name, value in base.items()} == {name: value.shape for name, value in ours.items()}
    assert BUNDLES["SQUIM_OBJECTIVE"] == f"models/{SQUIM_OBJECTIVE._path}"
    assert SQUIM_OBJECTIVE.sample_rate == RATE


@needs_torchaudio
def test_what_does_not_fit_is_a_configuration_error(weights):
    with pytest.raises(ConfigError, match="another network"):
        opened(weights, architecture={})
    with pytest.raises(ConfigError, match="architecture"):
        opened(weights, architecture={"no_such_argument": 1})
    with pytest.raises(ConfigError, match="window_seconds"):
        built(weights, window_seconds=0)


def test_the_revision_is_of_weights_and_network(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"weights")
    seen = {built(path).revision, built(path, architecture={}).revision}
    path.write_bytes(b"others")
    assert len(seen | {built(path).revision}) == 3
    with pytest.raises(ConfigError, match="SQUIM_OBJECTIVE"):
        _ = built(tmp_path / "nothing.pth").revision


def test_a_missing_library_says_how_to_install_it(tmp_path, monkeypatch):
    (tmp_path / "weights.pth").write_bytes(b"weights")
    monkeypatch.setitem(sys.modules, "torchaudio", None)
    with pytest.raises(MissingExtraError, match=r"speech-data-engine\[torchaudio\]"):
        opened(tmp_path / "weights.pth")


@pytest.mark.parametrize(
    ("num_samples", "shape"), [(0, (1, 0)), (1, (1, 1)), (10, (1, 10)), (11, (2, 5)), (29, (3, 9))]
)
def test_windows_are_of_equal_length(num_samples, shape):
    assert equal_windows(np.zeros(num_samples, np.float32), 10).shape == shape
