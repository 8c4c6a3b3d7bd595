"""The embedded codec: exact counts, exact codes, two views that complement each other, speech that comes back."""

import hashlib

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from data_engine.backends.codec_kmeans import CODEBOOKS, TENSORS, KMeansCodec
from data_engine.backends.protocols import CodeStreams
from data_engine.core.errors import ConfigError
from data_engine.models.codec_views import GRID_LIMIT, code_counts, nearest, normalise_peak, speech_mel
from data_engine.models.features import log_mel
from data_engine.models.kmeans_codebooks import cell_means, fit_spectra, lloyd, measure
from data_engine.tokens.layout import expected_counts, interleave_codes

NOBODY = np.zeros(256, np.float32)


@pytest.fixture(scope="module")
def codec():
    made = KMeansCodec()
    made.open()
    return made


@pytest.fixture(scope="module")
def speech(conversation):
    return soundfile.read(conversation, dtype="float32")[0]


@pytest.fixture(scope="module")
def sentence(speech):
    return speech[112000:192000]


def spoken(codec, streams):
    return codec.decode([streams], [NOBODY])[0]


def tone(hertz, seconds=1.0):
    """A buzz with the formants of an open vowel, so that only the pitch tells two of them apart."""
    time = np.arange(int(seconds * 16000)) / 16000
    gain = {k: 1 / (1 + ((k * hertz - 700) / 300) ** 2) for k in range(1, int(4000 / hertz))}
    return (0.2 * sum(g * np.sin(2 * np.pi * k * hertz * time) for k, g in gain.items())).astype(np.float32)


@pytest.mark.parametrize(
    ("seconds", "n02", "n06"), [(0.5, 8, 12), (1, 16, 25), (2.5, 41, 62), (10, 166, 250), (31, 516, 775)]
)
def test_code_counts_are_those_of_step_audio(codec, speech, seconds, n02, n06):
    wave = np.resize(speech, int(16000 * seconds))
    streams = codec.encode([wave])[0]
    assert (len(streams.vq02), len(streams.vq06)) == (n02, n06)


@given(st.integers(0, 16000 * 3600))
def test_counts_agree_with_the_token_layout_for_every_length(num_samples):
    assert code_counts(num_samples) == expected_counts(num_samples, 16000)[:2]


@pytest.mark.parametrize("num_samples", [0, 1, 319, 320, 321, 959, 960, 1919, 1920])
def test_the_shortest_clips_have_the_right_counts_too(codec, num_samples):
    streams = codec.encode([np.full(num_samples, 0.1, np.float32)])[0]
    assert (len(streams.vq02), len(streams.vq06)) == code_counts(num_samples)
    assert len(spoken(codec, streams)) == 640 * len(streams.vq06)


def test_the_revision_is_the_hash_of_the_codebooks_and_the_width_is_what_is_stored(codec):
    assert KMeansCodec().revision == hashlib.sha256(CODEBOOKS.read_bytes()).hexdigest()
    tensors = load_file(CODEBOOKS)
    assert {name: tensor.shape for name, tensor in tensors.items()} == TENSORS
    assert {tensor.dtype.itemsize * 8 for tensor in tensors.values()} == {codec.quant_bits}


def test_centroids_are_integers_small_enough_for_exact_distances():
    tensors = load_file(CODEBOOKS)
    for name in ("vq02.centroids", "vq06.centroids"):
        centroids = tensors[name].astype(np.float64)
        assert np.array_equal(centroids, np.rint(centroids))
        assert 3 * centroids.shape[1] * GRID_LIMIT**2 < 2**24
        assert np.abs(centroids).max() <= GRID_LIMIT
        assert len(np.unique(centroids, axis=0)) == len(centroids), "no code is a copy of another"


def test_codes_are_the_same_in_any_company_and_order(codec, speech):
    waves = [speech[a : a + n] for a, n in ((0, 4000), (120000, 70001), (200000, 33333), (9, 500))]
    together = codec.encode(waves)
    backwards = codec.encode(waves[::-1])[::-1]
    alone = [codec.encode([wave])[0] for wave in waves]
    for name in ("vq02", "vq06"):
        codes = [[getattr(s, name).tobytes() for s in group] for group in (together, backwards, alone)]
        assert codes[0] == codes[1] == codes[2]


def test_the_nearest_centroid_is_the_nearest_in_exact_arithmetic():
    rng = np.random.default_rng(0)
    points, centroids = (rng.integers(-256, 257, (n, 80)).astype(np.float32) for n in (300, 50))
    exact = ((points[:, None].astype(np.int64) - centroids[None].astype(np.int64)) ** 2).sum(2).argmin(1)
    assert np.array_equal(nearest(points, centroids), exact)
    assert nearest(centroids[:1], np.repeat(centroids[:1], 3, axis=0)) == [0]


