"""The semantic tokenizer: finite scalar quantisation and the ONNX file of it."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from data_engine.models.semantic_tokenizer import (  # noqa: E402
    NUM_CODES,
    SemanticEncoder,
    export,
    indices,
    quantised,
)


def test_every_code_is_a_corner_of_the_grid_and_no_two_are_one():
    axis = torch.tensor([-1, -1 / 3, 1 / 3, 1])
    corners = torch.cartesian_prod(*[axis] * 6)
    assert indices(corners).sort().values.tolist() == list(range(NUM_CODES))
    assert torch.allclose(quantised(corners), corners, atol=1e-6)


def test_quantising_passes_gradients_straight_through():
    points = torch.rand(3, 6, requires_grad=True)
    quantised(points).sum().backward()
    assert torch.equal(points.grad, torch.ones(3, 6))


@pytest.mark.parametrize("frames", [1, 4, 97, 400])
def test_a_token_covers_four_frames(frames):
    points = SemanticEncoder(32, 64, 1)(torch.zeros(2, 128, frames))[1]
    assert points.shape == (2, (frames + 3) // 4, 6)


def test_the_onnx_file_has_cosyvoice_s_signature_and_gives_the_same_codes(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    torch.manual_seed(0)
    encoder = SemanticEncoder(32, 64, 2).eval()
    export(encoder, str(tmp_path / "speech_tokenizer_v1.onnx"))
    session = onnxruntime.InferenceSession(str(tmp_path / "speech_tokenizer_v1.onnx"))
    assert [(entry.name, entry.type) for entry in session.get_inputs()] == [
        ("feats", "tensor(float)"), ("feats_length", "tensor(int32)"),
    ]  # fmt: skip
    assert [(entry.name, entry.type) for entry in session.get_outputs()] == [("indices", "tensor(int32)")]
    for frames in (50, 403, 777):
        mel = np.random.default_rng(frames).uniform(-1, 1, (1, 128, frames)).astype(np.float32)
        found = session.run(None, {"feats": mel, "feats_length": np.array([frames], np.int32)})[0]
        assert found.shape == (1, (frames + 3) // 4)
        assert np.array_equal(found, indices(encoder(torch.from_numpy(mel))[1]).numpy())
