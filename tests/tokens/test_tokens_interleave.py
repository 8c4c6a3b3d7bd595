from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_engine.core.errors import ConfigError, ContractError
from data_engine.tokens.interleave import (
    Interleaving,
    interleave,
    interleave_segments,
    split_interleaved,
)
from data_engine.tokens.layout import interleave_codes, validate_sequence
from data_engine.tokens.vocabulary import SpecialTokens, is_audio

S, E, PAD, EOT = 10, 11, 12, 3
SPECIAL = SpecialTokens.from_mapping({"audio_start": S, "audio_end": E, "pad": PAD})
Segments = list[tuple[list[int], list[int]]]


def text_of(size: int, first: int = 100) -> list[int]:
    return list(range(first, first + size))


def audio_of(size: int) -> list[int]:
    return interleave_codes(np.arange(size) % 1024, np.arange(size) % 4096).ids[:size].tolist()


def shape_of(ids: Any) -> str:
    """Writes a stream as run lengths: `10t S 15a E`."""
    names = {S: "S", E: "E", PAD: "p", EOT: "."}
    kinds: list[str] = [names.get(number, "a" if number > 65535 else "t") for number in np.asarray(ids).tolist()]
    runs = [(kind, len(list(group))) for kind, group in itertools.groupby(kinds)]
    return " ".join(kind if kind in "SE." and count == 1 else f"{count}{kind}" for kind, count in runs)


def oracle(segments: Segments, how: Interleaving) -> list[int]:
    """Token-by-token reading of the rules (not for count_markers with the tail rule `stop`)."""
    if how.multi_segment == "pre_interleaved":
        out = [number for segment in segments for number in _oracle_joined([segment], how)]
    elif how.multi_segment == "marker_removal":
        text = [number for segment in segments for number in segment[0]]
        audio = [number for segment in segments for number in segment[1]]
        out = _oracle_joined([(text, audio)], how)
    else:
        out = _oracle_joined(segments, how)
    return out + [EOT] * how.end_of_turn


def _oracle_joined(segments: Segments, how: Interleaving) -> list[int]:
    text = [number for segment in segments for number in segment[0]]
    units: list[tuple[list[int], int, list[int], int]] = []  # before, id, after, segment
    for index, (_, audio) in enumerate(segments):
        for position, number in enumerate(audio):
            ride = how.markers == "per_segment"
            before = [S] if ride and position == 0 else []
            after = [E] if ride and position == len(audio) - 1 else []
            units.append((before, number, after, index))
    if how.count_markers:
        flat = [item for before, number, after, _ in units for item in (*before, number, *after)]
        units = [([], item, [], 0) for item in flat]
    out: list[int] = []
    while text or units:
        taken, text = text[: how.num_text], text[how.num_text :]
        if how.tail == "pad" and units:
            taken = taken + [PAD] * (how.num_text - len(taken))
        if how.tail == "stop" and not taken:
            break
        out += taken
        everything = how.tail == "run" and not text
        chunk = units if everything else units[: how.num_audio]
        units = [] if everything else units[how.num_audio :]
        out += _oracle_chunk(chunk, how)
    return _close_cut_segment(out) if how.tail == "stop" and how.markers == "per_segment" else out


def _oracle_chunk(chunk: list[tuple[list[int], int, list[int], int]], how: Interleaving) -> list[int]:
    out: list[int] = []
    for _, group in itertools.groupby(chunk, key=lambda unit: unit[3]):
        inside = [item for before, number, after, _ in group for item in (*before, number, *after)]
        out += [S, *inside, E] if how.markers == "per_chunk" else inside
    return out


def _close_cut_segment(out: list[int]) -> list[int]:
    if out.count(S) == out.count(E):
        return out
    last = max(index for index, number in enumerate(out) if number > 65535)
    return [*out[: last + 1], E, *out[last + 1 :]]


segments_strategy = st.lists(st.tuples(st.integers(0, 45), st.integers(0, 20)), min_size=1, max_size=4).map(
    lambda sizes: [(text_of(t, 100 + 100 * k), audio_of(5 * g)) for k, (t, g) in enumerate(sizes)]
)


def _settings(ratio: tuple[int, int], markers: str, tail: str, join: str, count: bool, end: bool) -> Interleaving:
    count = count and markers == "per_segment"
    return Interleaving(*ratio, markers, tail, join, count, end)  # type: ignore[arg-type]


settings_strategy = st.builds(
    _settings,
    st.sampled_from([(10, 15), (3, 5), (6, 50), (1, 10)]),
    st.sampled_from(["per_chunk", "per_segment", "none"]),
    st.sampled_from(["run", "pad", "stop"]),
    st.sampled_from(["pre_interleaved", "marker_removal", "marker_preserving"]),
    st.booleans(),
    st.booleans(),
)


