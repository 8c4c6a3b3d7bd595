"""Turns of speakers: joining, numbering, cutting and padding them; functions of sample positions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

from data_engine.stages.rules.cutting import Span, Spans, as_spans, covered_share, pad_spans, split_span, whole_frames
from data_engine.stages.rules.stretches import united

FindQuietIn = Callable[[int, int, int], int | None]
"""Channel, first and last sample -> the quietest place there."""


@dataclass(frozen=True, slots=True, order=True)
class Turn:
    """One stretch of one speaker, in samples; `end` is the sample after the last."""

    channel: int
    start: int
    end: int
    speaker: int


def join_turns(turns: Sequence[Turn], gap: int) -> list[Turn]:
    """Joins turns of one speaker on one channel that overlap, or are at most `gap` samples apart.

    A gap in which another speaker is heard on that channel is never bridged.

    Returns:
        Turns by channel and start; those of one speaker on one channel never overlap.
    """
    joined: list[Turn] = []
    latest: dict[tuple[int, int], int] = {}
    for turn in sorted(turns):
        key = turn.channel, turn.speaker
        last = joined[latest[key]] if key in latest else None
        others = [joined[at].end for other, at in latest.items() if other[0] == turn.channel and other != key]
        reach = -1 if last is None else last.end if max(others, default=0) > last.end else last.end + gap
        if last is not None and turn.start <= reach:
            joined[latest[key]] = Turn(last.channel, last.start, max(last.end, turn.end), last.speaker)
        else:
            latest[key] = len(joined)
            joined.append(turn)
    return joined


def number_speakers(turns: Sequence[Turn]) -> list[Turn]:
    """Numbers speakers from 0 by their first appearance in the recording; earlier channels first."""
    numbers: dict[int, int] = {}
    for turn in sorted(turns, key=lambda turn: (turn.start, turn.channel)):
        numbers.setdefault(turn.speaker, len(numbers))
    return [Turn(t.channel, t.start, t.end, numbers[t.speaker]) for t in turns]


def whole_turn(turns: Sequence[Turn], longest: int) -> list[Turn] | None:
    """Returns the one turn around all turns; None when they are of two speakers or channels, or too far apart."""
    first, last = min(turn.start for turn in turns), max(turn.end for turn in turns)
    if len({(turn.channel, turn.speaker) for turn in turns}) > 1 or last - first > longest:
        return None
    return [Turn(turns[0].channel, first, last, turns[0].speaker)]


def overlaps_apart(turns: Sequence[Turn], shortest: int) -> list[Turn]:
    """Returns turns cut where another speaker of their channel begins or ends to speak at the same time.

    Args:
        turns: As `join_turns` returns them.
        shortest: Overlaps of fewer samples stay inside their turn.

    Returns:
        The same speech in turns that are either overlapped as a whole or hardly at all, by channel and start.
    """
    found: list[Turn] = []
    for turn in turns:
        others = [(max(o.start, turn.start), min(o.end, turn.end)) for o in turns
                  if o.channel == turn.channel and o.speaker != turn.speaker]  # fmt: skip
        shared = [(start, end) for start, end in united([span for span in others if span[1] > span[0]])
                  if end - start >= shortest]  # fmt: skip
        edges = sorted({turn.start, turn.end, *(edge for span in shared for edge in span)})
        found += [Turn(turn.channel, start, end, turn.speaker) for start, end in pairwise(edges)]
    return sorted(found)


def cut_turns(
    turns: Sequence[Turn],
    pauses: Mapping[int, Spans],
    shortest: int,
    longest: int,
    find_quiet: FindQuietIn | None = None,
) -> list[Turn]:
    """Returns the segments of joined turns: short turns left out, long ones split.

    Args:
        turns: As `join_turns` returns them.
        pauses: Silences of each channel.
        shortest: Samples.
        longest: Samples.
        find_quiet: Hears the sound of a channel.

    Returns:
        Segments by channel and start.
    """
    found: list[Turn] = []
    for turn in sorted(turns):
        if turn.end - turn.start >= shortest:
            quiet = partial(find_quiet, turn.channel) if find_quiet else None
            known = pauses.get(turn.channel, as_spans(()))
            pieces = split_span((turn.start, turn.end), known, shortest, longest, quiet)
            found += [Turn(turn.channel, start, end, turn.speaker) for start, end in pieces]
    return sorted(found)


def pad_segments(
    segments: Sequence[Turn], turns: Sequence[Turn], regions: Mapping[int, Sequence[Span]], pad: int, longest: int,
    num_samples: int, frame: int = 1, shortest: int | None = None,
) -> list[Turn]:  # fmt: skip
    """Returns the segments with silence before and after them, in whole frames where they can give the rest.

    Two speakers who talk over each other for exactly the same samples give one segment, of the first of them: a
    segment is what its samples are.

    Args:
        segments: As `cut_turns` returns them.
        turns: All turns, those that gave no segment too.
        regions: Speech regions of each channel; what lies in one without a turn is speech nobody was found for.
        pad: Samples at most.
        longest: Samples a segment may have.
        num_samples: Samples of the recording.
        frame: Samples of a frame.
        shortest: As in `whole_frames`.

    Returns:
        Segments by channel and start.
    """
    widened: dict[tuple[int, int, int], Turn] = {}
    for channel, speaker in sorted({(s.channel, s.speaker) for s in segments}):
        mine = as_spans([(s.start, s.end) for s in segments if (s.channel, s.speaker) == (channel, speaker)])
        spoken = as_spans([(t.start, t.end) for t in turns if t.channel == channel])
        nobodys = [region for region in regions.get(channel, ()) if covered_share(region, spoken) == 0.0]
        apart = [
            (t.start, t.end) for t in turns
            if t.channel == channel and (t.speaker != speaker or covered_share((t.start, t.end), mine) == 0.0)
        ]  # fmt: skip
        speech = as_spans([*map(tuple, mine.tolist()), *apart, *nobodys])
        padded = pad_spans(mine, speech, pad, longest, num_samples)
        for start, end in whole_frames(padded, mine, frame, shortest).tolist():
            widened.setdefault((channel, start, end), Turn(channel, start, end, speaker))
    return sorted(widened.values())


def overlap_ratio(segment: Turn, turns: Sequence[Turn]) -> float:
    """Returns the share of a segment in which another speaker of its channel is heard too."""
    others = [(t.start, t.end) for t in turns if t.channel == segment.channel and t.speaker != segment.speaker]
    return covered_share((segment.start, segment.end), as_spans(others))
