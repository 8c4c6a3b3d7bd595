"""Checks of audio runs: whole 2:3 groups, the right codebook everywhere, audio only inside its markers.

In a legal run position p mod 5 decides the codebook, which makes this a cheap detector of corrupted records.

Source: Step-Audio (arXiv 2502.11946) sec. 3.1; markers as named by Step-Audio-AQAA (arXiv 2506.08967).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from data_engine.core.errors import ContractError
from data_engine.tokens.vocabulary import (
    AUDIO_OFFSET,
    SEMANTIC_OFFSET,
    Ids,
    Mask,
    SpecialTokens,
    as_ids,
    is_audio,
    is_linguistic,
    is_semantic,
)

Markers = Literal["per_chunk", "per_segment", "none"]
Indices = npt.NDArray[np.int64]

LINGUISTIC_PER_GROUP = 2
SEMANTIC_PER_GROUP = 3
GROUP_SIZE = LINGUISTIC_PER_GROUP + SEMANTIC_PER_GROUP

_SECOND_BOOK = np.arange(GROUP_SIZE) >= LINGUISTIC_PER_GROUP


def validate_run(ids: Any) -> Ids:
    """Returns `ids` as int32 when they are one valid audio run (Step-Audio, arXiv 2502.11946, sec. 3.1).

    Raises:
        ContractError: Names the first position whose id is no audio id or of the wrong codebook, or the
            incomplete last group.
    """
    run = as_ids(ids, "audio run")
    if run.size % GROUP_SIZE == 0 and (not run.size or run.min() >= AUDIO_OFFSET):
        # The usual case, in few passes and without an index per id.
        in_second_book = (run >= SEMANTIC_OFFSET).reshape(-1, GROUP_SIZE)
        if (in_second_book == _SECOND_BOOK).all():
            return run
    _raise_first_fault(run, np.arange(run.size) % GROUP_SIZE, np.arange(run.size))
    _require_whole_groups(run.size, 0)
    return run


def find_audio_runs(ids: Any) -> Indices:
    """Returns the maximal stretches of audio ids as int64 [start, end) rows, shape (num_runs, 2)."""
    return _runs_of(is_audio(as_ids(ids)))


def validate_sequence(
    ids: Any, special: SpecialTokens, markers: Markers = "none", *, count_markers: bool = False
) -> Ids:
    """Returns `ids` as int32 when every audio run and every marker in them is legal.

    Audio of a prompt has no markers and audio of an answer has, so check the two halves of a record apart.
    Step-Audio-AQAA (arXiv 2506.08967) names the markers, the rest is this engine's contract: every run is
    whole 2:3 groups. With markers, `<audio_start>` and `<audio_end>` alternate and hold at least one audio
    id, and no audio lies outside. `per_chunk` pairs hold nothing but audio, `per_segment` pairs also text.

    Args:
        ids: Id stream of one prompt or one answer.
        special: Ids of the markers.
        markers: How the stream was interleaved.
        count_markers: Text may cut a group, so groups are checked per marker pair with the text taken out.

    Raises:
        ContractError: Names the position of the first fault.
        ConfigError: `markers` need ids that `special` lacks.
    """
    stream = as_ids(ids)
    audio = is_audio(stream)
    pairs = _marker_pairs(stream, special, markers)
    if markers != "none":
        _check_pairs(stream, audio, pairs, allow_text=markers == "per_segment")
    _check_runs(stream, audio, pairs if count_markers and markers == "per_segment" else _runs_of(audio))
    return stream


def _runs_of(mask: Mask) -> Indices:
    edges = np.flatnonzero(np.diff(mask, prepend=False, append=False))
    return edges.reshape(-1, 2).astype(np.int64)


def _marker_pairs(stream: Ids, special: SpecialTokens, markers: Markers) -> Indices:
    """Returns the positions of start and end of every marker pair, shape (num_pairs, 2)."""
    start, end = special.get("audio_start"), special.get("audio_end")
    if markers != "none":
        start, end = special["audio_start"], special["audio_end"]
    wanted = [number for number in (start, end) if number is not None]
    positions = np.flatnonzero(np.isin(stream, np.array(wanted, np.int32)))
    if markers == "none":
        if positions.size:
            raise ContractError(f"audio marker at position {positions[0]}, but markers are configured as 'none'")
        return positions.reshape(-1, 2)
    opens = stream[positions] == start
    wrong = np.flatnonzero(opens != (np.arange(opens.size) % 2 == 0))
    if wrong.size or opens.size % 2:
        position = int(positions[wrong[0] if wrong.size else -1])
        raise ContractError(
            f"unbalanced audio marker {stream[position]} at position {position}: starts and ends alternate"
        )
    return positions.reshape(-1, 2).astype(np.int64)


def _check_pairs(stream: Ids, audio: Mask, pairs: Indices, *, allow_text: bool) -> None:
    steps = np.zeros(stream.size + 1, np.int8)
    steps[pairs[:, 0] + 1] = 1
    steps[pairs[:, 1]] -= 1
    inside = np.cumsum(steps[:-1], dtype=np.int8) > 0
    stray = np.flatnonzero(audio & ~inside if allow_text else audio != inside)
    if stray.size:
        where = "outside its markers" if audio[stray[0]] else "inside audio markers, where only audio may be"
        raise ContractError(f"id {stream[stray[0]]} at position {stray[0]} lies {where}; re-interleave the record")
    count = np.concatenate([[0], np.cumsum(audio)])
    empty = np.flatnonzero(count[pairs[:, 1]] == count[pairs[:, 0]])
    if empty.size:
        raise ContractError(f"audio markers at position {pairs[empty[0], 0]} hold no audio; drop the empty pair")


def _check_runs(stream: Ids, audio: Mask, spans: Indices) -> None:
    """Checks the 2:3 layout of the audio in each span; text inside a span does not move the phase."""
    positions = np.flatnonzero(audio)
    first = np.searchsorted(positions, spans[:, 0])
    lengths = np.searchsorted(positions, spans[:, 1]) - first
    phase = (np.arange(positions.size) - np.repeat(first, lengths)) % GROUP_SIZE
    _raise_first_fault(stream[positions], phase, positions)
    ragged = np.flatnonzero(lengths % GROUP_SIZE)
    if ragged.size:
        _require_whole_groups(int(lengths[ragged[0]]), int(positions[first[ragged[0]]]))


def _raise_first_fault(ids: Ids, phase: Indices, positions: Indices) -> None:
    wrong = np.where(phase < LINGUISTIC_PER_GROUP, ~is_linguistic(ids), ~is_semantic(ids))
    if not wrong.any():
        return
    fault = int(np.argmax(wrong))
    expected = "vq02 (65536..66559)" if phase[fault] < LINGUISTIC_PER_GROUP else "vq06 (66560..70655)"
    raise ContractError(
        f"id {ids[fault]} at position {positions[fault]} (place {phase[fault]} of its group of 5) should be "
        f"{expected}; an id was lost, added or swapped here or before: lay the codes out again"
    )


def _require_whole_groups(length: int, start: int) -> None:
    if length % GROUP_SIZE:
        raise ContractError(
            f"audio run of {length} ids starting at position {start} ends inside a group of 5: "
            f"{length % GROUP_SIZE} ids are left over; cut to {length - length % GROUP_SIZE} or lay out again"
        )
