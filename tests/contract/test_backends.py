"""Every embedded back end keeps the contract of its role: the same tests for whoever plays it."""

import importlib.util
import shutil

import numpy as np
import pytest
import soundfile

from data_engine.backends.catalog import BACKENDS, BackendCache, build_backend
from data_engine.backends.protocols import Brief, CodeStreams, SpeechRequest, VoicePrompt
from data_engine.core.errors import ConfigError
from data_engine.tokens.layout import expected_counts

NEED_A_SERVICE = {("llm", "vllm")}
"""Their contract tests bring the service: tests/backends/test_llm_vllm.py, tests/serving."""
NEED_FILES = {
    ("asr", "funasr"),
    ("asr", "whisper"),
    ("codec", "step-audio"),
    ("emotion", "emotion2vec"),
    ("diarization", "pyannote"),
    ("separation", "hdemucs"),
    ("squim", "torchaudio"),
    ("pii", "presidio"),
}
"""Theirs bring checkpoints: tests/backends/test_{asr_funasr,asr_whisper,codec_step_audio}.py."""
if not importlib.util.find_spec("flashlight"):
    NEED_FILES.add(("asr", "nano"))
if not importlib.util.find_spec("torchaudio"):
    NEED_FILES.add(("aligner", "ctc"))
ALL = [(r, n) for r, names in BACKENDS.items() for n in names if (r, n) not in NEED_A_SERVICE | NEED_FILES]
cache = BackendCache()


def names(role):
    skip = pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
    return [pytest.param(name, marks=[skip] if name == "flite" else []) for r, name in ALL if r == role]


@pytest.fixture(scope="session")
def speech(conversation):
    wave, rate = soundfile.read(conversation, dtype="float32")
    assert rate == 16000
    return wave


@pytest.fixture(scope="session")
def waves(speech):
    """A second, four seconds, almost nothing, silence, and full-scale noise."""
    noise = np.random.default_rng(0).uniform(-1, 1, 20000).astype(np.float32)
    return [speech[112000:128000], speech[112000:176000], speech[:500], np.zeros(16000, np.float32), noise]


@pytest.mark.parametrize(("role", "name"), ALL)
def test_a_revision_is_known_before_anything_is_loaded(role, name):
    if name == "flite" and shutil.which("flite") is None:
        pytest.skip("flite is not installed")
    first, second = (build_backend(role, name, {}).revision for _ in range(2))
    assert first == second != ""


@pytest.mark.parametrize(("role", "name"), ALL)
def test_an_unknown_option_is_a_configuration_error(role, name):
    with pytest.raises(ConfigError, match="no_such_option"):
        build_backend(role, name, {"no_such_option": 1})


def test_an_unknown_back_end_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"no asr back end 'asr\.nobody'; known: .*asr\.pocketsphinx"):
        build_backend("asr", "nobody", {})


def test_a_back_end_is_loaded_once_per_process():
    assert cache("speaker", "resemblyzer", {}) is cache("speaker", "resemblyzer", {})


@pytest.mark.parametrize("name", names("vad"))
def test_vad_gives_one_probability_per_hop_however_the_stream_is_cut(name, speech):
    vad = cache("vad", name, {})
    whole = vad.probabilities(iter([speech[:80000]]))
    cut = vad.probabilities(iter(np.split(speech[:80000], [700, 9000, 9001, 50000])))
    assert len(whole) == -(-80000 // vad.hop)
    np.testing.assert_allclose(whole, cut, atol=1e-5)
    assert whole.min() >= 0
    assert whole.max() <= 1
    assert vad.probabilities(iter([])).shape == (0,)


@pytest.mark.parametrize("name", names("speaker"))
def test_speaker_embeddings_have_unit_length_and_do_not_depend_on_neighbours(name, waves):
    embedder = cache("speaker", name, {})
    together = embedder.embed(waves)
    assert together.shape[0] == len(waves)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-4)
    np.testing.assert_allclose(together[1], embedder.embed([waves[1]])[0], atol=1e-4)


@pytest.mark.parametrize("name", names("asr"))
def test_a_recognizer_gives_one_transcript_per_wave_independent_of_order(name, waves):
    recognizer = cache("asr", name, {})
    language = sorted(recognizer.languages)[0]
    forward = recognizer.transcribe(waves, language)
    backward = recognizer.transcribe(waves[::-1], language)[::-1]
    assert [t.text for t in forward] == [t.text for t in backward]
    assert forward[3].text == ""
    for wave, transcript in zip(waves, forward, strict=True):
        assert all(w.start >= 0 and w.start + w.num_samples <= len(wave) for w in transcript.words)
        assert transcript.confidence is None or 0 <= transcript.confidence <= 1


@pytest.mark.parametrize("name", names("aligner"))
def test_an_aligner_gives_times_to_every_word_or_says_why_not_whatever_the_neighbours(name, waves):
    aligner = cache("aligner", name, {})
    texts = ["hello there", "so what do you think about it then", "no", "good morning", ""]
    together = aligner.align(waves, texts, "en")
    alone = [aligner.align([wave], [text], "en")[0] for wave, text in zip(waves, texts, strict=True)]
    assert [str(found) for found in together] == [str(found) for found in alone]
    counts = [len(getattr(found, "words", ())) for found in together]
    assert counts == [2, 8, counts[2], 0, 0]
    assert counts[2] == 1 or together[2].code == "TOO_SHORT"
    assert together[3].code == "SILENT"
    for wave, found in zip(waves, together, strict=True):
        for times in (getattr(found, "words", ()), getattr(found, "phones", None) or ()):
            edges = [edge for one in times for edge in (one.start, one.start + one.num_samples)]
            assert edges == sorted(edges)
            assert not edges or (edges[0] >= 0 and edges[-1] <= len(wave))
        assert getattr(found, "confidence", None) is None or 0 <= found.confidence <= 1


