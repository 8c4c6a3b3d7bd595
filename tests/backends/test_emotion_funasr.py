"""Emotion `emotion2vec`: a small emotion2vec+ folder in the library's own layout, read by the library."""

import importlib.util

import numpy as np
import pytest

from data_engine.backends.catalog import build_backend
from data_engine.backends.emotion_funasr import emotion_name
from data_engine.backends.protocols_listening import Emotion
from data_engine.core.errors import ConfigError, MissingExtraError
from tests.backends.tiny_emotion2vec import write_emotion2vec
from tests.backends.tiny_funasr import RATE, load, murmur, write_paraformer

HAS_FUNASR = importlib.util.find_spec("funasr") is not None
needs_funasr = pytest.mark.skipif(not HAS_FUNASR, reason="funasr is not installed (extra asr-funasr)")
SAID = [(murmur(1.2, 1), "生气/angry"), (murmur(0.9, 2), "开心/happy"), (murmur(1.1, 3), "<unk>")]


def opened(folder, **options):
    model = build_backend("emotion", "emotion2vec", {"model": str(folder), **options})
    model.open()
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("emotion2vec")
    write_emotion2vec(made, SAID)
    return made


@pytest.fixture(scope="module")
def emotion(folder):
    return opened(folder)


@pytest.fixture(scope="module")
def clips():
    return [murmur(seconds, seed) for seed, seconds in enumerate([1.0, 1.3, 0.5, 0.0, 3.1, 0.02, 1.0, 2.9, 0.03])]


@needs_funasr
def test_it_says_what_its_head_was_taught_and_nothing_where_that_is_unknown(emotion):
    angry, happy, unknown = emotion.recognize([wave for wave, _ in SAID])
    assert (angry.name, happy.name, unknown) == ("angry", "happy", None)
    assert angry.confidence > 0.9
    assert emotion.emotions == ("angry", "disgusted", "happy", "neutral")


@needs_funasr
def test_it_hears_what_the_library_itself_hears(emotion, folder, clips):
    theirs = load(folder)
    for clip in (clips[0], clips[4], clips[7], SAID[0][0]):
        said = theirs.generate(input=[clip], granularity="utterance", extract_embedding=False)[0]
        best = int(np.argmax(said["scores"]))
        name, (ours,) = emotion_name(said["labels"][best]), emotion.recognize([clip])
        assert (ours.name if ours else None) == name
        if ours:
            assert ours.confidence == pytest.approx(said["scores"][best], abs=2e-5)


@needs_funasr
@pytest.mark.parametrize("seconds", [0.5, 3.5, 120])
def test_a_clip_is_heard_the_same_alone_and_among_others_whatever_their_length(folder, emotion, clips, seconds):
    together = opened(folder, batch_size_s=seconds).recognize(clips)
    alone = [emotion.recognize([clip])[0] for clip in clips]
    assert [one and one.name for one in together] == [one and one.name for one in alone]
    for ours, theirs in zip(together, alone, strict=True):
        assert ours is None or ours.confidence == pytest.approx(theirs.confidence, abs=2e-5)
    assert emotion.recognize(clips[::-1])[::-1] == emotion.recognize(clips)


@needs_funasr
def test_padding_would_change_what_is_heard_if_it_were_let_through(emotion, clips):
    """The library's own mask covers attention, not the convolutions before it: without the hook this test fails."""
    listener = emotion._listener
    short, long = murmur(1.0, 11), murmur(1.24, 12)
    beside = listener.posteriors([short, long])[0]
    np.testing.assert_allclose(beside, listener.posteriors([short])[0], atol=1e-5)


@needs_funasr
def test_silence_and_next_to_nothing_have_no_emotion(emotion, clips):
    found = emotion.recognize([np.zeros(RATE, np.float32), clips[3], clips[5], clips[0]])
    assert found[:3] == [None, None, None]
    assert isinstance(found[3], Emotion)
    assert emotion.recognize([]) == []


@needs_funasr
def test_a_model_that_names_no_emotions_is_a_configuration_error(tmp_path):
    write_emotion2vec(tmp_path / "plain", tokens=[])
    with pytest.raises(ConfigError, match="emotion2vec_plus"):
        opened(tmp_path / "plain")
    (tmp_path / "paraformer").mkdir()
    write_paraformer(tmp_path / "paraformer")
    with pytest.raises(ConfigError, match="Paraformer"):
        opened(tmp_path / "paraformer")


@pytest.mark.parametrize(
    ("token", "name"),
    [("生气/angry", "angry"), ("Surprised", "surprised"), ("其他/other", "other"), ("<unk>", None), ("unuse_3", None)],
)
def test_tokens_become_our_names(token, name):
    assert emotion_name(token) == name


@pytest.fixture
def plain(tmp_path):
    """Files with the right names; the revision reads nothing else."""
    for name in ("config.yaml", "model.pt", "tokens.txt", "configuration.json"):
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def test_the_revision_covers_every_file_and_loads_nothing(plain):
    seen = {build_backend("emotion", "emotion2vec", {"model": str(plain)}).revision}
    for name in ("config.yaml", "model.pt", "tokens.txt", "configuration.json"):
        (plain / name).write_bytes(b"changed")
        seen.add(build_backend("emotion", "emotion2vec", {"model": str(plain)}).revision)
    assert len(seen) == 5


def test_a_hub_id_needs_a_revision_and_options_are_checked():
    def revision(at):
        return build_backend("emotion", "emotion2vec", {"model": "iic/emotion2vec_plus_base", "model_revision": at})

    assert revision("v1").revision != revision("v2").revision
    with pytest.raises(ConfigError, match="model_revision"):
        _ = revision(None).revision
    with pytest.raises(ConfigError, match="'model'"):
        _ = build_backend("emotion", "emotion2vec", {}).revision
    with pytest.raises(ConfigError, match="hub"):
        build_backend("emotion", "emotion2vec", {"hub": "openai"})


@needs_funasr
def test_what_cannot_be_loaded_is_a_configuration_error(plain):
    with pytest.raises(ConfigError, match="cannot load"):
        opened(plain)
    with pytest.raises((ConfigError, MissingExtraError), match="nobody/nothing"):
        opened("nobody/nothing", model_revision="v1", hub="hf")
