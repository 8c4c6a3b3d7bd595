from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.core.errors import ContractError
from data_engine.tokens.preference import (
    PreferenceRow,
    audio_loss_mask,
    dpo_mask,
    masked_dpo_loss,
    preference_row,
)
from data_engine.tokens.vocabulary import SpecialTokens

AUDIO = [65536, 65537, 66560, 66561, 70655]
OTHER_AUDIO = [65538, 65537, 66560, 66561, 70655]
PROMPT = [4, 300, *AUDIO, 3, 4, 301]
SPECIAL = SpecialTokens.from_mapping({"audio_start": 10, "audio_end": 11})


def row(chosen: list[int], rejected: list[int], axis: str = "text", **options: Any) -> PreferenceRow:
    given_options = {"margin": 2.0, "scorer": "judge", "seed": 5, "source_id": "r1", "tokenizer_hash": "h"}
    return preference_row(PROMPT, chosen, rejected, axis, SPECIAL, **(given_options | options))  # type: ignore[arg-type]


def test_the_mask_is_text_of_the_last_assistant_turn() -> None:
    answer = [500, 10, *AUDIO, 11, 501, 3]
    mask = dpo_mask(PROMPT + answer, len(PROMPT))
    assert mask.dtype == np.uint8
    assert mask.tolist() == [0] * len(PROMPT) + [1, 1, 0, 0, 0, 0, 0, 1, 1, 1]
    audio = audio_loss_mask(PROMPT + answer, len(PROMPT))
    assert audio.dtype == np.uint8
    assert audio.tolist() == [0] * len(PROMPT) + [0, 0, 1, 1, 1, 1, 1, 0, 0, 0]


def test_the_mask_turns_at_the_first_audio_id() -> None:
    assert dpo_mask([65535, 65536, 70655], 0).tolist() == [1, 0, 0]


def test_markers_can_be_taken_out_of_the_mask() -> None:
    assert dpo_mask([500, 10, *AUDIO, 11, 3], 0, excluded=(10, 11)).tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 1]


@given(st.lists(st.integers(0, 70655), max_size=30), st.data())
def test_the_two_masks_share_out_the_answer(ids: list[int], data: st.DataObject) -> None:
    prompt_length = data.draw(st.integers(0, len(ids)))
    both = dpo_mask(ids, prompt_length) + audio_loss_mask(ids, prompt_length)
    assert both.tolist() == [0] * prompt_length + [1] * (len(ids) - prompt_length)


@pytest.mark.parametrize("prompt_length", [-1, 3])
def test_a_prompt_longer_than_its_ids_is_refused(prompt_length: int) -> None:
    with pytest.raises(ContractError, match=f"prompt_length {prompt_length} is outside 0..2"):
        dpo_mask([5, 6], prompt_length)


def test_a_text_row_masks_its_audio() -> None:
    made = row([500, 10, *AUDIO, 11, 3], [600, 3], aspect="relevance")
    assert (made.axis, made.masked, made.aspect) == ("text", True, "relevance")
    assert made.prompt_ids.tolist() == PROMPT
    assert made.mask_chosen.tolist() == [1, 1, 0, 0, 0, 0, 0, 1, 1]
    assert made.mask_rejected.tolist() == [1, 1]
    assert (made.margin, made.scorer, made.seed, made.source_id, made.tokenizer_hash) == (
        2.0,
        "judge",
        5,
        "r1",
        "h",
    )


def test_an_audio_row_is_marked_unmasked_and_keeps_every_loss() -> None:
    made = row([500, *AUDIO, 3], [500, *OTHER_AUDIO, 3], axis="audio")
    assert (made.axis, made.masked) == ("audio", False)
    assert made.mask_chosen.tolist() == made.mask_rejected.tolist() == [1] * 7


def test_a_text_row_needs_different_texts_even_where_markers_differ() -> None:
    chosen = [500, 10, *AUDIO, 11, 501, 10, *AUDIO, 11, 3]
    rejected = [500, 501, 10, *OTHER_AUDIO, 11]
    with pytest.raises(ContractError, match=r"r1: chosen and rejected have the same text: .*axis='audio'"):
        row(chosen, rejected)
    assert row(chosen, rejected, axis="audio").masked is False


def test_an_audio_row_needs_different_audio() -> None:
    with pytest.raises(ContractError, match="r1: chosen and rejected have the same audio"):
        row([500, *AUDIO, 3], [600, *AUDIO, 3], axis="audio")


@pytest.mark.parametrize(
    ("chosen", "rejected", "options", "message"),
    [
        ([], [5], {}, "r1: chosen answer is empty"),
        ([5], [6, 3, 4, 7], {}, "r1: rejected opens a turn at position 2"),
        ([5], [6], {"margin": 0.0}, "margin 0.0 is not positive"),
        ([5], [6], {"margin": math.nan}, "margin nan is not positive"),
        ([5], [6], {"axis": "video"}, "axis 'video' is unknown"),
        ([5], [70656], {}, "r1: rejected: value 70656 at position 0"),
        ([5], [6] * 12, {"max_length_gap": 10}, "loss lengths differ by 11 ids, over 10"),
    ],
)
def test_bad_rows_are_refused(chosen: list[int], rejected: list[int], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        row(chosen, rejected, **options)


def test_the_length_gap_counts_only_ids_with_loss() -> None:
    assert row([5, *AUDIO * 9], [6], max_length_gap=0).masked


def loss(chosen: list[float], rejected: list[float], mask: list[int], beta: float = 0.1) -> float:
    zero = np.zeros(len(chosen))
    keep = np.array(mask, np.uint8)
    return masked_dpo_loss(np.array(chosen), np.array(rejected), zero, zero, keep, keep, beta)


def test_the_loss_is_the_published_formula() -> None:
    value = masked_dpo_loss(
        np.array([-1.0, -2.0, -9.0]),
        np.array([-3.0, -1.0]),
        np.array([-2.0, -2.5, -1.0]),
        np.array([-1.0, -1.0]),
        np.array([1, 1, 0], np.uint8),
        np.array([1, 0], np.uint8),
        beta=0.5,
    )
    # chosen 1.0 + 0.5 (third id masked), rejected -2.0 (second masked): beta * 3.5
    assert value == pytest.approx(-math.log(1 / (1 + math.exp(-0.5 * 3.5))))


def test_without_a_difference_in_the_mask_the_loss_is_log_two() -> None:
    assert loss([-1.0, -5.0], [-1.0, -50.0], [1, 0]) == pytest.approx(math.log(2))


def test_audio_cannot_move_the_loss_even_when_impossible() -> None:
    assert loss([-1.0, -math.inf], [-2.0, -3.0], [1, 0]) == loss([-1.0, 0.0], [-2.0, 0.0], [1, 0])


def test_the_loss_is_finite_far_from_zero() -> None:
    assert loss([-1e5], [0.0], [1], 1.0) == pytest.approx(1e5)
    assert loss([0.0], [-1e5], [1], 1.0) == pytest.approx(0.0)


def test_log_probabilities_must_fit_their_mask() -> None:
    with pytest.raises(ContractError, match=r"rejected: policy \(1,\), reference \(2,\)"):
        masked_dpo_loss(np.zeros(1), np.zeros(1), np.zeros(1), np.zeros(2), np.ones(1, np.uint8), np.ones(1, np.uint8))
