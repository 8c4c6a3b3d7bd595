"""ASR `whisper`: small checkpoints written by `save_pretrained`, heard through transformers."""

import importlib.util

import numpy as np
import pytest

from data_engine.backends.catalog import BackendCache, build_backend
from data_engine.backends.protocols import Recognizer, Word
from data_engine.backends.whisper_words import (
    attention_scores,
    chunk_bounds,
    first_positions,
    median_filter,
    token_words,
)
from data_engine.core.errors import ConfigError, MissingExtraError
from data_engine.core.harness import StageRun
from data_engine.core.stage import Worker
from data_engine.io.audio import encode_flac
from data_engine.stages.catalog import build_stage
from tests.backends.tiny_funasr import RATE, murmur
from tests.backends.tiny_whisper import SECONDS, write_whisper

HAS_WHISPER = all(importlib.util.find_spec(name) for name in ("transformers", "torch"))
needs_whisper = pytest.mark.skipif(not HAS_WHISPER, reason="transformers is not installed (extra asr-whisper)")
TOLD = murmur(2.0, 7)


def opened(folder, **options):
    recognizer = build_backend("asr", "whisper", {"model": str(folder), **options})
    recognizer.open()
    return recognizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("whisper")
    write_whisper(made, [(TOLD, "en", " good morning to you")])
    return made


@pytest.fixture(scope="module")
def asr(folder):
    return opened(folder, batch_size=3)


@pytest.fixture(scope="module")
def clips():
    return [murmur(seconds, seed) for seed, seconds in enumerate([1.0, 2.3, 0.5, 0.0, 4.1, 0.02, 3.0])] + [TOLD]


@needs_whisper
@pytest.mark.parametrize("language", ["en", None])
def test_a_batch_hears_what_is_heard_alone_and_in_any_order(asr, clips, language):
    together = asr.transcribe(clips, language)
    assert together == [asr.transcribe([clip], language)[0] for clip in clips]
    assert together == asr.transcribe(clips[::-1], language)[::-1]


@needs_whisper
def test_what_it_learnt_is_heard_with_words_posteriors_and_language(asr):
    told, found = (asr.transcribe([TOLD], language)[0] for language in ("en", None))
    assert told.text == found.text == "good morning to you"
    assert [word.text for word in told.words] == told.text.split()
    assert 0.5 < told.confidence <= 1.0
    assert told.no_speech < 0.1
    assert (told.language, told.language_confidence) == (None, None)
    assert found.language == "en"
    assert 1 / 3 < found.language_confidence <= 1.0


@needs_whisper
def test_it_keeps_the_contract_of_its_role(asr, clips):
    assert isinstance(asr, Recognizer)
    assert asr.languages == {"en", "zh", "de"}
    heard = asr.transcribe([*clips, np.zeros(RATE, np.float32)], "en")
    assert [heard[3].text, heard[5].text, heard[-1].text] == ["", "", ""]
    assert any(transcript.words for transcript in heard)
    for clip, transcript in zip(clips, heard, strict=False):
        assert transcript.confidence is None or 0 < transcript.confidence <= 1
        assert all(
            w.start >= 0 and w.num_samples >= 0 and w.start + w.num_samples <= len(clip) for w in transcript.words
        )
        starts = [word.start for word in transcript.words]
        assert starts == sorted(starts)
    assert asr.transcribe([], "en") == []


@needs_whisper
def test_it_hears_what_the_library_itself_hears(asr, folder, clips):
    import torch
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    processor = WhisperProcessor.from_pretrained(folder)
    model = WhisperForConditionalGeneration.from_pretrained(folder).eval()
    tokens = range(model.config.eos_token_id + 1, model.config.vocab_size)
    for clip in (clips[0], clips[1], clips[6], clips[7]):
        features = processor(clip, sampling_rate=RATE, return_tensors="pt").input_features
        with torch.inference_mode():
            ids = model.generate(features, language="en", max_new_tokens=24, suppress_tokens=list(tokens))
            language = model.detect_language(features)
        said = processor.batch_decode(ids, skip_special_tokens=True)[0]
        assert asr.transcribe([clip], "en")[0].text == said.replace("\ufffd", "").strip()
        assert f"<|{asr.transcribe([clip], None)[0].language}|>" == processor.tokenizer.decode(language)


