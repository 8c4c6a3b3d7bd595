"""SSQL: rounding that lets gradients through, the bits of its passes, a pre-training that can be stopped."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from data_engine.models.fake_quant import (  # noqa: E402
    Bits,
    FakeQuantiser,
    Plan,
    fake_activations,
    fake_weights,
    put_on_grid,
)
from data_engine.training.loop import LoopSettings  # noqa: E402
from data_engine.training.ssql import (  # noqa: E402
    PretrainSettings,
    SelfSupervised,
    drawn_bits,
    pretrain,
    similarity_loss,
    ssql_losses,
    view,
)


class TinyEncoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv1d(10, 8, 3, padding=1)
        self.last = torch.nn.Linear(8, 8)

    def forward(self, features):
        return self.last(torch.relu(self.first(features.transpose(1, 2))).transpose(1, 2))


def tiny_model(momentum=0.9):
    torch.manual_seed(0)
    return SelfSupervised(TinyEncoder(), 8, 16, momentum, "first", ("last",))


def draw(step):
    torch.manual_seed(step)
    features = torch.randn(4, 12, 10)
    return features, torch.arange(12)[None] < torch.tensor([[12], [12], [9], [5]]), 0.48


def test_rounding_lets_gradients_straight_through():
    torch.manual_seed(0)
    weights = torch.randn(3, 5, requires_grad=True)
    (fake_weights(weights, 2) * torch.arange(15.0).reshape(3, 5)).sum().backward()
    assert torch.allclose(weights.grad, torch.arange(15.0).reshape(3, 5))


def test_activations_outside_of_the_range_move_to_its_edge_and_have_no_gradient():
    values = torch.tensor([-3.0, 0.0, 0.5, 9.0], requires_grad=True)
    found = fake_activations(values, 8, torch.tensor(-1.0), torch.tensor(1.0))
    found.sum().backward()
    assert found[[0, 1, 3]].tolist() == pytest.approx([-1, 0, 1], abs=0.01)
    assert values.grad.tolist() == [0, 1, 1, 0]


def test_each_channel_of_weights_has_its_own_range():
    torch.manual_seed(0)
    weights = torch.randn(4, 20) * torch.tensor([[0.01], [1.0], [10.0], [100.0]])
    for bits in (2, 4, 8):
        found = fake_weights(weights, bits)
        steps = weights.abs().amax(1, keepdim=True) / {2: 1.5, 4: 7.5, 8: 127}[bits]
        assert bool(((found - weights).abs() <= steps / 2 * 1.0001).all())
        assert max(len(row.unique()) for row in found) <= 2**bits


def test_two_bits_have_four_levels_of_which_zero_is_one():
    found = fake_weights(torch.tensor([[-3.0, -1.4, -0.9, 0.9, 1.4, 3.0]]), 2)
    assert found.tolist() == [[-4.0, -2.0, 0.0, 0.0, 2.0, 2.0]]


def test_the_statistics_of_the_float_passes_stay():
    layers = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    before = [buffer.clone() for buffer in layers.buffers()]
    FakeQuantiser(layers, Plan()).run(Bits(2, 4), None, torch.randn(8, 4))
    assert all(torch.equal(a, b) for a, b in zip(before, layers.buffers(), strict=True))
    layers(torch.randn(8, 4))
    assert not torch.equal(before[0], layers[1].running_mean)


def test_a_rounded_pass_normalises_with_the_moments_of_the_float_pass():
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Conv1d(4, 3, 1), torch.nn.BatchNorm1d(3))
    quantiser = FakeQuantiser(layers, Plan(float_inputs=("0",)))
    features = torch.randn(8, 4, 5)
    moments = {}
    with quantiser.observing({}, moments):
        plain = layers(features)
    rounded = quantiser.run(Bits(8, 8), None, features, moments=moments)
    assert rounded.detach() == pytest.approx(plain.detach(), abs=0.05)
    spread = float(plain.detach().std())
    twice = quantiser.run(Bits(8, 8), None, 2 * features, moments=moments).detach()
    assert float(twice.std()) == pytest.approx(2 * spread, rel=0.05)
    own = quantiser.run(Bits(8, 8), None, 2 * features).detach()
    assert float(own.std()) == pytest.approx(spread, rel=0.05)


def test_passes_have_weights_of_2_to_8_bits_and_activations_of_4_to_8():
    torch.manual_seed(0)
    drawn = [drawn_bits() for _ in range(400)]
    assert {bits.weights for bits in drawn} == set(range(2, 9))
    assert {bits.activations for bits in drawn} == set(range(4, 9))


def test_the_first_layer_and_the_weights_of_the_projector_keep_eight_bits():
    quantiser = tiny_model().quantiser
    found = {name: str(quantiser.bits_of(name, Bits(2, 4))) for name in quantiser.layers}
    assert found == {
        "encoder.first": "8w8a", "encoder.last": "2w4a", "projector.0": "8w8a", "projector.3": "8w8a",
        "projector.6": "8w8a",
    }  # fmt: skip


def test_inputs_of_the_projector_and_of_what_ends_a_block_stay_float():
    model = tiny_model()
    features, inside, _ = draw(0)
    seen = {}
    for name, layer in model.embedder.named_modules():
        layer.register_forward_hook(lambda layer, inputs, output, name=name: seen.update({name: inputs[0].unique()}))
    model.quantiser.run(Bits(4, 4), None, features, inside)
    assert all(len(seen[name]) > 2**4 for name in ("encoder.last", "projector.0", "projector.3", "projector.6"))


def test_a_layer_is_rounded_as_onnxruntime_rounds_it(tmp_path):
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    torch.manual_seed(0)
    layer = torch.nn.Linear(24, 6, bias=False)
    rows = torch.randn(5, 24)
    steps = (layer.weight.detach().abs().amax(1) / 127).numpy()
    integers = np.rint(layer.weight.detach().numpy() / steps[:, None]).astype(np.int8).T.copy()
    low, high = rows.aminmax()
    scale = np.float32((high - low) / 255)
    constants = {
        "scale": scale, "zero": np.uint8(np.rint(-low / scale)), "integers": integers, "steps": steps.astype("f4")
    }  # fmt: skip
    graph = helper.make_graph(
        [helper.make_node("QuantizeLinear", ["rows", "scale", "zero"], ["q"]),
         helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["x"]),
         helper.make_node("DequantizeLinear", ["integers", "steps"], ["w"], axis=1),
         helper.make_node("MatMul", ["x", "w"], ["y"])], "layer",
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, [5, 24])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [5, 6])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    expected = runtime.InferenceSession(model.SerializeToString()).run(None, {"rows": rows.numpy()})[0]
    found = FakeQuantiser(layer, Plan()).run(Bits(8, 8), None, rows).detach().numpy()
    assert np.abs(found - layer(rows).detach().numpy()).max() > 1e-4
    assert found == pytest.approx(expected, abs=2e-5)


def test_running_rounded_leaves_the_network_as_it_is():
    model = tiny_model()
    features, inside, _ = draw(0)
    before = {name: value.clone() for name, value in model.named_parameters()}
    moments = {}
    with model.quantiser.observing({}, moments):
        model.embedder(features, inside)
    model.quantiser.run(Bits(2, 4), None, features, inside, moments=moments)
    assert model.embedder.projector[1].training
    assert all(torch.equal(before[name], value) for name, value in model.named_parameters())
    assert not model.embedder.encoder.first._forward_pre_hooks


def test_targets_are_constants_for_both_losses():
    target = torch.randn(6, 4, requires_grad=True)
    predicted = torch.randn(6, 4, requires_grad=True)
    similarity_loss((predicted, predicted), (target, target)).backward()
    assert target.grad is None
    assert predicted.grad is not None
    assert float(similarity_loss((target, target), (target, target)).detach()) == pytest.approx(-1)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_ssql_is_the_mean_of_the_float_loss_and_the_rounded_one(momentum):
    def losses(quantised):
        model = tiny_model(momentum)
        features, inside, _ = draw(3)
        torch.manual_seed(5)
        found = ssql_losses(model, (features, features), inside, quantised)
        return {name: float(loss.detach()) for name, loss in found.items()}

    plain, both = losses(False), losses(True)
    assert both["plain"] == pytest.approx(plain["plain"] / 2, abs=1e-5)
    assert list(both) == ["plain", "ssql"]


def test_targets_come_from_a_network_that_follows_without_gradients():
    model = tiny_model(0.9)
    features, inside, _ = draw(1)
    views = features, features + 1
    start = model.follower.encoder.last.weight.clone()
    with torch.no_grad():
        model.embedder.encoder.last.weight += 1
    ssql_losses(model, views, inside, True)["plain"].backward()
    assert model.follower.encoder.last.weight == pytest.approx(start + 0.1, abs=1e-6)
    assert all(weight.grad is None for weight in model.follower.parameters())
    projected = model.embedder(views[0], inside), model.embedder(views[1], inside)
    assert not torch.equal(model.targets(views, inside, projected)[0], projected[0])
    assert tiny_model(0.0).targets(views, inside, projected) is projected


def test_a_view_is_at_most_3_db_louder_or_softer_noisy_and_has_a_masked_band_of_a_tenth():
    torch.manual_seed(1)
    features = torch.randn(64, 50, 40)
    decibel = 0.4 * 0.2303
    seen = view(features, 0.4)
    assert seen.shape == features.shape
    masked = seen.std(1) < 1e-6
    assert masked.sum(1).tolist() == [4] * 64
    moved = (seen - features).median(1).values[~masked].reshape(64, 36)
    gains = moved.median(1).values / decibel
    assert float(gains.abs().max()) == pytest.approx(3, abs=0.5)
    assert float((seen - features).std(1)[~masked].mean() / decibel) == pytest.approx(1.7, abs=0.1)


def test_a_stopped_pretraining_goes_on_with_the_steps_it_would_have_made(tmp_path):
    loop = LoopSettings(log_steps=1, warmup=1, evaluate_minutes=9, save_minutes=9)

    def losses_after(folder, budgets):
        for steps in budgets:
            pretrain(
                tiny_model(), draw, folder, PretrainSettings(steps=steps, rate=0.0), loop, 0.4
            )  # fmt: skip
        rows = (folder / "losses.csv").read_text().splitlines()
        return [line.split(",")[0] + ":" + ",".join(line.split(",")[4:]) for line in rows[1:]]

    assert losses_after(tmp_path / "stopped", (3, 6)) == losses_after(tmp_path / "whole", (6,))


def test_weights_on_the_grid_stay_there_and_are_exact_in_half_precision():
    torch.manual_seed(0)
    layer = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.Conv1d(4, 6, 3))
    before = layer[0].weight.clone()
    assert put_on_grid(layer) == 2
    moved = layer[0].weight.clone()
    assert float((moved - before).abs().max()) < float(before.abs().max()) / 200
    assert torch.equal(moved.half().float(), moved)
