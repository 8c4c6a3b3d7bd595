from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest

from data_engine.core.errors import ConfigError, ContractError
from data_engine.tokens.vocabulary import (
    SpecialTokens,
    as_ids,
    codes_from_ids,
    is_audio,
    is_linguistic,
    is_semantic,
    linguistic_ids,
    semantic_ids,
)


def test_codebooks_occupy_the_published_ranges() -> None:
    assert linguistic_ids([0, 1023]).tolist() == [65536, 66559]
    assert semantic_ids([0, 4095]).tolist() == [66560, 70655]
    assert linguistic_ids(np.array([1023], np.uint16)).dtype == np.int32


def test_codes_come_back_from_ids_of_both_codebooks() -> None:
    ids = np.concatenate([linguistic_ids(range(1024)), semantic_ids(range(4096))])
    assert codes_from_ids(ids).tolist() == [*range(1024), *range(4096)]
    assert codes_from_ids(ids).dtype == np.uint16


def test_masks_split_the_vocabulary_at_its_borders() -> None:
    ids = np.array([0, 65535, 65536, 66559, 66560, 70655, 70656])
    assert is_audio(ids).tolist() == [False, False, True, True, True, True, False]
    assert is_linguistic(ids).tolist() == [False, False, True, True, False, False, False]
    assert is_semantic(ids).tolist() == [False, False, False, False, True, True, False]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: linguistic_ids([5, 1024]), "vq02 codes: value 1024 at position 1 is outside 0..1023"),
        (lambda: semantic_ids([-1]), "vq06 codes: value -1 at position 0 is outside 0..4095"),
        (lambda: codes_from_ids([65536, 65535]), "value 65535 at position 1 is outside 65536..70655"),
        (lambda: as_ids([[1]]), r"need a 1-D integer array, got shape \(1, 1\)"),
        (lambda: as_ids([0.5]), "need a 1-D integer array, got shape .* of float64"),
        (lambda: as_ids([True]), "need a 1-D integer array, got shape .* of bool"),
    ],
)
def test_values_out_of_range_are_named_with_their_position(call: object, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        call()  # type: ignore[operator]


def test_an_empty_list_is_an_empty_id_array() -> None:
    assert (as_ids([]).dtype, as_ids([]).size) == (np.int32, 0)


def test_only_the_published_special_ids_have_defaults() -> None:
    tokens = SpecialTokens()
    assert (tokens.bos, tokens.begin_of_turn, tokens.end_of_turn) == (1, 4, 3)
    assert tokens.get("audio_start") is None
    assert tokens.get("<audio_end>") is None


def test_tokens_are_found_by_string_and_by_name(special: SpecialTokens) -> None:
    assert special["<audio_start>"] == special["audio_start"] == 10
    assert special["<pad>"] == special["pad"] == 12
    assert SpecialTokens.from_mapping({"<|BOT|>": 40}).begin_of_turn == 40
    assert SpecialTokens.from_mapping({"<my_token>": 41})["<my_token>"] == 41


def test_a_missing_token_is_named_with_the_place_to_set_it() -> None:
    with pytest.raises(ConfigError, match=r"'<audio_start>' has no id.*set it as 'audio_start'.*from_mapping"):
        SpecialTokens()["<audio_start>"]


@pytest.mark.parametrize("number", [-1, 65536, "5", True, 1.0])
def test_special_ids_must_be_text_ids(number: object) -> None:
    with pytest.raises(ConfigError, match=r"'pad'.*no integer in 0..65535"):
        SpecialTokens.from_mapping({"pad": number})  # type: ignore[dict-item]


def test_special_ids_must_differ_except_eos_and_end_of_turn() -> None:
    with pytest.raises(ConfigError, match="'end_of_turn' and 'pad' share id 3"):
        SpecialTokens.from_mapping({"pad": 3})
    assert SpecialTokens.from_mapping({"eos": 3})["eos"] == 3


def test_special_tokens_travel_to_workers_and_hash(special: SpecialTokens) -> None:
    assert pickle.loads(pickle.dumps(special)) == special
    assert hash(special) == hash(pickle.loads(pickle.dumps(special)))


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, data_engine.tokens; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
