"""Codec `nano`: a folder of ONNX files gives Step-Audio's two code streams and speech, without torch at run time."""

import subprocess
import sys

import numpy as np
import pytest
import soundfile

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from data_engine.backends.catalog import build_backend  # noqa: E402
from data_engine.backends.semantic_session import WINDOW, SemanticSession, length_batches, windows  # noqa: E402
from data_engine.core.errors import ConfigError  # noqa: E402
from data_engine.models.overlap_add import inverse_spectrum  # noqa: E402
from data_engine.tokens.layout import expected_counts, interleave_codes  # noqa: E402
from tests.backends.tiny_codec import write_nano  # noqa: E402


@pytest.fixture(scope="module")
def speech(conversation):
    return soundfile.read(conversation, dtype="float32")[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, speech):
    made = tmp_path_factory.mktemp("nano")
    write_nano(made, speech)
    return made


@pytest.fixture(scope="module")
def codec(folder):
    opened = build_backend("codec", "nano", {"path": str(folder), "bits": 32})
    opened.open()
    return opened


@pytest.fixture(scope="module")
def clips(speech):
    """Lengths that differ, that are equal, and that fill nothing."""
    lengths = [16000, 40001, 41000, 16000, 500, 0, 959, 960, 79999]
    return [speech[100_000 + 1000 * n : 100_000 + 1000 * n + length] for n, length in enumerate(lengths)]


def test_counts_are_those_of_the_layout(codec, clips):
    for clip, streams in zip(clips, codec.encode(clips), strict=True):
        n02, n06, groups = expected_counts(len(clip), 16000)
        kept = n06 if len(clip) >= 480 else 0
        assert (len(streams.vq02), len(streams.vq06)) == (n02, kept)
        assert interleave_codes(streams.vq02, streams.vq06).num_groups == groups


def test_a_batch_gives_the_codes_of_one_clip_at_a_time(codec, clips):
    for clip, together in zip(clips, codec.encode(clips), strict=True):
        alone = codec.encode([clip])[0]
        assert np.array_equal(alone.vq02, together.vq02)
        assert np.array_equal(alone.vq06, together.vq06)


def test_codes_tell_sounds_apart(codec, speech):
    streams = codec.encode([speech])[0]
    assert len(np.unique(streams.vq02)) > 30
    assert len(np.unique(streams.vq06)) > 30


def test_padding_changes_no_semantic_code_of_our_own_file(folder):
    session = SemanticSession(folder / "speech_tokenizer_v1.onnx")
    assert session.batched
    assert session.padded


def test_clips_go_together_when_their_lengths_are_near():
    assert length_batches([100, 10, 95, 9, 300], 1000) == [[4], [0, 2], [1, 3]]
    assert length_batches([100, 100, 100, 95], 200) == [[0, 1], [2, 3]]
    assert length_batches([100, 95, 100], 1000, equal=True) == [[0, 2], [1]]
    assert length_batches([100, 100], 0) == [[0], [1]]


def test_windows_are_half_a_minute_and_a_tiny_rest_is_dropped():
    assert [len(piece) for piece in windows(np.zeros(2 * WINDOW + 479, np.float32))] == [WINDOW, WINDOW]
    assert [len(piece) for piece in windows(np.zeros(WINDOW + 480, np.float32))] == [WINDOW, 480]


def test_decoding_gives_120_ms_per_group_and_depends_on_the_speaker(codec, speech):
    streams = codec.encode([speech[:32000]])[0]
    first, second = np.eye(256, dtype=np.float32)[:2]
    wave, again, other = codec.decode([streams] * 3, [first, first, second])
    assert len(wave) == expected_counts(32000, 16000)[2] * 1920
    assert np.array_equal(wave, again)
    assert not np.allclose(wave, other)
    assert 0 < np.abs(wave).max() <= 0.9991


def test_a_speaker_of_another_size_is_refused_in_a_sentence(codec, speech):
    with pytest.raises(ConfigError, match="256 numbers"):
        codec.decode(codec.encode([speech[:16000]]), [np.zeros(192, np.float32)])


