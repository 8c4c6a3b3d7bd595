from __future__ import annotations

import numpy as np
import pytest

from data_engine.core.errors import ContractError
from data_engine.tokens.interleave import Interleaving, split_interleaved
from data_engine.tokens.layout import validate_sequence
from data_engine.tokens.records import (
    TokenRecord,
    aqaa_record,
    aqta_record,
    aqtaa_record,
    edit_record,
    taqta_record,
    tqta_record,
    tts_record,
)
from data_engine.tokens.templates import Encode, Turn
from data_engine.tokens.vocabulary import SpecialTokens

QUERY = np.array([65536, 65537, 66560, 66561, 66562], np.int32)
ANSWER = np.array([65540, 65541, 66570, 66571, 66572] * 4, np.int32)


def letters(text: str) -> list[int]:
    return [ord(character) + 100 for character in text]


def words(text: str) -> list[int]:
    return [7, *letters(text)]


def halves(record: TokenRecord) -> tuple[list[int], list[int]]:
    """Checks the mask's form and returns prompt and target."""
    assert (record.input_ids.dtype, record.loss_mask.dtype) == (np.int32, np.uint8)
    at = record.prompt_length
    assert record.loss_mask.tolist() == [0] * at + [1] * (record.input_ids.size - at)
    return record.input_ids[:at].tolist(), record.input_ids[at:].tolist()


OPEN = [4, *words("assistant\n")]
TEXT_QUERY = [4, *words("human\nask"), 3]
AUDIO_QUERY = [4, *words("human\n"), *QUERY, 3]


def test_tqta(encode: Encode, special: SpecialTokens) -> None:
    record = tqta_record([Turn("user", "ask")], "reply", encode, special)
    assert record.type == "TQTA"
    assert halves(record) == ([*TEXT_QUERY, *OPEN], [*letters("reply"), 3])


def test_aqta(encode: Encode, special: SpecialTokens) -> None:
    record = aqta_record([Turn("user", "ask", QUERY)], "reply", encode, special)
    assert record.type == "AQTA"
    assert halves(record) == ([*AUDIO_QUERY, *OPEN], [*letters("reply"), 3])


def test_taqta_repeats_the_query_with_loss(encode: Encode, special: SpecialTokens) -> None:
    record = taqta_record([Turn("user", "ask", QUERY)], "reply", encode, special)
    assert record.type == "TAQTA"
    assert halves(record) == (
        [4, *words("human\nask"), *QUERY, 3, *OPEN],
        [*letters("ask"), *letters("reply"), 3],
    )


def test_aqtaa_interleaves_its_answer(encode: Encode, special: SpecialTokens) -> None:
    how = Interleaving(end_of_turn=False)
    record = aqtaa_record([Turn("user", "ask", QUERY)], [("x" * 12, ANSWER)], encode, special, how)
    prompt, target = halves(record)
    assert record.type == "AQTAA"
    assert prompt == [*AUDIO_QUERY, *OPEN]
    x = letters("x")
    assert target == [*x * 10, 10, *ANSWER[:15], 11, *x * 2, 10, *ANSWER[15:], 11, 3]


def test_aqtaa_of_two_tags_uses_the_join(encode: Encode, special: SpecialTokens) -> None:
    how = Interleaving(markers="per_segment")
    record = aqtaa_record([Turn("user", "ask", QUERY)], [("ab", ANSWER), ("c", ANSWER)], encode, special, how)
    _, target = halves(record)
    validate_sequence(target, special, "per_segment")
    assert target.count(10) == 2
    text, audio = split_interleaved(target, special)
    assert text.tolist() == letters("abc")
    assert audio.tolist() == [*ANSWER, *ANSWER]


@pytest.mark.parametrize("tail", ["run", "pad", "stop"])
def test_aqaa_has_audio_alone_under_every_tail_rule(tail: str, encode: Encode, special: SpecialTokens) -> None:
    how = Interleaving(tail=tail)  # type: ignore[arg-type]
    record = aqaa_record([Turn("user", "ask", QUERY)], [ANSWER], encode, special, how)
    assert record.type == "AQAA"
    assert halves(record) == ([*AUDIO_QUERY, *OPEN], [10, *ANSWER, 11, 3])