@pytest.mark.parametrize("name", names("quality"))
def test_quality_is_a_mean_opinion_score_per_wave(name, waves):
    scores = cache("quality", name, {}).score(waves)
    assert scores.shape == (len(waves), 3)
    assert np.isfinite(scores).all()
    assert scores[1, 2] > scores[4, 2], "speech is better than noise"


@pytest.mark.parametrize("name", names("emotion"))
def test_an_emotion_is_one_of_those_the_model_names_and_depends_on_its_wave_only(name, waves):
    model = cache("emotion", name, {})
    together = model.recognize(waves)
    assert together == model.recognize(waves[::-1])[::-1] == [model.recognize([wave])[0] for wave in waves]
    assert together[1].name in model.emotions
    assert all(one is None or (one.name in model.emotions and 0 < one.confidence <= 1) for one in together)
    assert [together[2], together[3]] == [None, None], "a blip and silence are not said in any way"
    assert model.recognize([]) == []


@pytest.mark.parametrize("name", names("codec"))
@pytest.mark.parametrize("seconds", [0.5, 1, 2.5, 10])
def test_codec_counts_and_lengths(name, seconds, speech):
    codec = cache("codec", name, {})
    wave = speech[: int(seconds * codec.sample_rate)]
    streams = codec.encode([wave])[0]
    n02, n06, groups = expected_counts(len(wave), codec.sample_rate)
    assert (len(streams.vq02), len(streams.vq06)) == (n02, n06)
    assert streams.vq02.dtype == streams.vq06.dtype == np.uint16
    assert streams.vq02.max() < 1024
    assert streams.vq06.max() < 4096
    whole = CodeStreams(streams.vq02[: groups * 2], streams.vq06[: groups * 3])
    again = codec.decode([whole], [np.zeros(256, np.float32)])[0]
    assert len(again) == groups * 1920
    assert np.isfinite(again).all()


@pytest.mark.parametrize("name", names("codec"))
def test_codes_do_not_depend_on_neighbours_or_repetition(name, waves):
    codec = cache("codec", name, {})
    together = codec.encode(waves)
    alone = [codec.encode([wave])[0] for wave in waves]
    for a, b in zip(together, alone, strict=True):
        assert a.vq02.tolist() == b.vq02.tolist()
        assert a.vq06.tolist() == b.vq06.tolist()


@pytest.fixture(scope="session")
def voice(speech):
    wave = speech[112000:192000]
    return VoicePrompt("v", wave, 16000, None, cache("speaker", "resemblyzer", {}).embed([wave])[0])


@pytest.mark.parametrize("name", names("tts"))
def test_a_synthesizer_speaks_the_same_for_the_same_seed_and_differently_for_another(name, voice):
    synthesizer = cache("tts", name, {})
    language = "en"
    first, other, again = (
        synthesizer.speak([SpeechRequest("good morning to you", language, voice, seed)])[0] for seed in (1, 2, 1)
    )
    assert np.array_equal(first.wave, again.wave)
    assert not (len(first.wave) == len(other.wave) and np.allclose(first.wave, other.wave))
    assert np.isfinite(first.wave).all()
    assert 0.5 < len(first.wave) / first.sample_rate < 5


@pytest.mark.parametrize("name", names("llm"))
def test_a_writer_writes_the_same_for_the_same_brief(name):
    writer = cache("llm", name, {})
    brief = Brief("b", "en", "logical_reasoning", 5)
    assert writer.write([brief]) == writer.write([brief])
    assert writer.write([brief])[0]["turns"][-1]["role"] == "assistant"


@pytest.mark.parametrize("name", names("text_tokenizer"))
@pytest.mark.parametrize("text", ["Hello there.", "今天天气很好。", "<|EOT|> and <audio_5>", "", " a\n b "])
def test_text_ids_are_below_the_audio_range_and_specials_in_text_stay_text(name, text):
    tokenizer = cache("text_tokenizer", name, {})
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(0 <= i < 65536 for i in ids)
    assert not set(ids) & set(tokenizer.specials().values())


@pytest.mark.parametrize("name", names("pii"))
@pytest.mark.parametrize("language", ["en", "zh-CN", None])
def test_personal_data_is_found_in_place_whatever_the_neighbours(name, language):
    detector = cache("pii", name, {})
    texts = ["write to anna@example.com or +1 415 555 2671", "", "good morning", "卡号 4111 1111 1111 1111"]
    together = detector.find(texts, language)
    assert together == [detector.find([text], language)[0] for text in texts]
    kinds = [[span.kind for span in spans] for spans in together]
    assert kinds == [["EMAIL", "PHONE"], [], [], ["CARD"]]
    assert {span.kind for spans in together for span in spans} <= detector.kinds
    for text, spans in zip(texts, together, strict=True):
        ends = [0, *(span.end for span in spans)]
        assert all(ends[n] <= span.start < span.end <= len(text) for n, span in enumerate(spans))
        assert all(0 <= span.score <= 1 for span in spans)
