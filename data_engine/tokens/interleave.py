"""Text and audio of one answer as one id stream: 10 text ids, 15 audio ids, in turn.

The audio chunk of 15 is three whole groups of the dual-codebook layout, so text : vq02 : vq06 is 10 : 6 : 9.
The ratio and the markers `<audio_start>`/`<audio_end>` are published (Step-Audio-AQAA, arXiv 2506.08967);
where the markers sit and what happens when one side runs out are not, so both are settings.
Work is done on whole blocks: full rounds are one 2-D copy and the few markers are one insertion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from data_engine.core.errors import ConfigError, ContractError
from data_engine.tokens.runs import GROUP_SIZE, Indices, Markers, validate_run
from data_engine.tokens.vocabulary import TEXT_SIZE, Ids, SpecialTokens, as_ids, is_audio

Tail = Literal["run", "pad", "stop"]
MultiSegment = Literal["pre_interleaved", "marker_removal", "marker_preserving"]
Segment = tuple[Any, Any]

_RESERVED = ("audio_start", "audio_end", "pad", "end_of_turn")


@dataclass(frozen=True)
class Interleaving:
    """Settings of the interleaver. K = ceil(text / num_text) is the number of text chunks.

    Attributes:
        num_text: Text ids per round.
        num_audio: Audio ids per round; a multiple of 5 so that chunks are whole groups.
        markers: `per_chunk` wraps every stretch of audio between two text chunks; `per_segment` puts one
            start before a segment's first audio id and one end after its last, text between them allowed.
        tail: What happens once the text is used up.
            `run`: after the K-th text chunk all remaining audio follows in one stretch.
            `pad`: text is filled with the pad id until every audio chunk has num_text ids before it, so the
            ratio holds to the end (as Step-Audio 2, arXiv 2507.16632). Needs a `pad` id.
            `stop`: audio is cut to K * num_audio ids, so that none follows without text before it. Lossy;
            without text no audio is left.
            When the audio is used up first, the remaining text follows in one stretch under every rule.
        multi_segment: Join of a multi-tag answer (Step-Audio-AQAA, arXiv 2506.08967).
            `pre_interleaved`: interleave each segment, then concatenate.
            `marker_removal`: concatenate texts, concatenate audio, interleave as one segment.
            `marker_preserving`: the same, but every segment keeps its own markers, so that a pair never holds
            audio of two segments. With `per_chunk` a stretch that crosses a segment border is split there.
        count_markers: Count `per_segment` markers as items of the audio chunk. Chunks may then cut a group.
        end_of_turn: Append the end-of-turn id.
    """

    num_text: int = 10
    num_audio: int = 15
    markers: Markers = "per_chunk"
    tail: Tail = "run"
    multi_segment: MultiSegment = "marker_preserving"
    count_markers: bool = False
    end_of_turn: bool = True

    def __post_init__(self) -> None:
        if self.num_text < 1 or self.num_audio < 1 or self.num_audio % GROUP_SIZE:
            raise ConfigError(
                f"num_text={self.num_text}, num_audio={self.num_audio}: need num_text >= 1 and num_audio a "
                f"positive multiple of {GROUP_SIZE}, else every chunk cuts a group of the audio layout"
            )
        if self.count_markers and self.markers != "per_segment":
            raise ConfigError(
                f"count_markers needs markers='per_segment', not {self.markers!r}: chunk markers are set "
                "after the chunk is cut and cannot count towards it"
            )
        _require_choice("markers", self.markers, ("per_chunk", "per_segment", "none"))
        _require_choice("tail", self.tail, ("run", "pad", "stop"))
        _require_choice("multi_segment", self.multi_segment, ("pre_interleaved", "marker_removal", "marker_preserving"))


def interleave(text_ids: Any, audio_ids: Any, special: SpecialTokens, settings: Interleaving) -> Ids:
    """Interleaves one text and one audio run (Step-Audio-AQAA, arXiv 2506.08967: 10 text, 15 audio).

    Args:
        text_ids: Ids 0..65535, shape (t,), free of markers, pad and end of turn.
        audio_ids: A valid audio run, shape (5 * groups,).
        special: Ids of markers, pad and end of turn as far as `settings` use them.
        settings: Ratio, markers, tail rule.

    Returns:
        int32 id stream.

    Raises:
        ContractError: Text holds a reserved or audio id, or audio is no valid run.
        ConfigError: An id that the settings need is not configured.
    """
    return interleave_segments([(text_ids, audio_ids)], special, settings)


def interleave_segments(segments: Sequence[Segment], special: SpecialTokens, settings: Interleaving) -> Ids:
    """Interleaves the (text ids, audio ids) segments of one multi-tag answer by `settings.multi_segment`.

    With one segment the three joins agree. Source: Step-Audio-AQAA (arXiv 2506.08967), concatenation of
    multi-tag answers.

    Raises:
        ContractError: No segment, or a segment `interleave` refuses (its index is named).
        ConfigError: An id that the settings need is not configured.
    """
    if not segments:
        raise ContractError("interleave_segments got no segment; an answer has at least one")
    checked = [_checked(segment, index, special) for index, segment in enumerate(segments)]
    texts, audios = [text for text, _ in checked], [audio for _, audio in checked]
    if settings.multi_segment == "pre_interleaved":
        one = replace(settings, end_of_turn=False)
        stream = np.concatenate([_joined([text], [audio], special, one) for text, audio in checked])
    elif settings.multi_segment == "marker_removal":
        stream = _joined(texts, [np.concatenate(audios)], special, settings)
    else:
        stream = _joined(texts, audios, special, settings)
    return np.append(stream, np.int32(special.end_of_turn)) if settings.end_of_turn else stream


def split_interleaved(ids: Any, special: SpecialTokens) -> tuple[Ids, Ids]:
    """Returns the (text ids, audio ids) of an interleaved answer; markers, pad and end of turn are dropped.

    Lossless inverse of `interleave` and `interleave_segments` (segments come back concatenated) for the tail
    rules `run` and `pad`; after `stop` the cut audio is gone.

    Raises:
        ContractError: An id is outside the vocabulary.
    """
    stream = as_ids(ids)
    audio = is_audio(stream)
    return stream[~(audio | _is_reserved(stream, special))], stream[audio]


def _joined(texts: Sequence[Ids], audios: Sequence[Ids], special: SpecialTokens, settings: Interleaving) -> Ids:
    """Interleaves concatenated texts with concatenated audio, each of `audios` in markers of its own."""
    text, audio = np.concatenate(texts), np.concatenate(audios)
    if settings.tail == "stop":
        audio = audio[: _kept_audio(text.size, audios, settings)]
    starts, ends = _segment_bounds(audios, audio.size)
    stream = audio
    if settings.count_markers:
        stream = _insert_markers(audio, starts, ends, special)
    if settings.tail == "pad":
        short = settings.num_text * -(-stream.size // settings.num_audio) - text.size
        text = np.concatenate([text, np.full(max(short, 0), special["pad"], np.int32)])
    if settings.markers == "per_chunk":
        return _split_at_borders(_merge(text, stream, settings, special), starts[1:], text.size, special, settings)
    merged = _merge(text, stream, settings, None)
    if settings.markers == "none" or settings.count_markers:
        return merged
    first = starts + _text_before(_chunks(starts, text.size, settings), text.size, settings)
    last = ends - 1 + _text_before(_chunks(ends - 1, text.size, settings), text.size, settings)
    return _insert_markers(merged, first, last + 1, special)


def _merge(text: Ids, stream: Ids, settings: Interleaving, special: SpecialTokens | None) -> Ids:
    """Alternates chunks; after the last text chunk the whole rest of the stream follows, and vice versa.

    With `special`, every stretch of the stream is wrapped in markers.
    """
    opening, closing = _edge(special, "audio_start"), _edge(special, "audio_end")
    full = max(min(-(-text.size // settings.num_text) - 1, stream.size // settings.num_audio), 0)
    text_end, stream_end = full * settings.num_text, full * settings.num_audio
    after = text_end + settings.num_text
    rounds = [
        text[:text_end].reshape(full, settings.num_text),
        np.broadcast_to(opening, (full, opening.size)),
        stream[:stream_end].reshape(full, settings.num_audio),
        np.broadcast_to(closing, (full, closing.size)),
    ]
    rest = stream[stream_end:]
    if rest.size:
        rest = np.concatenate([opening, rest, closing])
    return np.concatenate([np.concatenate(rounds, axis=1).reshape(-1), text[text_end:after], rest, text[after:]])


def _split_at_borders(
    merged: Ids, borders: Indices, text_size: int, special: SpecialTokens, settings: Interleaving
) -> Ids:
    """Ends and restarts the markers where a segment begins inside a wrapped stretch of audio."""
    chunks = _chunks(borders, text_size, settings)
    inner = borders != chunks * settings.num_audio
    if not inner.any():
        return merged
    # Before an audio id: its audio, its text, a marker pair per earlier chunk and its own start marker.
    before = borders + _text_before(chunks, text_size, settings) + 2 * chunks + 1
    return _insert_markers(merged, before[inner], before[inner], special)


def _edge(special: SpecialTokens | None, name: str) -> Ids:
    return np.array([] if special is None else [special[name]], np.int32)


def _chunks(index: Indices, text_size: int, settings: Interleaving) -> Indices:
    """Returns the chunk that holds each stream item; the last one takes the whole rest."""
    last: int = max(-(-text_size // settings.num_text) - 1, 0)
    return np.minimum(index // settings.num_audio, last)


def _text_before(chunks: Indices, text_size: int, settings: Interleaving) -> Indices:
    return np.minimum((chunks + 1) * settings.num_text, text_size)


def _segment_bounds(audios: Sequence[Ids], limit: int) -> tuple[Indices, Indices]:
    """Returns starts and ends of the non-empty segments inside the first `limit` audio ids."""
    ends = np.cumsum([audio.size for audio in audios])
    starts = np.minimum(np.concatenate([[0], ends[:-1]]), limit)
    ends = np.minimum(ends, limit)
    return starts[starts < ends], ends[starts < ends]


def _kept_audio(text_size: int, audios: Sequence[Ids], settings: Interleaving) -> int:
    """Returns how many audio ids the tail rule `stop` keeps: those in the text rounds, whole groups only."""
    items = -(-text_size // settings.num_text) * settings.num_audio
    total = sum(audio.size for audio in audios)
    if not settings.count_markers:
        return min(items, total)
    starts, ends = _segment_bounds(audios, total)
    # Items before a segment's first id: the audio before it, two markers per earlier segment and its own
    # start marker. One more item is kept back for the end marker of a segment that is cut.
    room = np.clip(items - 2 * np.arange(starts.size) - 2 - starts, 0, ends - starts)
    return int(np.sum(room // GROUP_SIZE * GROUP_SIZE))


def _insert_markers(stream: Ids, starts: Indices, ends: Indices, special: SpecialTokens) -> Ids:
    """Inserts start markers before `starts` and end markers before `ends`, ends first where both meet."""
    markers = np.repeat(np.array([special["audio_end"], special["audio_start"]], np.int32), starts.size)
    return np.insert(stream, np.concatenate([ends, starts]), markers)


def _checked(segment: Segment, index: int, special: SpecialTokens) -> tuple[Ids, Ids]:
    text = as_ids(segment[0], f"text ids of segment {index}", TEXT_SIZE)
    reserved = np.flatnonzero(_is_reserved(text, special))
    if reserved.size:
        raise ContractError(
            f"text of segment {index} holds reserved id {text[reserved[0]]} at position {reserved[0]}; "
            "markers, pad and end of turn are added here, so encode the text without special tokens"
        )
    try:
        return text, validate_run(segment[1])
    except ContractError as error:
        raise ContractError(f"audio of segment {index}: {error}") from error


def _is_reserved(ids: Ids, special: SpecialTokens) -> npt.NDArray[np.bool_]:
    numbers = [number for number in map(special.get, _RESERVED) if number is not None]
    return np.isin(ids, np.array(numbers, np.int32), kind="table")


def _require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name}={value!r} is unknown; choose one of {', '.join(choices)}")