@pytest.mark.parametrize(
    ("num_text", "num_audio", "expected"),
    [
        (20, 165, "10t 15a 10t 150a"),
        (35, 415, "10t 15a 10t 15a 10t 15a 5t 370a"),
        (100, 1165, "10t 15a " * 9 + "10t 1030a"),
        (30, 20, "10t 15a 10t 5a 10t"),
        (0, 20, "20a"),
        (25, 0, "25t"),
        (10, 15, "10t 15a"),
        (11, 15, "10t 15a 1t"),
        (0, 0, ""),
    ],
)
def test_occupancy_of_ten_to_fifteen(num_text: int, num_audio: int, expected: str) -> None:
    bare = Interleaving(markers="none", end_of_turn=False)
    assert shape_of(interleave(text_of(num_text), audio_of(num_audio), SPECIAL, bare)) == expected.strip()


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (Interleaving(), "10t S 15a E 10t S 20a E ."),
        (Interleaving(markers="per_segment"), "10t S 15a 10t 20a E ."),
        (Interleaving(markers="none"), "10t 15a 10t 20a ."),
        (Interleaving(tail="pad"), "10t S 15a E 10t S 15a E 10p S 5a E ."),
        (Interleaving(tail="stop"), "10t S 15a E 10t S 15a E ."),
        (Interleaving(markers="per_segment", tail="stop"), "10t S 15a 10t 15a E ."),
        (Interleaving(markers="per_segment", count_markers=True), "10t S 14a 10t 21a E ."),
        (Interleaving(markers="per_segment", tail="stop", count_markers=True), "10t S 14a 10t 11a E ."),
        (Interleaving(end_of_turn=False), "10t S 15a E 10t S 20a E"),
    ],
)
def test_markers_and_tail_rules(how: Interleaving, expected: str) -> None:
    assert shape_of(interleave(text_of(20), audio_of(35), SPECIAL, how)) == expected


@pytest.mark.parametrize(
    ("join", "markers", "expected"),
    [
        ("pre_interleaved", "per_segment", "10t S 15a 2t 5a E 10t S 15a 2t 10a E ."),
        ("marker_removal", "per_segment", "10t S 15a 10t 15a 4t 15a E ."),
        ("marker_preserving", "per_segment", "10t S 15a 10t 5a E S 10a 4t 15a E ."),
        ("pre_interleaved", "per_chunk", "10t S 15a E 2t S 5a E 10t S 15a E 2t S 10a E ."),
        ("marker_removal", "per_chunk", "10t S 15a E 10t S 15a E 4t S 15a E ."),
        ("marker_preserving", "per_chunk", "10t S 15a E 10t S 5a E S 10a E 4t S 15a E ."),
        ("pre_interleaved", "none", "10t 15a 2t 5a 10t 15a 2t 10a ."),
        ("marker_preserving", "none", "10t 15a 10t 15a 4t 15a ."),
    ],
)
def test_joins_of_two_segments(join: str, markers: str, expected: str) -> None:
    how = Interleaving(multi_segment=join, markers=markers)  # type: ignore[arg-type]
    segments = [(text_of(12), audio_of(20)), (text_of(12, 200), audio_of(25))]
    assert shape_of(interleave_segments(segments, SPECIAL, how)) == expected


def test_counted_markers_are_items_of_the_chunk() -> None:
    how = Interleaving(markers="per_segment", count_markers=True)
    segments = [(text_of(15), audio_of(10)), (text_of(15), audio_of(25))]
    assert shape_of(interleave_segments(segments, SPECIAL, how)) == "10t S 10a E S 2a 10t 15a 10t 8a E ."


def test_stop_keeps_room_for_a_counted_end_marker() -> None:
    how = Interleaving(markers="per_segment", count_markers=True, tail="stop")
    segments = [(text_of(20), audio_of(5)), ([], audio_of(5)), ([], audio_of(50))]
    assert shape_of(interleave_segments(segments, SPECIAL, how)) == "10t S 5a E S 5a E S 10t 10a E ."


@settings(max_examples=400, deadline=None)
@given(segments_strategy, settings_strategy)
def test_the_stream_is_what_a_reader_of_the_rules_writes_token_by_token(segments: Segments, how: Interleaving) -> None:
    if how.count_markers and how.tail == "stop":
        return  # whole groups under a cut are checked by the properties below
    assert interleave_segments(segments, SPECIAL, how).tolist() == oracle(segments, how)


@settings(max_examples=300, deadline=None)
@given(segments_strategy, settings_strategy)
def test_splitting_gives_back_text_and_audio_in_order(segments: Segments, how: Interleaving) -> None:
    stream = interleave_segments(segments, SPECIAL, how)
    text, audio = split_interleaved(stream, SPECIAL)
    whole_audio = [number for segment in segments for number in segment[1]]
    assert stream.dtype == text.dtype == audio.dtype == np.int32
    assert text.tolist() == [number for segment in segments for number in segment[0]]
    if how.tail != "stop":
        assert audio.tolist() == whole_audio
    elif how.multi_segment != "pre_interleaved":
        assert audio.tolist() == whole_audio[: audio.size]
        assert audio.size % 5 == 0