def test_the_inverse_transform_is_that_of_torch():
    spectrum = np.random.default_rng(0).normal(0, 1, (30, 642)).astype(np.float32)
    level, phase = torch.from_numpy(spectrum).T.chunk(2)
    theirs = torch.istft(torch.polar(level.exp(), phase)[None], 640, 160, 640, torch.hann_window(640), center=True)
    np.testing.assert_allclose(inverse_spectrum(spectrum, 160), theirs[0].numpy(), atol=2e-4)


@pytest.mark.parametrize("groups", [3, 5])
def test_speech_in_chunks_is_the_speech_of_the_whole(codec, speech, groups):
    streams = codec.encode([speech[16000:96500]])[0]
    speaker = np.eye(256, dtype=np.float32)[2]
    whole = codec.decode([streams], [speaker])[0]
    chunks = list(codec.decode_stream(streams, speaker, groups))
    assert [len(chunk) for chunk in chunks[:-1]] == [groups * 1920] * (len(chunks) - 1)
    together = np.concatenate(chunks)
    scale = whole @ together / (together @ together)  # the whole is made quieter where it would clip
    assert len(together) == len(whole)
    assert np.abs(scale * together - whole).max() < 0.02 * np.abs(whole).max()


def test_long_speech_is_decoded_a_minute_at_a_time_without_a_seam(codec, speech):
    streams = codec.encode([np.tile(speech[:160000], 8)])[0]
    speaker = np.eye(256, dtype=np.float32)[2]
    by_minutes = codec.decode([streams], [speaker])[0]
    elsewhere_cut = np.concatenate(list(codec.decode_stream(streams, speaker, 333)))
    assert len(by_minutes) == 666 * 1920
    assert np.abs(by_minutes - elsewhere_cut).max() < 0.02 * np.abs(by_minutes).max()


def test_without_a_decoder_decoding_says_what_is_missing(folder, tmp_path):
    for name in ("encoder.onnx", "linguistic_tokenizer.npy", "speech_tokenizer_v1.onnx"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    codec = build_backend("codec", "nano", {"path": str(tmp_path), "bits": 32})
    codec.open()
    with pytest.raises(ConfigError, match=r"no decoder\.onnx"):
        codec.decode([], [])


def test_the_tokenizer_hash_is_that_of_the_tokenizer_files(folder, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    build = lambda path: build_backend("codec", "nano", {"path": str(path), "bits": 32}).revision  # noqa: E731
    assert build(tmp_path) == build(folder)
    (tmp_path / "decoder.onnx").write_bytes(b"another decoder")
    assert build(tmp_path) == build(folder)
    (tmp_path / "linguistic_tokenizer.npy").write_bytes(b"other codes")
    assert build(tmp_path) != build(folder)


def test_the_8_bit_variant_is_another_tokenizer(folder, tmp_path, speech):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    for name in ("encoder", "speech_tokenizer_v1"):
        (tmp_path / f"{name}.onnx").rename(tmp_path / f"{name}.int8.onnx")
    small = build_backend("codec", "nano", {"path": str(tmp_path)})
    small.open()
    assert small.quant_bits == 8
    assert small.revision != build_backend("codec", "nano", {"path": str(folder), "bits": 32}).revision
    assert len(small.encode([speech[:16000]])[0].vq02) == 16
    with pytest.raises(ConfigError, match="8 or 32 bits"):
        build_backend("codec", "nano", {"bits": 4})


def test_a_missing_folder_is_a_configuration_error(tmp_path):
    with pytest.raises(ConfigError, match=r"no file .*encoder\.onnx"):
        _ = build_backend("codec", "nano", {"path": str(tmp_path), "bits": 32}).revision


def test_a_pickled_codebook_is_never_unpickled(folder, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    np.save(tmp_path / "linguistic_tokenizer.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(ConfigError, match="codebook"):
        build_backend("codec", "nano", {"path": str(tmp_path), "bits": 32}).open()


def test_encoding_and_decoding_do_not_import_torch(folder):
    program = (
        "import sys, numpy as np\n"
        "from data_engine.backends.catalog import build_backend\n"
        f"codec = build_backend('codec', 'nano', {{'path': {str(folder)!r}, 'bits': 32}})\n"
        "codec.open()\n"
        "streams = codec.encode([np.zeros(16000, np.float32)])\n"
        "codec.decode(streams, [np.zeros(256, np.float32)])\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
