"""ASR `funasr`: small Paraformer and SenseVoice folders in the library's own layout, read by the library."""

import importlib.util
import shutil

import numpy as np
import pytest

from data_engine.backends.catalog import build_backend
from data_engine.backends.funasr_words import is_tag, piece_words, rich_text, spans_of_peaks, spans_of_weights
from data_engine.backends.protocols import Recognizer, Transcript, Word
from data_engine.core.errors import ConfigError, MissingExtraError
from tests.backends.tiny_funasr import RATE, load, murmur, write_paraformer, write_sensevoice

HAS_FUNASR = importlib.util.find_spec("funasr") is not None
needs_funasr = pytest.mark.skipif(not HAS_FUNASR, reason="funasr is not installed (extra asr-funasr)")
KINDS = {"paraformer": "zh", "bicif": "zh", "sensevoice": "en"}
TOLD = murmur(1.2, 7)


def opened(folder, **options):
    recognizer = build_backend("asr", "funasr", {"model": str(folder), **options})
    recognizer.open()
    return recognizer


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {name: tmp_path_factory.mktemp(name) for name in KINDS}
    write_paraformer(made["paraformer"])
    write_paraformer(made["bicif"], with_timestamps=True)
    write_sensevoice(made["sensevoice"], (TOLD, {2: "▁good", 8: "▁m", 9: "or", 10: "ning", 14: "▁day"}))
    return made


@pytest.fixture(scope="module")
def asr(folders):
    return {name: opened(folder) for name, folder in folders.items()}


@pytest.fixture(scope="module")
def clips():
    return [murmur(seconds, seed) for seed, seconds in enumerate([1.0, 2.3, 0.5, 0.0, 3.1, 0.02, 1.0, 2.2])]


@needs_funasr
@pytest.mark.parametrize("name", KINDS)
def test_a_batch_hears_what_is_heard_alone_and_in_any_order(asr, clips, name):
    together = asr[name].transcribe(clips, KINDS[name])
    assert together == [asr[name].transcribe([clip], KINDS[name])[0] for clip in clips]
    assert together == asr[name].transcribe(clips[::-1], KINDS[name])[::-1]
    assert len({heard.text for heard in together}) > 2


@needs_funasr
@pytest.mark.parametrize("name", KINDS)
def test_it_keeps_the_contract_of_its_role(asr, clips, name):
    assert isinstance(asr[name], Recognizer)
    heard = asr[name].transcribe([*clips, np.zeros(RATE, np.float32)], KINDS[name])
    assert [heard[3].text, heard[5].text, heard[-1].text] == ["", "", ""]
    for clip, transcript in zip(clips, heard, strict=False):
        assert transcript.confidence is None or 0 < transcript.confidence <= 1
        assert all(
            w.start >= 0 and w.num_samples >= 0 and w.start + w.num_samples <= len(clip) for w in transcript.words
        )
        starts = [word.start for word in transcript.words]
        assert starts == sorted(starts)
        assert "".join(word.text for word in transcript.words) == transcript.text.replace(" ", "")
    assert asr[name].transcribe([], KINDS[name]) == []