def test_tts(encode: Encode, special: SpecialTokens) -> None:
    record = tts_record("say", ANSWER, "heard", QUERY, encode, special, system="Speak.")
    prompt, target = halves(record)
    assert record.type == "TTS"
    assert target == [*ANSWER, 3]
    assert prompt == [
        1,
        *[4, *words("system\nSpeak."), 3, 4, *words("human\n"), *letters("heard"), 3, *OPEN, *QUERY, 3],
        *[4, *words("human\n"), *letters("say"), 3, *OPEN],
    ]


def test_edit(encode: Encode, special: SpecialTokens) -> None:
    record = edit_record("Happier.", QUERY, ANSWER, encode, special, system="Edit.")
    prompt, target = halves(record)
    assert record.type == "EDIT"
    assert target == [*ANSWER, 3]
    assert prompt == [
        1,
        *[4, *words("system\nEdit."), 3, 4, *words("human\nHappier.\n"), *QUERY, *words("\n"), 3, *OPEN],
    ]


def test_only_the_last_turn_has_loss_and_history_is_text(encode: Encode, special: SpecialTokens) -> None:
    turns = [Turn("user", "one", QUERY), Turn("assistant", "two", ANSWER), Turn("user", "ask", QUERY)]
    record = aqta_record(turns, "reply", encode, special)
    history = [4, *words("human\none"), 3, 4, *words("assistant\ntwo"), 3]
    assert halves(record) == ([*history, *AUDIO_QUERY, *OPEN], [*letters("reply"), 3])


def test_history_of_a_taqta_record_is_text_alone(encode: Encode, special: SpecialTokens) -> None:
    turns = [Turn("user", "one", QUERY, with_text=True), Turn("assistant", "two"), Turn("user", "ask", QUERY)]
    prompt, _ = halves(taqta_record(turns, "reply", encode, special))
    assert [number for number in prompt if number > 65535] == QUERY.tolist()


def test_queries_of_the_wrong_kind_are_refused(encode: Encode, special: SpecialTokens) -> None:
    text, audio = [Turn("user", "ask")], [Turn("user", "ask", QUERY)]
    with pytest.raises(ContractError, match="TQTA needs a text query"):
        tqta_record(audio, "reply", encode, special)
    with pytest.raises(ContractError, match="AQTA needs an audio query"):
        aqta_record(text, "reply", encode, special)
    with pytest.raises(ContractError, match="AQTAA needs an audio query"):
        aqtaa_record(text, [("x", ANSWER)], encode, special, Interleaving())
    for turns in ([], [Turn("assistant", "x")]):
        with pytest.raises(ContractError, match="TAQTA needs the user's query as the last turn"):
            taqta_record(turns, "reply", encode, special)


def test_empty_targets_are_refused(encode: Encode, special: SpecialTokens) -> None:
    audio = [Turn("user", "", QUERY)]
    with pytest.raises(ContractError, match="AQTA target has an empty text"):
        aqta_record(audio, " ", encode, special)
    with pytest.raises(ContractError, match="TAQTA target has an empty text"):
        taqta_record(audio, "reply", encode, special)
    for answer in ([("", ANSWER)], [("x", [])], []):
        with pytest.raises(ContractError, match="AQTAA answer needs text and audio"):
            aqtaa_record(audio, answer, encode, special, Interleaving())
    with pytest.raises(ContractError, match="AQAA answer has no audio"):
        aqaa_record(audio, [[]], encode, special, Interleaving())
    with pytest.raises(ContractError, match="TTS target has no audio"):
        tts_record("say", [], "heard", QUERY, encode, special, system="s")


def test_a_mask_must_fit_its_ids() -> None:
    with pytest.raises(ContractError, match=r"TTS record: ids \(2,\) and mask \(3,\)"):
        TokenRecord("TTS", np.zeros(2, np.int32), np.zeros(3, np.uint8))
