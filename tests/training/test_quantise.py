"""8-bit variants of the tokenizers: a quarter of the size, the codes of the float files."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from data_engine.models.fake_quant import put_on_grid  # noqa: E402
from data_engine.models.onnx_weights import rounded_weights, stored_weights  # noqa: E402
from data_engine.models.semantic_tokenizer import SemanticEncoder, export  # noqa: E402
from data_engine.models.whisper_mel import whisper_log_mel  # noqa: E402
from data_engine.training.loop import halve  # noqa: E402
from data_engine.training.quantise import agreement, quantise, small_name  # noqa: E402
from data_engine.training.shipping import ship  # noqa: E402
from tests.backends.tiny_codec import OneLayer  # noqa: E402

SIZE = 32


def speech(seed, seconds):
    """Tones that change every tenth of a second, with noise."""
    rng = np.random.default_rng(seed)
    times = np.arange(int(16000 * seconds)) / 16000
    pitch = np.repeat(rng.uniform(100, 3000, int(seconds * 10) + 1), 1600)[: len(times)]
    return (0.3 * np.sin(2 * np.pi * pitch * times) + 0.02 * rng.standard_normal(len(times))).astype(np.float32)


def write_folder(folder, on_grid):
    torch.manual_seed(1)
    encoder, linguistic = SemanticEncoder(SIZE, 64, 2).train(), OneLayer(SIZE)
    mel = torch.from_numpy(whisper_log_mel(speech(0, 4)).T.copy())[None]
    with torch.no_grad():
        for _ in range(40):
            encoder(mel)
    for model in (encoder.eval(), linguistic.eval()):
        if on_grid:
            put_on_grid(model)
        halve(model)
    export(encoder, str(folder / "speech_tokenizer_v1.onnx"))
    torch.onnx.export(
        linguistic, (torch.zeros(1, 9, 560),), str(folder / "encoder.onnx"), dynamo=False, opset_version=17,
        do_constant_folding=False, input_names=["features"], output_names=["states", "log_posteriors"],
        dynamic_axes={"features": {1: "n"}, "states": {1: "n"}, "log_posteriors": {1: "n"}},
    )  # fmt: skip
    np.save(folder / "linguistic_tokenizer.npy", np.random.default_rng(0).uniform(-1, 1, (64, SIZE)).astype("f4"))


WAVES = [speech(number, seconds) for number, seconds in enumerate((1.0, 2.3, 0.7, 3.1), 1)]


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grid")
    write_folder(folder, True)
    quantise(folder)
    return folder


def test_weights_on_the_grid_give_exactly_the_codes_of_the_float_files(grid):
    found = agreement(grid, WAVES)
    assert (found["vq02"], found["vq06"]) == (1, 1)


def test_a_clip_has_the_codes_it_has_alone(grid):
    assert agreement(grid, WAVES)["alone"] == 1


def test_other_weights_lose_few_codes(tmp_path):
    write_folder(tmp_path, False)
    quantise(tmp_path)
    found = agreement(tmp_path, WAVES)
    assert min(found["vq02"], found["vq06"]) > 0.8


def test_the_files_are_smaller_and_the_same_every_time(grid):
    first = {name: (grid / small_name(name)).read_bytes() for name in ("encoder.onnx", "speech_tokenizer_v1.onnx")}
    assert all(len(content) < (grid / name).stat().st_size for name, content in first.items())
    quantise(grid)
    assert all((grid / small_name(name)).read_bytes() == content for name, content in first.items())


def test_all_weights_of_products_are_bytes_and_no_activation_is(grid):
    import onnx

    for name in ("encoder.onnx", "speech_tokenizer_v1.onnx"):
        model = onnx.load(grid / small_name(name))
        operators = {node.op_type for node in model.graph.node}
        assert not operators & {"QuantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "DequantizeLinear"}
        large = [t for t in model.graph.initializer if np.prod(t.dims) > 600]
        assert large
        assert {t.data_type for t in large} == {onnx.TensorProto.INT8}


def test_static_activations_keep_the_shapes(grid, tmp_path):
    write_folder(tmp_path, True)
    quantise(tmp_path, "static", WAVES[:2])
    from data_engine.training.quantise import codes_of

    full, small = codes_of(grid, 32, WAVES)[0], codes_of(tmp_path, 8, WAVES)[0]
    assert [len(codes.vq06) for codes in full] == [len(codes.vq06) for codes in small]


def test_steps_are_per_channel_and_integers_use_the_whole_range():
    weights = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32) * np.array([1, 2, 4, 8, 0], np.float32)
    integers, steps = rounded_weights(weights, 1)
    assert steps.shape == (1, 5)
    assert np.abs(integers).max(0).tolist() == [127, 127, 127, 127, 0]
    assert np.abs(integers * steps - weights).max() <= steps.max() / 2 * 1.001


def test_stored_weights_are_the_same_whatever_they_are_stored_as(grid):
    whole = stored_weights(grid / "encoder.onnx")
    assert {name: values.shape for name, values in whole.items()} == {
        "states.weight": (SIZE, 560), "states.bias": (SIZE,),
    }  # fmt: skip
    for name, values in stored_weights(grid / "encoder.int8.onnx").items():
        assert np.array_equal(values, whole[name].astype(np.float32))


def test_finished_trainings_ship_in_eight_bits_with_hashes_for_the_card(grid, tmp_path):
    trained, assets = tmp_path / "trained", tmp_path / "assets"
    for name, files in {
        "linguistic/release": ("encoder.onnx", "linguistic_tokenizer.npy"),
        "semantic": ("speech_tokenizer_v1.onnx",),
    }.items():
        (trained / name).mkdir(parents=True)
        for file in files:
            (trained / name / file).write_bytes((grid / file).read_bytes())
    (trained / "linguistic/release/tokens.json").write_text("[]")
    for name in ("linguistic", "semantic"):
        (trained / name / "losses.csv").write_text("step,seconds,audio_hours,rate,loss\n1,1,1,1,2\n2,2,2,1,1\n")
        (trained / name / "evaluations.jsonl").write_text(
            '{"step": 2, "minutes": 1.0, "audio_hours": 1.0, "figure": 0.5}\n'
        )
    lines = list(ship(trained, assets))
    shipped = {path.name for path in (assets / "codec_nano").iterdir()}
    assert shipped == {
        "encoder.int8.onnx", "speech_tokenizer_v1.int8.onnx", "linguistic_tokenizer.npy", "tokens.json",
        "linguistic.png", "semantic.png",
    }  # fmt: skip
    assert len(lines) == 4 and all("MB" in line for line in lines)
    assert (assets / "codec_nano" / "encoder.int8.onnx").read_bytes() == (grid / "encoder.int8.onnx").read_bytes()