@needs_funasr
@pytest.mark.parametrize("name", KINDS)
def test_it_hears_what_the_library_itself_hears(asr, folders, clips, name):
    """Only where something fires: for a batch without a token `generate` of Paraformer gives a row without a key."""
    theirs = load(folders[name])
    for clip in (clips[0], clips[1], clips[4], clips[7]):
        said = theirs.generate(input=[clip], language=KINDS[name], use_itn=True)[0]
        (ours,) = asr[name].transcribe([clip], KINDS[name])
        assert ours.text.replace(" ", "") == rich_text(said["text"]).text.replace(" ", "")
        if name == "bicif":
            times = [[w.start // 16, (w.start + w.num_samples) // 16] for w in ours.words]
            most = len(clip) // 16
            assert times == [[min(max(edge, 0), most) for edge in pair] for pair in said["timestamp"]]


@needs_funasr
def test_language_emotion_and_events_are_told(asr):
    (heard,) = asr["sensevoice"].transcribe([TOLD], None)
    assert (heard.text, heard.language, heard.emotion, heard.events) == ("good day", "en", "happy", ("laughter",))
    assert heard.language_confidence > 0.9
    assert heard.no_speech < 0.1
    good, day = heard.words
    assert (good.text, good.start, day.text, day.start) == ("good", 2 * 960 - 280, "day", 14 * 960 - 280)
    assert asr["sensevoice"].finds_language


@needs_funasr
def test_a_language_that_was_told_is_not_found_again(asr):
    (heard,) = asr["sensevoice"].transcribe([TOLD], "en")
    assert heard.language is None
    assert heard.language_confidence is None


@needs_funasr
def test_paraformer_must_be_told_the_language(asr):
    assert not asr["paraformer"].finds_language
    for language in (None, "de"):
        with pytest.raises(ValueError, match="zh"):
            asr["paraformer"].transcribe([TOLD], language)


@needs_funasr
@pytest.mark.parametrize("name", ["paraformer", "sensevoice"])
def test_dither_is_turned_off_whatever_the_folder_says(folders, tmp_path, clips, name):
    shutil.copytree(folders[name], tmp_path, dirs_exist_ok=True)
    config = (tmp_path / "config.yaml").read_text(encoding="utf-8")
    (tmp_path / "config.yaml").write_text(config.replace("dither: 0.0", "dither: 1.0"), encoding="utf-8")
    recognizer = opened(tmp_path)
    assert recognizer.transcribe(clips[:2], KINDS[name]) == recognizer.transcribe(clips[:2], KINDS[name])


@needs_funasr
@pytest.mark.parametrize("name", ["paraformer", "bicif"])
def test_where_no_token_fires_every_clip_still_has_its_transcript(folders, tmp_path, clips, name):
    """The library's `generate` answers such a batch with one row without a key."""
    import torch

    shutil.copytree(folders[name], tmp_path, dirs_exist_ok=True)
    weights = torch.load(tmp_path / "model.pt")
    weights["predictor.cif_output.bias"].fill_(-20.0)
    torch.save(weights, tmp_path / "model.pt")
    assert opened(tmp_path).transcribe(clips, "zh") == [Transcript("")] * len(clips)


@needs_funasr
def test_words_may_be_left_out_and_small_batches_change_nothing(folders, asr, clips):
    small = opened(folders["bicif"], batch_size_s=1.0, word_times=False)
    theirs = asr["bicif"].transcribe(clips, "zh")
    assert [heard.text for heard in small.transcribe(clips, "zh")] == [heard.text for heard in theirs]
    assert not any(heard.words for heard in small.transcribe(clips, "zh"))


@needs_funasr
def test_what_it_is_not_is_a_configuration_error(folders, tmp_path):
    with pytest.raises(ConfigError, match="is a paraformer"):
        opened(folders["paraformer"], kind="sensevoice")
    with pytest.raises(ConfigError, match="de"):
        opened(folders["sensevoice"], languages=["en", "de"])
    (tmp_path / "model.pt").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="cannot load"):
        opened(tmp_path)


@needs_funasr
def test_a_hub_id_that_is_not_in_the_cache_is_a_configuration_error():
    with pytest.raises((ConfigError, MissingExtraError), match="nobody/nothing"):
        opened("nobody/nothing", model_revision="v1", hub="hf")


@pytest.fixture
def plain(tmp_path):
    """Files with the right names; the revision reads nothing else."""
    for name in ("config.yaml", "model.pt", "tokens.json", "tiny.bpe.model", "am.mvn"):
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def test_the_revision_covers_every_file_and_loads_nothing(plain):
    seen = {build_backend("asr", "funasr", {"model": str(plain)}).revision}
    for name in ("config.yaml", "model.pt", "tokens.json", "tiny.bpe.model", "am.mvn"):
        (plain / name).write_bytes(b"changed")
        seen.add(build_backend("asr", "funasr", {"model": str(plain)}).revision)
    assert len(seen) == 6


def test_a_hub_id_needs_a_revision():
    def revision(at):
        return build_backend("asr", "funasr", {"model": "iic/SenseVoiceSmall", "model_revision": at}).revision

    assert revision("v1") != revision("v2")
    with pytest.raises(ConfigError, match="model_revision"):
        revision(None)
    with pytest.raises(ConfigError, match="'model'"):
        _ = build_backend("asr", "funasr", {}).revision


@pytest.mark.parametrize("option", [{"kind": "whisper"}, {"hub": "openai"}])
def test_an_option_with_a_wrong_value_is_named(option):
    with pytest.raises(ConfigError, match=next(iter(option))):
        build_backend("asr", "funasr", option)


@pytest.mark.skipif(HAS_FUNASR, reason="funasr is installed")
def test_a_missing_library_says_how_to_install_it(plain):
    with pytest.raises(MissingExtraError, match=r"speech-data-engine\[asr-funasr\]"):
        opened(plain)


@pytest.mark.parametrize(
    ("tagged", "text", "language", "emotion", "events"),
    [
        ("<|en|><|HAPPY|><|Speech|><|withitn|>Good morning.", "Good morning.", "en", "happy", ("speech",)),
        ("<|zh|><|EMO_UNKNOWN|><|BGM|><|woitn|>今天", "今天", "zh", None, ("bgm",)),
        ("<|nospeech|><|EMO_UNKNOWN|><|Event_UNK|><|woitn|>", "", None, None, ()),
        ("<|ja|><|SAD|><|Cry|><|woitn|>a<|Laughter|> b<|Cry|>", "a b", "ja", "sad", ("cry", "laughter")),
        ("no tags, a < b | c > d", "no tags, a < b | c > d", None, None, ()),
    ],
)
def test_tags_are_read_and_taken_out(tagged, text, language, emotion, events):
    rich = rich_text(tagged)
    assert (rich.text, rich.language, rich.emotion, rich.events) == (text, language, emotion, events)


def test_pieces_become_words():
    pieces = ["▁good", "▁m", "or", "ning", ",", "▁今天", "天", "ok", "▁", "▁3", "."]
    spans = [(10 * n, 10 * n + 8) for n in range(len(pieces))]
    words = piece_words(pieces, spans)
    assert [word.text for word in words] == ["good", "morning,", "今天", "天", "ok", "3."]
    assert words[1] == Word("morning,", 10, 38)
    assert is_tag("<|en|>") and is_tag("▁<|HAPPY|>") and not is_tag("a<|en|>")


def test_a_token_lasts_until_the_next_but_not_through_a_pause():
    assert spans_of_peaks([0, 1, 10], 20000) == [(0, 680), (680, 4520), (9320, 13160)]
    assert spans_of_peaks([20], 19000) == [(18920, 19000)]
    assert spans_of_peaks([], 100) == []


def test_a_token_ends_where_its_weights_are_full():
    weights = np.array([0.5, 0.5, 0.0, 0.0, 0.0, 0.0, 0.4, 0.6, 1.0, 0.2], np.float32)
    spans = spans_of_weights(weights, 3, 9600)
    assert [end for _, end in spans] == [2 * 960 - 280, 8 * 960 - 280, 9 * 960 - 280]
    assert [start for start, _ in spans] == [0, 4 * 960 - 280, 8 * 960 - 280]
    assert len(spans_of_weights(weights, 5, 9600)) == 5


def test_a_transcript_says_nothing_of_what_the_recognizer_does_not_know():
    bare = Transcript("hi")
    assert (bare.language, bare.emotion, bare.events, bare.no_speech) == (None, None, None, None)
