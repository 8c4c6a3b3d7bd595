"""DNSMOS scores are those of the published script, though windows share their work."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data_engine.backends import quality_dnsmos
from data_engine.backends.quality_dnsmos import MODEL, Dnsmos, to_mos, window_starts
from data_engine.backends.quality_dnsmos_torch import TorchDnsmos
from data_engine.core.errors import ConfigError

RATE = 16000


@pytest.fixture(scope="module")
def dnsmos():
    made = Dnsmos()
    made.open()
    yield made
    made.close()


@pytest.fixture(scope="module")
def speech(conversation):
    return soundfile.read(conversation, dtype="float32")[0]


@pytest.fixture(scope="module")
def whole_network():
    """The uncut network of the wheel, one window at a time."""
    import onnxruntime

    spec = importlib.util.find_spec("speechmos")
    if spec is None:
        pytest.skip("the speechmos wheel is not installed")
    path = Path(spec.submodule_search_locations[0]) / "dnsmos_models" / "sig_bak_ovr.onnx"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options)
    return lambda window: session.run(None, {"input_1": window[None]})[0][0]


def published(clip, network):
    """P.835 as its script computes it: repeat, slide by 1 s, skip what comes out short, map, average."""
    while len(clip) < 144160:
        clip = np.concatenate([clip, clip])
    scores = []
    for second in range(int(int(len(clip) / RATE) - 9.01) + 1):
        window = clip[second * RATE : int((second + 9.01) * RATE)]
        if len(window) == 144160:
            sig, bak, ovr = network(window)
            scores.append(
                [
                    np.polyval([-0.08397278, 1.22083953, 0.0052439], sig),
                    np.polyval([-0.13166888, 1.60915514, -0.39604546], bak),
                    np.polyval([-0.06766283, 1.11546468, 0.04602535], ovr),
                ]
            )
    return np.mean(scores, axis=0)


def test_scores_equal_the_published_script(dnsmos, whole_network, speech):
    clips = [speech[:144160], speech[RATE * 10 : RATE * 21 + 1234], speech[RATE * 3 : RATE * 8 + 77], speech[:7001]]
    clips += [
        speech[RATE * 12 :][: 640 * rows] for rows in (1, 13, 100, 225)
    ]  # whole rows, whose repetitions are equal
    expected = [published(clip, whole_network) for clip in clips]
    np.testing.assert_allclose(dnsmos.score(clips), expected, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 13, 26, 37, 50, 75, 99])
def test_repetitions_left_out_of_a_window_change_no_score(dnsmos, speech, monkeypatch, rows):
    clip = speech[RATE * 12 :][: 640 * rows]
    short = dnsmos.score([clip])
    monkeypatch.setattr(quality_dnsmos, "telling_rows", lambda period: 225)
    np.testing.assert_allclose(dnsmos.score([clip]), short, atol=1e-6)
    assert short.min() > 0


def test_scores_equal_the_speechmos_library(dnsmos, speech):
    pytest.importorskip("librosa")
    library = pytest.importorskip("speechmos.dnsmos")
    clip = speech[: RATE * 12]
    reference = library.run(clip, RATE)
    expected = [reference["sig_mos"], reference["bak_mos"], reference["ovrl_mos"]]
    np.testing.assert_allclose(dnsmos.score([clip])[0], expected, atol=0.01)


@pytest.mark.parametrize(("precision", "apart"), [("float32", 1e-4), ("bfloat16", 0.01)])
def test_torch_gives_the_same_scores(dnsmos, speech, precision, apart):
    pytest.importorskip("torch")
    torch_dnsmos = TorchDnsmos(precision=precision)
    torch_dnsmos.open()
    noise = np.random.default_rng(1).standard_normal(RATE * 12).astype(np.float32)
    clips = [speech[RATE * 7 : RATE * 19 + 77], speech[RATE * 3 : RATE * 8], 0.1 * noise, np.zeros(RATE, np.float32)]
    np.testing.assert_allclose(torch_dnsmos.score(clips), dnsmos.score(clips), atol=apart)
    np.testing.assert_array_equal(torch_dnsmos.score(clips)[1], torch_dnsmos.score(clips[1:2])[0])
    torch_dnsmos.close()


def test_revisions_tell_precisions_apart():
    assert len({Dnsmos().revision, TorchDnsmos().revision, TorchDnsmos(precision="float32").revision}) == 3


def test_a_missing_graphics_card_is_named():
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a graphics card")
    with pytest.raises(ConfigError, match="sees no CUDA here"):
        TorchDnsmos(device="cuda").open()


def test_every_window_scores_what_the_script_leaves_out(whole_network, speech):
    every = Dnsmos(every_window=True, max_windows=2)
    every.open()
    clip = speech[: RATE * 20]
    raw = np.stack([whole_network(clip[s * RATE : s * RATE + 144160]) for s in (0, 10)])
    np.testing.assert_allclose(every.score([clip])[0], to_mos(raw).mean(axis=0), atol=1e-4)


def test_noise_lowers_background_and_overall_quality(dnsmos, speech):
    clean = speech[RATE * 7 : RATE * 17]
    noise = np.random.default_rng(0).standard_normal(len(clean)).astype(np.float32)
    clean_score, noisy_score = dnsmos.score([clean, clean + noise * np.float32(0.02)])
    assert noisy_score[1] < clean_score[1] - 0.5
    assert noisy_score[2] < clean_score[2] - 0.3


def test_a_score_does_not_depend_on_the_other_clips(dnsmos, speech):
    clips = [speech[:RATE], speech[RATE * 12 : RATE * 22]]
    np.testing.assert_array_equal(dnsmos.score(clips)[1], dnsmos.score(clips[1:])[0])


def test_no_clips_give_no_scores_and_an_empty_clip_is_refused(dnsmos):
    assert dnsmos.score([]).shape == (0, 3)
    with pytest.raises(ValueError, match="without samples"):
        dnsmos.score([np.zeros(0, np.float32)])


@pytest.mark.parametrize("samples", [1, 159, 160, 1600])
def test_very_short_clips_are_repeated(samples):
    quick = Dnsmos(max_windows=1)
    quick.open()
    scores = quick.score([np.random.default_rng(2).standard_normal(samples).astype(np.float32) * 0.1])
    assert np.isfinite(scores).all()


@pytest.mark.parametrize(
    ("seconds", "starts"),
    [(9.01, [0]), (9.99, [0]), (11.0, [0, 1]), (5.0, [0]), (30.0, [0, 1, 2, 3, 4, 5, 6])],
)
def test_windows_are_those_of_the_published_script(seconds, starts):
    assert window_starts(int(seconds * RATE)).tolist() == starts


def test_a_cap_spreads_the_windows_over_the_clip():
    assert window_starts(600 * RATE, max_windows=3, every_window=True).tolist() == [0, 295, 590]
    assert window_starts(30 * RATE, every_window=True).tolist() == list(range(21))


def test_the_asset_is_what_the_export_command_writes():
    pytest.importorskip("onnx")
    if importlib.util.find_spec("speechmos") is None:
        pytest.skip("the speechmos wheel is not installed")
    from data_engine.models.dnsmos_split import split, wheel_model

    for name, content in split(wheel_model()).items():
        assert content == (MODEL / name).read_bytes(), name
