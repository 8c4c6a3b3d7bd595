"""The text tokenizer: fixed ids of the Step-Audio family, user text that stays text, other tokenizers by path."""

import hashlib
import importlib.util
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.backends.text_bpe import TOKENIZER, BpeTokenizer, special_pattern
from data_engine.core.errors import ConfigError, MissingExtraError
from data_engine.models.text_bpe import FIRST_TEXT_ID, SPECIAL_TOKENS
from data_engine.tokens.vocabulary import TOKEN_STRINGS, VOCABULARY_SIZE, SpecialTokens


def opened(**options):
    tokenizer = BpeTokenizer(**options)
    tokenizer.open()
    return tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return opened()


@pytest.fixture(scope="module")
def document():
    return json.loads(TOKENIZER.read_text(encoding="utf-8"))


@pytest.fixture
def foreign(tmp_path, document):
    """Another family's tokenizer: its audio markers have other names and are not declared special."""
    renamed = TOKENIZER.read_text(encoding="utf-8").replace("<audio_start>", "<sosp>").replace("<audio_end>", "<eosp>")
    other = json.loads(renamed)
    for token in other["added_tokens"]:
        token["special"] = token["content"] not in ("<sosp>", "<eosp>", "<audio_7>")
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(other), encoding="utf-8")
    return path


def test_special_tokens_have_the_published_ids(tokenizer):
    specials = tokenizer.specials()
    assert [specials[token] for token in ("<s>", "<|EOT|>", "<|BOT|>")] == [1, 3, 4]
    assert set(specials) == {*TOKEN_STRINGS.values(), "<unk>"}
    assert len(set(specials.values())) == len(specials)
    assert max(specials.values()) < FIRST_TEXT_ID
    assert SpecialTokens.from_mapping(specials)["audio_start"] == specials["<audio_start>"]


@given(st.text(max_size=60))
def test_any_text_comes_back(text):
    shipped = _shared()
    assert shipped.decode(shipped.encode(text)) == text


@given(st.lists(st.sampled_from([*SPECIAL_TOKENS, "<audio_0>", "<audio_5119>", "<", "s>", " ", "你好"]), max_size=8))
def test_special_tokens_in_user_text_are_text(parts):
    shipped, text = _shared(), "".join(parts)
    ids = shipped.encode(text)
    assert all(FIRST_TEXT_ID <= number < 65536 for number in ids)
    assert shipped.decode(ids) == text


def _shared(opened_once=[]):  # noqa: B006 (hypothesis may not take function-scoped fixtures)
    if not opened_once:
        opened_once.append(opened())
    return opened_once[0]


def test_overlapping_special_tokens_are_all_found():
    found = special_pattern(["ab<x", "<x>"]).finditer("ab<x> <audio_12>")
    assert [match.start() for match in found] == [0, 2, 6]


def test_frequent_words_and_characters_are_short(tokenizer):
    assert len(tokenizer.encode("What is the weather like today?")) <= 9
    assert len(tokenizer.encode("今天天气怎么样？")) <= 8


def test_the_file_maps_every_audio_token_and_keeps_text_below_them(document):
    vocab = document["model"]["vocab"]
    assert [vocab[f"<audio_{code}>"] for code in range(5120)] == list(range(65536, VOCABULARY_SIZE))
    pieces = [number for token, number in vocab.items() if not token.startswith("<audio_")]
    assert max(pieces) < 65536
    assert len(set(vocab.values())) == len(vocab)
    assert 256 + 3000 < len(pieces) < 256 + 4096 + 64
    assert TOKENIZER.stat().st_size < 2_000_000


def test_transformers_reads_audio_and_turn_tokens_as_single_ids():
    transformers = pytest.importorskip("transformers")
    fast = transformers.PreTrainedTokenizerFast(tokenizer_file=str(TOKENIZER))
    assert fast.convert_tokens_to_ids("<audio_0>") == 65536
    assert fast.encode("<audio_5><audio_1023>", add_special_tokens=False) == [65541, 66559]
    assert fast.encode("<|BOT|>human\n<|EOT|>", add_special_tokens=False)[0] == 4
    assert fast.encode("今天 is fine", add_special_tokens=False) == _shared().encode("今天 is fine")


def test_the_revision_is_the_hash_of_the_file_and_needs_no_loading():
    assert BpeTokenizer().revision == hashlib.sha256(TOKENIZER.read_bytes()).hexdigest()


def test_another_tokenizer_is_read_by_path_or_folder(foreign):
    assert BpeTokenizer(path=str(foreign)).revision == BpeTokenizer(path=str(foreign.parent)).revision
    assert opened(path=str(foreign.parent)).encode("hello") == opened().encode("hello")


def test_markers_of_another_name_are_given_by_id_under_either_name(foreign):
    assert "<audio_start>" not in opened(path=str(foreign)).specials()
    named = opened(path=str(foreign), special_tokens={"audio_start": 6, "<audio_end>": 7}).specials()
    assert (named["<audio_start>"], named["<audio_end>"]) == (6, 7)


def test_audio_tokens_stay_text_even_where_the_file_does_not_call_them_special(foreign):
    tokenizer = opened(path=str(foreign))
    assert max(tokenizer.encode("<audio_7>")) < 65536


def test_a_missing_or_broken_tokenizer_is_a_configuration_error(tmp_path):
    with pytest.raises(ConfigError, match=r"tokenizer\.json"):
        BpeTokenizer(path=str(tmp_path)).revision  # noqa: B018
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match="not a tokenizer"):
        opened(path=str(tmp_path))


@pytest.mark.skipif(importlib.util.find_spec("sentencepiece") is not None, reason="sentencepiece is installed")
def test_a_sentencepiece_model_without_its_library_says_what_to_install(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"model")
    with pytest.raises(MissingExtraError, match="pip install"):
        opened(path=str(tmp_path))