@needs_whisper
def test_a_long_clip_is_heard_in_chunks(asr):
    gap = np.zeros(RATE // 2, np.float32)
    long = np.concatenate([TOLD, gap, murmur(3.0, 3), gap, TOLD])
    heard = asr.transcribe([long], None)[0]
    assert heard.text.startswith("good")
    assert heard.words[-1].start > SECONDS * RATE
    assert heard.language == asr.transcribe([TOLD], None)[0].language


@needs_whisper
def test_without_alignment_heads_there_are_no_word_times(tmp_path, clips):
    write_whisper(tmp_path, alignment=False)
    heard = opened(tmp_path).transcribe(clips, "zh")
    assert any(transcript.text for transcript in heard)
    assert not any(transcript.words for transcript in heard)


@needs_whisper
def test_a_model_of_english_alone_is_told_no_language(tmp_path):
    write_whisper(tmp_path, [(TOLD, "en", " good day")], multilingual=False)
    recognizer = opened(tmp_path)
    assert (recognizer.languages, recognizer.finds_language) == ({"en"}, False)
    assert recognizer.transcribe([TOLD], "en")[0].text == "good day"
    with pytest.raises(ValueError, match="None"):
        recognizer.transcribe([TOLD], None)


@needs_whisper
def test_only_languages_asked_for_are_found(folder, clips):
    recognizer = opened(folder, languages=["zh", "de"])
    found = {heard.language for heard in recognizer.transcribe(clips, None)}
    assert found <= {"zh", "de", None}
    with pytest.raises(ValueError, match="en"):
        recognizer.transcribe(clips, "en")
    with pytest.raises(ConfigError, match="xx"):
        opened(folder, languages=["xx"])


@needs_whisper
def test_a_hub_id_that_is_not_in_the_cache_is_a_configuration_error():
    with pytest.raises(ConfigError, match="nobody/nothing"):
        opened("nobody/nothing", model_revision="v1")


@needs_whisper
def test_the_stage_writes_down_text_and_language(folder, tmp_path):
    choice = {"name": "whisper", "options": {"model": str(folder)}}
    stage = build_stage("transcribe", {"asr": choice})
    stage.open(Worker(tmp_path, BackendCache()))
    audio = {"bytes": encode_flac(TOLD, RATE), "path": "a.flac"}
    row = {"segment_id": "a", "num_samples": len(TOLD), "sample_rate": RATE, "audio": audio, "language": None}
    (batch,) = StageRun(stage, "signature").run([stage.spec.consumes.batch([row])])
    (written,) = batch.to_pylist()
    assert (written["text"], written["text_source"], written["language"]) == ("good morning to you", "whisper", "en")
    assert written["language_confidence"] > 1 / 3
    assert [word["text"] for word in written["words"]] == written["text"].split()
    assert written["text_flags"] is None


@pytest.fixture
def plain(tmp_path):
    """Files with the right names; the revision reads nothing else."""
    for name in ("config.json", "model.safetensors", "tokenizer.json", "generation_config.json"):
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def test_the_revision_covers_every_file_and_loads_nothing(plain):
    seen = {build_backend("asr", "whisper", {"model": str(plain)}).revision}
    for name in ("config.json", "model.safetensors", "tokenizer.json", "generation_config.json"):
        (plain / name).write_bytes(b"changed")
        seen.add(build_backend("asr", "whisper", {"model": str(plain)}).revision)
    seen.add(build_backend("asr", "whisper", {"model": str(plain), "dtype": "float16"}).revision)
    assert len(seen) == 6
    (plain / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="weights"):
        _ = build_backend("asr", "whisper", {"model": str(plain)}).revision


def test_a_hub_id_needs_a_revision():
    def revision(at):
        return build_backend("asr", "whisper", {"model": "openai/whisper-tiny", "model_revision": at}).revision

    assert revision("v1") != revision("v2")
    with pytest.raises(ConfigError, match="model_revision"):
        revision(None)
    with pytest.raises(ConfigError, match="'model'"):
        _ = build_backend("asr", "whisper", {}).revision
    with pytest.raises(ConfigError, match="dtype"):
        build_backend("asr", "whisper", {"dtype": "int8"})


@pytest.mark.skipif(HAS_WHISPER, reason="transformers is installed")
def test_a_missing_library_says_how_to_install_it(plain):
    with pytest.raises(MissingExtraError, match=r"speech-data-engine\[asr-whisper\]"):
        opened(plain)


def test_a_long_wave_is_cut_where_it_is_quiet():
    wave = np.random.default_rng(0).normal(0, 0.1, 20 * RATE).astype(np.float32)
    wave[8 * RATE : 9 * RATE] = 0
    bounds = chunk_bounds(wave, 10 * RATE)
    assert bounds[0][0] == 0 and bounds[-1][1] == len(wave)
    assert 8 * RATE <= bounds[0][1] <= 9 * RATE
    assert all(0 < end - start <= 10 * RATE for start, end in bounds)
    assert [end for _, end in bounds[:-1]] == [start for start, _ in bounds[1:]]
    assert chunk_bounds(wave[: 10 * RATE], 10 * RATE) == [(0, 10 * RATE)]


def test_tokens_begin_where_attention_moves_on():
    weights = np.full((2, 3, 12), 0.01, np.float32)
    weights[:, 0, :4], weights[:, 1, 4:9], weights[:, 2, 9:] = 1.0, 1.0, 1.0
    assert first_positions(attention_scores(weights, 3)).tolist() == [0, 4, 9]
    assert first_positions(np.zeros((4, 3), np.float32)) is None
    assert first_positions(np.zeros((0, 3), np.float32)) is None
    assert first_positions(np.zeros((3, 3), np.float32)).tolist() == [0, 1, 2]
    assert median_filter(np.array([[0, 0, 9, 0, 0]], np.float32), 3).tolist() == [[0, 0, 0, 0, 0]]


def test_tokens_become_words():
    spelled = {1: " good", 2: " morn", 3: "ing", 4: ",", 5: " ", 6: "早", 7: "上"}

    def spell(tokens):
        return "".join(spelled[token] for token in tokens)

    words = token_words([1, 2, 3, 4], [0, 10, 20, 30, 40], spell, "en", 35)
    assert words == (Word("good", 0, 10), Word("morning,", 10, 25))
    assert token_words([6, 7, 4], [0, 10, 20, 30], spell, "zh", 99) == (Word("早", 0, 10), Word("上,", 10, 20))
    assert token_words([], [5], spell, "en", 10) == ()


def test_a_character_of_several_tokens_is_one_word():
    pieces = [b"\xe6\x97", b"\xa9", "上".encode()]

    def spell(tokens):
        return b"".join(pieces[token] for token in tokens).decode("utf-8", errors="replace")

    assert token_words([0, 1, 2], [0, 10, 20, 30], spell, "zh", 99) == (Word("早", 0, 20), Word("上", 20, 10))