def test_the_level_of_a_recording_does_not_change_its_codes(codec, sentence):
    loud, quiet = codec.encode([sentence, sentence * np.float32(0.25)])
    assert np.array_equal(loud.vq02, quiet.vq02)
    assert np.array_equal(loud.vq06, quiet.vq06)
    assert np.abs(normalise_peak(sentence)).max() == pytest.approx(0.999)
    assert np.abs(normalise_peak(np.array([0.005], np.float32))).max() == pytest.approx(0.4995)


def test_pitch_is_heard_by_vq06_and_hardly_by_vq02(codec):
    low, high = codec.encode([tone(110), tone(180)])
    assert (low.vq06[2:-2] != high.vq06[2:-2]).all()
    same = np.isin(low.vq02[2:-2], high.vq02[2:-2]).mean()
    assert same > np.isin(low.vq06[2:-2], high.vq06[2:-2]).mean()


def test_both_codebooks_are_in_use_on_real_speech(codec, speech):
    numbers = measure(codec, [speech])
    # Half a minute of two people, a quarter of it pauses, which share one code.
    assert numbers["vq02_used"] > 100
    assert numbers["vq06_used"] > 150
    assert numbers["vq02_perplexity"] > 30
    assert numbers["vq06_perplexity"] > 50


def test_decoded_speech_has_the_spectrum_of_the_original(codec, sentence):
    numbers = measure(codec, [sentence])
    other = np.abs(speech_mel(sentence) - speech_mel(sentence[::-1].copy())).mean()
    assert numbers["mel_distance"] < 0.5 * other
    assert numbers["resynthesis_distance"] < 0.6 * other


def test_each_codebook_adds_to_the_spectrum(codec, sentence):
    streams = codec.encode([sentence])[0]
    target = speech_mel(sentence)[: 4 * len(streams.vq06)]
    both = np.abs(codec.log_mel(streams) - target).mean()
    without = CodeStreams(streams.vq02[:0], streams.vq06)
    shuffled = CodeStreams(streams.vq02, np.roll(streams.vq06, 20))
    assert both < np.abs(codec.log_mel(without) - target).mean()
    assert both < 0.6 * np.abs(codec.log_mel(shuffled) - target).mean()


def test_a_group_is_120_ms_and_raw_streams_keep_their_length(codec, sentence):
    raw = codec.encode([sentence])[0]
    layout = interleave_codes(raw.vq02, raw.vq06)
    whole = CodeStreams(raw.vq02[: 2 * layout.num_groups], raw.vq06[: 3 * layout.num_groups])
    assert len(spoken(codec, whole)) == 1920 * layout.num_groups
    assert len(spoken(codec, raw)) == len(sentence) == 640 * len(raw.vq06)


def test_decoding_is_repeatable_and_stays_in_range(codec, sentence):
    streams = codec.encode([sentence])[0]
    first, again = spoken(codec, streams), spoken(codec, streams)
    assert first.tobytes() == again.tobytes()
    assert np.abs(first).max() <= 1.0
    assert log_mel(first).mean() > -9


def test_silence_is_decoded_as_near_silence(codec):
    wave = spoken(codec, codec.encode([np.zeros(19200, np.float32)])[0])
    assert np.abs(wave).max() < 1e-3


def test_a_missing_or_foreign_codebook_file_is_a_configuration_error(tmp_path):
    with pytest.raises(ConfigError, match="codebook"):
        KMeansCodec(path=str(tmp_path / "none.safetensors")).open()
    (tmp_path / "bad.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ConfigError, match="codebook"):
        KMeansCodec(path=str(tmp_path / "bad.safetensors")).open()


def test_lloyd_finds_separate_clusters_and_revives_empty_cells():
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0], [100, 0], [0, 100], [100, 100]], np.float32)
    points = np.repeat(centres, 50, axis=0) + rng.integers(-3, 4, (200, 2)).astype(np.float32)
    found = lloyd(points, 4, 30, np.random.default_rng(3))
    assert np.abs(found - centres[nearest(found, centres)]).max() <= 60
    assert len(np.unique(nearest(points, found))) == 4


def test_cell_means_are_means_with_a_prior_and_zero_for_empty_cells():
    values = np.array([[2.0], [4.0], [9.0]], np.float32)
    codes = np.array([0, 0, 2])
    assert cell_means(codes, values, 4).tolist() == [[3.0], [0.0], [9.0], [0.0]]
    assert cell_means(codes, values, 4, prior=1.0).tolist() == [[2.0], [0.0], [4.5], [0.0]]


def test_spectra_are_the_means_of_what_falls_into_a_cell():
    mel = np.repeat(np.array([[1.0], [5.0], [3.0]], np.float32), 4, axis=0) * np.ones(80, np.float32)
    detail, level = fit_spectra([mel], [np.array([0, 1])], [np.array([7, 8, 9])])
    assert level[[7, 8, 9], 0] == pytest.approx([1.0, 5.0, 3.0], abs=0.3)
    assert not detail[2:].any()
