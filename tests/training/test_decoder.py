"""The decoder and the vocoder: frames where the codes are, and losses that fall."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from data_engine.models.semantic_tokenizer import indices  # noqa: E402
from data_engine.models.token_decoder import CodeConditioner, FlowEstimator, code_points, sample  # noqa: E402
from data_engine.models.vocoder import Vocoder, spectral_loss  # noqa: E402


def codes(groups):
    rng = np.random.default_rng(0)
    linguistic = torch.from_numpy(rng.integers(0, 1024, (2, 2 * groups)))
    return linguistic, torch.from_numpy(rng.integers(0, 4096, (2, 3 * groups)))


def conditioner():
    torch.manual_seed(0)
    return CodeConditioner(torch.randn(1024, 16), size=32, hidden=48)


def test_a_group_becomes_twelve_frames_of_ten_milliseconds():
    states, mean = conditioner()(*codes(5), torch.zeros(2, 256))
    assert states.shape == (2, 30, 32)
    assert mean.shape == (2, 60, 80)


def test_code_points_are_the_inverse_of_the_tokenizer_s_indices():
    numbers = torch.arange(4096)
    assert torch.equal(indices(code_points(numbers)), numbers.int())


def test_sampling_from_the_same_noise_gives_the_same_mel():
    estimator = FlowEstimator(32, 48, 2)
    states, mean = conditioner()(*codes(2), torch.zeros(2, 256))
    noise = torch.randn(2, 24, 80)
    with torch.inference_mode():
        first, second = (sample(estimator, mean, states, torch.zeros(2, 256), noise, 3) for _ in range(2))
    assert torch.equal(first, second)


def test_an_untrained_flow_without_velocity_returns_its_noise():
    estimator = FlowEstimator(32, 48, 2)
    torch.nn.init.zeros_(estimator.last.bias)
    states, mean = conditioner()(*codes(2), torch.zeros(2, 256))
    noise = torch.randn(2, 24, 80)
    with torch.inference_mode():
        assert torch.equal(sample(estimator, mean, states, torch.zeros(2, 256), noise, 3), noise)


def test_the_vocoder_makes_a_hop_per_frame():
    assert Vocoder(32, 48, 1)(torch.zeros(2, 11, 80)).shape == (2, 1600)


def test_equal_waves_have_no_spectral_loss_and_other_ones_have():
    wave = torch.randn(1, 4000)
    assert spectral_loss(wave, wave, 512) == 0
    assert spectral_loss(0.5 * wave, wave, 512) > 0.5
