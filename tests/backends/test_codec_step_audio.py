"""Codec `step-audio`: a FunASR folder, a k-means file and speech_tokenizer_v1.onnx, read by the real libraries."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import soundfile

torch = pytest.importorskip("torch")

from data_engine.backends.catalog import build_backend  # noqa: E402
from data_engine.core.errors import ConfigError, MissingExtraError  # noqa: E402
from tests.backends.tiny_codec import SIZE, write_codebook, write_decoder, write_semantic  # noqa: E402

HAS_FUNASR = importlib.util.find_spec("funasr") is not None
needs_funasr = pytest.mark.skipif(not HAS_FUNASR, reason="funasr is not installed (extra step-audio)")


@pytest.fixture(scope="module")
def speech(conversation):
    return soundfile.read(conversation, dtype="float32")[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, speech):
    """One folder with the FunASR layout and, of the same weights, the ONNX files of codec `nano`."""
    from data_engine.models.funasr_folder import write_funasr
    from data_engine.models.kaldi_fbank import kaldi_fbank, low_frame_rate
    from data_engine.models.linguistic_encoder import ENCODER, LinguisticEncoder
    from data_engine.training.linguistic_release import export_onnx

    made = tmp_path_factory.mktemp("step_audio")
    torch.manual_seed(0)
    tokens = ["<blank>", "a", "b", "<unk>"]
    model = LinguisticEncoder(len(tokens), ENCODER).eval()
    assert model.encoder.output_size() == SIZE
    rows = torch.from_numpy(low_frame_rate(kaldi_fbank(speech)))
    model.mean.copy_(-rows.mean(0))
    model.scale.copy_(1 / rows.std(0))
    write_funasr(model, tokens, made)
    export_onnx(model, made / "encoder.onnx")
    with torch.inference_mode():
        states = model(rows[None], torch.tensor([len(rows)]))[0][0].numpy()
    write_codebook(made, states)
    write_semantic(made, speech)
    write_decoder(made)
    return made


def options(folder, **more):
    return {"linguistic": str(folder), "semantic": f"{folder}/speech_tokenizer_v1.onnx", **more}


@pytest.fixture(scope="module")
def codec(folder):
    opened = build_backend("codec", "step-audio", options(folder))
    opened.open()
    return opened


@pytest.fixture(scope="module")
def clips(speech):
    lengths = [16000, 40001, 41000, 16000, 500, 0, 959, 960, 79999, 64000, 15999, 100_400]
    return [speech[100_000 + 1000 * n : 100_000 + 1000 * n + length] for n, length in enumerate(lengths)]


@needs_funasr
def test_the_small_codec_gives_the_same_ids_without_torch(codec, folder, clips, speech):
    nano = build_backend("codec", "nano", {"path": str(folder), "bits": 32})
    nano.open()
    for clip in [speech, *clips]:
        theirs, ours = codec.encode([clip])[0], nano.encode([clip])[0]
        assert np.array_equal(theirs.vq02, ours.vq02)
        assert np.array_equal(theirs.vq06, ours.vq06)
    assert len(np.unique(codec.encode([speech])[0].vq02)) > 30


@needs_funasr
def test_a_batch_gives_the_codes_of_one_clip_at_a_time(codec, clips):
    for clip, together in zip(clips, codec.encode(clips), strict=True):
        alone = codec.encode([clip])[0]
        assert np.array_equal(alone.vq02, together.vq02)
        assert np.array_equal(alone.vq06, together.vq06)


@needs_funasr
def test_a_folder_that_asks_for_dither_gets_none(folder, tmp_path, speech):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    text = (tmp_path / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text.replace("dither: 0.0", "dither: 1.0"))
    codec = build_backend("codec", "step-audio", options(tmp_path))
    codec.open()
    first, second = codec.encode([speech[:48000]])[0], codec.encode([speech[:48000]])[0]
    assert np.array_equal(first.vq02, second.vq02)


@needs_funasr
def test_without_a_decoder_decoding_says_what_to_do(codec):
    with pytest.raises(ConfigError, match="'decoder'"):
        codec.decode([], [])


@needs_funasr
def test_with_a_decoder_it_speaks(folder, speech):
    decoder = {"decoder": str(folder / "decoder.onnx"), "vocoder": str(folder / "vocoder.onnx")}
    codec = build_backend("codec", "step-audio", options(folder, **decoder))
    codec.open()
    wave = codec.decode(codec.encode([speech[:32000]]), [np.eye(256, dtype=np.float32)[0]])[0]
    assert len(wave) == 16 * 1920
    assert np.isfinite(wave).all()


@needs_funasr
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_is_refused_where_there_is_none(folder):
    with pytest.raises(ConfigError, match="CUDA"):
        build_backend("codec", "step-audio", options(folder, device="cuda")).open()


@needs_funasr
def test_a_hub_id_that_is_not_in_the_cache_is_a_configuration_error(folder):
    more = {"linguistic": "nobody/nothing", "model_revision": "v1", "hub": "hf"}
    more["codebook"] = str(folder / "linguistic_tokenizer.npy")
    codec = build_backend("codec", "step-audio", options(folder, **more))
    with pytest.raises(ConfigError, match="nobody/nothing"):
        codec.open()


@pytest.fixture
def plain(tmp_path):
    """Files with the right names; the hash reads nothing else."""
    for name in ("config.yaml", "model.pt", "linguistic_tokenizer.npy", "speech_tokenizer_v1.onnx"):
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def test_the_tokenizer_hash_covers_every_file_and_loads_nothing(plain):
    revision = lambda: build_backend("codec", "step-audio", options(plain)).revision  # noqa: E731
    seen = {revision()}
    for name in ("config.yaml", "model.pt", "linguistic_tokenizer.npy", "speech_tokenizer_v1.onnx"):
        (plain / name).write_bytes(b"changed")
        seen.add(revision())
    assert len(seen) == 5


def test_a_hub_id_needs_a_revision_and_is_hashed_with_it(plain):
    at = lambda revision: build_backend(  # noqa: E731
        "codec", "step-audio",
        options("someone/paraformer", semantic=str(plain / "speech_tokenizer_v1.onnx"), model_revision=revision,
                codebook=str(plain / "linguistic_tokenizer.npy")),
    ).revision  # fmt: skip
    assert at("v1") != at("v2")
    with pytest.raises(ConfigError, match="model_revision"):
        at(None)


@pytest.mark.parametrize("missing", ["linguistic", "semantic"])
def test_a_missing_option_is_named(plain, missing):
    chosen = {name: value for name, value in options(plain).items() if name != missing}
    if missing == "linguistic":
        chosen["codebook"] = str(plain / "linguistic_tokenizer.npy")
    with pytest.raises(ConfigError, match=f"'{missing}'"):
        _ = build_backend("codec", "step-audio", chosen).revision


@pytest.mark.skipif(HAS_FUNASR, reason="funasr is installed")
def test_a_missing_library_says_how_to_install_it(plain):
    np.save(plain / "linguistic_tokenizer.npy", np.zeros((4, 8), np.float32))
    with pytest.raises(MissingExtraError, match=r"speech-data-engine\[step-audio\]"):
        build_backend("codec", "step-audio", options(plain)).open()


def test_the_production_config_has_one_codec_for_segments_and_voices():
    from pipelines.run import read_run_config

    path = Path(__file__).parents[2] / "configs" / "production" / "codec-step-audio.yaml"
    curate = read_run_config(path, []).curate
    assert curate.tokenize.codec == curate.voices.codec
    built = build_backend("codec", curate.tokenize.codec.name, curate.tokenize.codec.options)
    with pytest.raises(ConfigError, match="linguistic_tokenizer.npy|paraformer"):
        _ = built.revision  # the folder of the download is not here
