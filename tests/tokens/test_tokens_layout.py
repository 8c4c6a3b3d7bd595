from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.core.errors import ContractError
from data_engine.tokens.layout import (
    deinterleave,
    expected_counts,
    from_string,
    interleave_codes,
    num_groups,
    regrid_25hz,
    to_string,
    vocoder_ids,
)

GOLDEN_IDS = [65541, 66559, 66560, 70655, 66570]
GOLDEN_STRING = "<audio_5><audio_1023><audio_1024><audio_5119><audio_1034>"

codes02 = st.lists(st.integers(0, 1023), max_size=40)
codes06 = st.lists(st.integers(0, 4095), max_size=60)


def test_golden_layout() -> None:
    layout = interleave_codes([5, 1023, 7], [0, 4095, 10, 11])
    assert layout.ids.tolist() == GOLDEN_IDS
    assert layout.ids.dtype == np.int32
    assert layout.num_groups == 1
    assert (layout.remainder02.tolist(), layout.remainder06.tolist()) == ([7], [11])
    assert layout.remainder02.dtype == layout.remainder06.dtype == np.uint16


def test_golden_string() -> None:
    assert to_string(GOLDEN_IDS) == GOLDEN_STRING
    assert from_string(GOLDEN_STRING).tolist() == GOLDEN_IDS
    assert from_string("").tolist() == []
    assert to_string([]) == ""


@pytest.mark.parametrize(
    ("seconds", "n02", "n06", "groups", "dropped02", "dropped06"),
    [
        (0.5, 8, 12, 4, 0, 0),
        (1, 16, 25, 8, 0, 1),
        (1.5, 25, 38, 12, 1, 2),
        (2.5, 41, 62, 20, 1, 2),
        (10, 166, 250, 83, 0, 1),
        (31, 516, 775, 258, 0, 1),
    ],
)
@pytest.mark.parametrize("rate", [16000, 22050 * 2, 48000])
def test_counts_by_duration(
    seconds: float, n02: int, n06: int, groups: int, dropped02: int, dropped06: int, rate: int
) -> None:
    assert expected_counts(round(seconds * rate), rate) == (n02, n06, groups)
    layout = interleave_codes(np.zeros(n02, int), np.zeros(n06, int))
    assert (layout.ids.size, layout.num_groups) == (groups * 5, groups)
    assert (layout.remainder02.size, layout.remainder06.size) == (dropped02, dropped06)


def test_counts_refuse_impossible_audio() -> None:
    with pytest.raises(ContractError, match="sample_rate=0"):
        expected_counts(16000, 0)
    with pytest.raises(ContractError, match="num_samples=-1"):
        expected_counts(-1, 16000)


def test_the_shorter_stream_limits_the_groups() -> None:
    assert [num_groups(3, 9), num_groups(9, 5), num_groups(1, 3), num_groups(0, 0)] == [1, 1, 0, 0]


@given(codes02, codes06)
def test_layout_and_remainders_lose_nothing(vq02: list[int], vq06: list[int]) -> None:
    layout = interleave_codes(vq02, vq06)
    back02, back06 = deinterleave(layout.ids)
    assert [*back02, *layout.remainder02] == vq02
    assert [*back06, *layout.remainder06] == vq06
    assert back02.dtype == back06.dtype == np.uint16


@given(codes02, codes06)
def test_layout_places_every_code_by_its_position(vq02: list[int], vq06: list[int]) -> None:
    expected: list[int] = []
    for group in range(min(len(vq02) // 2, len(vq06) // 3)):
        expected += [65536 + code for code in vq02[2 * group : 2 * group + 2]]
        expected += [66560 + code for code in vq06[3 * group : 3 * group + 3]]
    assert interleave_codes(vq02, vq06).ids.tolist() == expected


@given(st.lists(st.integers(65536, 70655), max_size=50))
def test_strings_round_trip(ids: list[int]) -> None:
    text = to_string(ids)
    assert text == "".join(f"<audio_{number - 65536}>" for number in ids)
    assert from_string(text).tolist() == ids


@pytest.mark.parametrize(
    ("text", "character"),
    [
        ("audio_5", 0),
        ("<audio_5> <audio_6>", 9),
        ("<audio_5><audio_6", 9),
        ("<audio_5>x", 9),
        ("<audio_05>", 0),
        ("<audio_>", 0),
        ("<audio_-1>", 0),
        ("<audio_10000>", 0),
        ("<audio_\u0665>", 0),
        ("<audio_5>\n", 9),
    ],
)
def test_malformed_strings_name_the_character(text: str, character: int) -> None:
    with pytest.raises(ContractError, match=f"malformed at character {character}:"):
        from_string(text)


def test_string_numbers_past_the_codebooks_are_refused() -> None:
    assert from_string("<audio_5119>").tolist() == [70655]
    with pytest.raises(ContractError, match="value 5120 at position 1"):
        from_string("<audio_0><audio_5120>")
    with pytest.raises(ContractError, match="value 100 at position 0"):
        to_string([100])


def test_flat_vocoder_ids_have_no_offset() -> None:
    assert vocoder_ids(GOLDEN_IDS).tolist() == [5, 1023, 1024, 5119, 1034]


def test_regrid_pads_every_third_linguistic_frame_and_shifts_semantic_ids() -> None:
    row02, row06 = regrid_25hz(GOLDEN_IDS * 2)
    assert row02.tolist() == [5, 1023, 1024] * 2
    assert row06.tolist() == [1025, 5120, 1035] * 2


@pytest.mark.parametrize(
    ("kept", "row02", "row06"),
    [
        (1, [5, 0, 1024], [1025, 1025, 1025]),
        (2, [5, 1023, 1024], [1025, 1025, 1025]),
        (3, [5, 1023, 1024], [1025, 1025, 1025]),
        (4, [5, 1023, 1024], [1025, 5120, 1025]),
    ],
)
def test_regrid_completes_the_last_group(kept: int, row02: list[int], row06: list[int]) -> None:
    rows = regrid_25hz(GOLDEN_IDS[:kept])
    assert (rows[0].tolist(), rows[1].tolist()) == (row02, row06)


def test_regrid_of_nothing_is_nothing_and_checks_positions() -> None:
    assert [row.size for row in regrid_25hz([])] == [0, 0]
    with pytest.raises(ContractError, match="position 1"):
        regrid_25hz([65541, 66560])


def test_a_clip_of_one_hour_lays_out_exactly() -> None:
    layout = interleave_codes(np.arange(60000) % 1024, np.arange(90000) % 4096)
    assert layout.ids.size == 150000
    assert [codes.sum() for codes in deinterleave(layout.ids)] == [
        (np.arange(60000) % 1024).sum(),
        (np.arange(90000) % 4096).sum(),
    ]