@settings(max_examples=300, deadline=None)
@given(segments_strategy, settings_strategy)
def test_every_stream_passes_the_validator(segments: Segments, how: Interleaving) -> None:
    stream = interleave_segments(segments, SPECIAL, how)
    validate_sequence(stream, SPECIAL, how.markers, count_markers=how.count_markers)


@settings(max_examples=200, deadline=None)
@given(segments_strategy, settings_strategy)
def test_stop_never_lets_audio_outgrow_its_text_rounds(segments: Segments, how: Interleaving) -> None:
    if how.tail != "stop" or how.multi_segment == "pre_interleaved":
        return
    text, audio = split_interleaved(interleave_segments(segments, SPECIAL, how), SPECIAL)
    assert audio.size <= -(-text.size // how.num_text) * how.num_audio


@settings(max_examples=100, deadline=None)
@given(segments_strategy.filter(lambda segments: len(segments) == 1), settings_strategy)
def test_one_segment_is_joined_the_same_way_by_every_rule(segments: Segments, how: Interleaving) -> None:
    joins = ("pre_interleaved", "marker_removal", "marker_preserving")
    streams = [interleave_segments(segments, SPECIAL, replace(how, multi_segment=join)).tolist() for join in joins]
    assert streams[0] == streams[1] == streams[2] == interleave(*segments[0], SPECIAL, how).tolist()


@settings(max_examples=100, deadline=None)
@given(segments_strategy)
def test_a_preserved_marker_pair_holds_audio_of_one_segment_only(segments: Segments) -> None:
    for markers in ("per_chunk", "per_segment"):
        stream = interleave_segments(segments, SPECIAL, Interleaving(markers=markers))
        owner = np.repeat(np.arange(len(segments)), [len(audio) for _, audio in segments])
        pair = np.cumsum(stream == S)[is_audio(stream)]
        assert len(set(zip(pair.tolist(), owner.tolist(), strict=True))) == len(set(pair.tolist()))


def test_segments_without_audio_or_text_leave_no_empty_markers() -> None:
    segments: Segments = [(text_of(3), []), ([], audio_of(5)), (text_of(4), [])]
    assert shape_of(interleave_segments(segments, SPECIAL, Interleaving())) == "7t S 5a E ."
    assert shape_of(interleave([], [], SPECIAL, Interleaving())) == "."


def test_an_hour_of_tokens_round_trips() -> None:
    text, audio = np.arange(40000) % 60000 + 100, audio_of(150000)
    back = split_interleaved(interleave(text, audio, SPECIAL, Interleaving()), SPECIAL)
    assert np.array_equal(back[0], text)
    assert np.array_equal(back[1], audio)


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        ([([S], [])], r"text of segment 0 holds reserved id 10 at position 0"),
        ([([9], []), ([9, EOT], [])], r"text of segment 1 holds reserved id 3 at position 1"),
        ([([PAD], [])], "reserved id 12"),
        ([([70000], [])], r"text ids of segment 0: value 70000 at position 0 is outside 0..65535"),
        ([([9], []), ([9], audio_of(5)[:4])], "audio of segment 1: .*4 ids"),
        ([([9], audio_of(10)[1:6])], "audio of segment 0: .*at position 1 "),
        ([], "no segment"),
    ],
)
def test_bad_segments_are_named(segments: Segments, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        interleave_segments(segments, SPECIAL, Interleaving())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_audio": 12}, "num_audio=12: .*multiple of 5"),
        ({"num_audio": 0}, "num_audio=0"),
        ({"num_text": 0}, "num_text=0"),
        ({"count_markers": True}, "count_markers needs markers='per_segment', not 'per_chunk'"),
        ({"markers": "always"}, "markers='always' is unknown; choose one of per_chunk"),
        ({"tail": "drop"}, "tail='drop'"),
        ({"multi_segment": "join"}, "multi_segment='join'"),
    ],
)
def test_impossible_settings_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Interleaving(**options)  # type: ignore[arg-type]


def test_missing_special_ids_are_refused_only_where_needed() -> None:
    plain = SpecialTokens()
    with pytest.raises(ConfigError, match="<audio_start>"):
        interleave([9], audio_of(5), plain, Interleaving())
    with pytest.raises(ConfigError, match="<pad>"):
        interleave([9], audio_of(5), plain, Interleaving(markers="none", tail="pad"))
    assert shape_of(interleave([9], audio_of(5), plain, Interleaving(markers="none"))) == "1t 5a ."
