"""The validators must catch every single corruption that the 2:3 layout makes visible."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.core.errors import ConfigError, ContractError
from data_engine.tokens.interleave import Interleaving, interleave_segments
from data_engine.tokens.layout import find_audio_runs, interleave_codes, validate_run, validate_sequence
from data_engine.tokens.vocabulary import SpecialTokens, is_linguistic

GROUP = [65541, 66559, 66560, 70655, 66570]
S, E = 10, 11
SPECIAL = SpecialTokens.from_mapping({"audio_start": S, "audio_end": E})


def run_of(groups: int) -> np.ndarray:
    return interleave_codes(np.arange(2 * groups) % 1024, np.arange(3 * groups) % 4096).ids


def test_valid_runs_pass_unchanged() -> None:
    for groups in (0, 1, 7):
        assert validate_run(run_of(groups)).tolist() == run_of(groups).tolist()


@given(st.integers(1, 6), st.data())
def test_losing_any_one_id_is_caught(groups: int, data: st.DataObject) -> None:
    run = run_of(groups)
    position = data.draw(st.integers(0, run.size - 1))
    with pytest.raises(ContractError, match=r"position \d+"):
        validate_run(np.delete(run, position))


@given(st.integers(1, 6), st.data())
def test_an_extra_id_is_caught(groups: int, data: st.DataObject) -> None:
    run = run_of(groups)
    position = data.draw(st.integers(0, run.size))
    with pytest.raises(ContractError):
        validate_run(np.insert(run, position, data.draw(st.sampled_from([65536, 70655, 5]))))


@given(st.integers(1, 6), st.data())
def test_swapping_two_codebooks_is_caught_at_the_first_of_them(groups: int, data: st.DataObject) -> None:
    run = run_of(groups)
    first, second = sorted(data.draw(st.sets(st.integers(0, run.size - 1), min_size=2, max_size=2)))
    swapped = run.copy()
    swapped[[first, second]] = run[[second, first]]
    if is_linguistic(run)[first] == is_linguistic(run)[second]:
        assert validate_run(swapped) is not None  # same codebook: the layout cannot tell
    else:
        with pytest.raises(ContractError, match=f"at position {first} "):
            validate_run(swapped)


@given(st.integers(1, 6), st.data(), st.sampled_from([0, 65535]))
def test_a_text_id_inside_a_run_is_caught(groups: int, data: st.DataObject, intruder: int) -> None:
    run = run_of(groups)
    position = data.draw(st.integers(0, run.size - 1))
    run[position] = intruder
    with pytest.raises(ContractError, match=f"id {intruder} at position {position} "):
        validate_run(run)


@pytest.mark.parametrize(("position", "intruder"), [(0, 66560), (1, 66560), (2, 66559), (4, 66559), (3, 65536)])
def test_the_nearest_id_of_the_other_codebook_is_caught(position: int, intruder: int) -> None:
    run = interleave_codes([9] * 6, [9] * 9).ids
    run[5 + position] = intruder
    with pytest.raises(ContractError, match=f"id {intruder} at position {5 + position} "):
        validate_run(run)


@pytest.mark.parametrize("intruder", [-1, 70656])
def test_an_id_outside_the_vocabulary_is_caught(intruder: int) -> None:
    run = run_of(2).astype(np.int64)
    run[4] = intruder
    with pytest.raises(ContractError, match=f"value {intruder} at position 4"):
        validate_run(run)


def test_an_incomplete_group_says_where_the_run_starts_and_how_long_it_is() -> None:
    with pytest.raises(ContractError, match=r"7 ids starting at position 0 .* 2 ids are left over; cut to 5"):
        validate_run(GROUP + GROUP[:2])
    with pytest.raises(ContractError, match=r"6 ids starting at position 3 .* 1 ids are left over"):
        validate_sequence([9, 9, 9, *GROUP, GROUP[0]], SPECIAL)


def test_runs_are_found_with_half_open_bounds() -> None:
    assert find_audio_runs([9, *GROUP, 9, 9, *GROUP]).tolist() == [[1, 6], [8, 13]]
    assert find_audio_runs(GROUP).tolist() == [[0, 5]]
    assert find_audio_runs([9, 8]).shape == (0, 2)


def test_each_run_is_checked_from_its_own_start() -> None:
    validate_sequence([9, *GROUP, 9, *GROUP, *GROUP, 9], SPECIAL)
    with pytest.raises(ContractError, match=r"at position 8 \(place 1 of its group"):
        validate_sequence([9, *GROUP, 9, GROUP[0], *GROUP[2:]], SPECIAL)


@pytest.mark.parametrize(
    ("ids", "markers", "message"),
    [
        ([9, S, *GROUP, E], "none", "marker at position 1, but markers are configured as 'none'"),
        ([9, *GROUP], "per_chunk", "at position 1 lies outside its markers"),
        ([S, *GROUP, E, *GROUP], "per_segment", "at position 7 lies outside its markers"),
        ([S, *GROUP, 9, *GROUP, E], "per_chunk", "id 9 at position 6 lies inside audio markers"),
        ([S, *GROUP], "per_chunk", "unbalanced audio marker 10 at position 0"),
        ([E, *GROUP, S], "per_segment", "unbalanced audio marker 11 at position 0"),
        ([S, *GROUP, E, E], "per_segment", "unbalanced audio marker 11 at position 7"),
        ([S, S, *GROUP, E, E], "per_chunk", "unbalanced audio marker 10 at position 1"),
        ([9, S, E], "per_chunk", "position 1 hold no audio"),
        ([9, S, 9, E], "per_segment", "position 1 hold no audio"),
        ([S, *GROUP[:4], E], "per_chunk", "4 ids starting at position 1"),
        ([S, *GROUP[:2], 9, *GROUP[2:], E], "per_segment", r"at position 4 \(place 0"),
    ],
)
def test_broken_sequences_name_the_fault(ids: list[int], markers: str, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        validate_sequence(ids, SPECIAL, markers)  # type: ignore[arg-type]


def test_text_may_stand_between_the_runs_of_a_segment() -> None:
    validate_sequence([9, S, *GROUP, 9, *GROUP, E, S, *GROUP, E, 3], SPECIAL, "per_segment")


def test_counted_markers_let_text_cut_a_group_but_not_lose_an_id() -> None:
    cut = [S, *GROUP[:2], 9, *GROUP[2:], E]
    validate_sequence(cut, SPECIAL, "per_segment", count_markers=True)
    with pytest.raises(ContractError, match="starting at position 1"):
        validate_sequence([*cut[:-2], E], SPECIAL, "per_segment", count_markers=True)


def test_markers_need_their_ids() -> None:
    with pytest.raises(ConfigError, match="<audio_start>"):
        validate_sequence([9], SpecialTokens(), "per_chunk")
    validate_sequence([9, *GROUP], SpecialTokens(), "none")


@given(
    st.lists(st.tuples(st.integers(0, 25), st.integers(0, 9)), min_size=1, max_size=3),
    st.sampled_from(["per_chunk", "per_segment", "none"]),
    st.data(),
)
def test_losing_any_audio_id_or_marker_of_an_answer_is_caught(
    sizes: list[tuple[int, int]], markers: str, data: st.DataObject
) -> None:
    settings = Interleaving(markers=markers)  # type: ignore[arg-type]
    answer = interleave_segments([([99] * t, run_of(g)) for t, g in sizes], SPECIAL, settings)
    validate_sequence(answer, SPECIAL, settings.markers)
    vital = np.flatnonzero((answer > 65535) | (answer == S) | (answer == E))
    if vital.size:
        broken = np.delete(answer, data.draw(st.sampled_from(vital.tolist())))
        with pytest.raises(ContractError):
            validate_sequence(broken, SPECIAL, settings.markers)
