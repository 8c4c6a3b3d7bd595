"""The funnel of hours, the work of each stage, and what did not make it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data_engine.report.counting import Smallest, Tally, groups
from data_engine.report.reading import PLACE, Reader
from data_engine.report.tables import Candidates, Clips, Examples, Pairs

EXAMPLES = 3
"""Different examples shown of each reject code."""
_LOOKED_AT = 8
_DETAIL = 240


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a funnel.

    Attributes:
        name: What is counted.
        unit: What a row of it is.
        rows: How many; None where only seconds are known.
        seconds: Audio in them; None where rows carry none.
        note: What the reader must know to read the number.
    """

    name: str
    unit: str
    rows: int | None
    seconds: float | None
    note: str = ""


def curate_funnel(run: Mapping[str, Any], speech: Tally, segments: Clips, voices: Tally) -> list[Level]:
    """Returns recordings -> speech -> segments -> kept -> voices; empty when curate did not run."""
    decoded = stage(run, "curate", "decode")
    if not decoded and not speech.rows and not segments.every.rows:
        return []
    listed = [Level("Listed", "sources", decoded["rows_in"], None)] if decoded else []
    audio = [Level("Decoded", "recordings", decoded["rows_out"], decoded["seconds_out"])] if decoded else []
    kept = "decision of the filter policy; dropped segments stay in the table"
    return [
        *listed,
        *audio,
        Level("Speech", "recordings with speech", speech.rows, speech.seconds, "found by voice activity detection"),
        Level("Segments", "segments", segments.every.rows, segments.every.seconds, "one speaker each"),
        Level("Kept", "segments", segments.passed.rows, segments.passed.seconds, kept),
        Level("Voices", "voices", voices.rows, voices.seconds, "prompts of 3 to 15 s"),
    ]


def synthesize_funnel(reader: Reader, candidates: Candidates, examples: Examples, pairs: Pairs) -> list[Level]:
    """Returns dialogues -> takes -> passing -> selected -> examples -> pairs; empty without any of them."""
    takes, scripts = candidates.clips, reader.rows("scripts")
    if not (scripts or takes.every.rows or examples.every.rows or pairs.rows):
        return []
    said = "answers and their worse alternatives, several takes of each"
    seen = "query and answer; one take may stand in several examples"
    return [
        Level("Dialogues", "dialogues", scripts, None, "as written, before anything is spoken"),
        Level("Candidates", "takes", takes.every.rows, takes.every.seconds, said),
        Level("Passing", "takes", takes.passed.rows, takes.passed.seconds, "pass every gate"),
        Level("Selected", "takes", candidates.selected.rows, candidates.selected.seconds, "best passing take"),
        Level("AQAA", "examples", examples.every.rows, examples.every.seconds, seen),
        Level("Pairs", "preference pairs", pairs.rows, None, "a better and a worse answer"),
    ]


def stages(run: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields the pipeline and the totals of each stage, in order."""
    for pipeline, state in run.get("pipelines", {}).items():
        for stats in state.get("stages", []):
            yield pipeline, stats


def stage(run: Mapping[str, Any], pipeline: str, name: str) -> Mapping[str, Any]:
    """Returns the totals of a stage; empty when it did not run."""
    return next((s for p, s in stages(run) if p == pipeline and s["stage"] == name), {})


@dataclass(frozen=True, slots=True)
class Rejected:
    """Rejects of one stage for one reason.

    Attributes:
        examples: Detail, exception and input reference of a few of them.
    """

    pipeline: str
    stage: str
    code: str
    rows: int
    examples: Sequence[Mapping[str, Any]]


def read_rejects(reader: Reader) -> list[Rejected]:
    """Returns rejects by pipeline, stage and code, most first within a stage, with the same examples on every run."""
    counts: Counter[tuple[str, str, str]] = Counter()
    chosen: dict[tuple[str, str, str], Smallest] = {}
    pipelines = [name.split("/")[1].split(".")[0] for name in reader.parts("rejects")]
    for rows in reader.chunks("rejects", ["record_id", "stage", "code"]):
        for key, mask in groups(_keys(rows, pipelines)):
            pipeline, stage_name, code = key.split("\x1f")
            counts[pipeline, stage_name, code] += int(mask.sum())
            chosen.setdefault((pipeline, stage_name, code), Smallest(_LOOKED_AT)).add(rows, "record_id", mask)
    order = {(pipeline, stats["stage"]): number for number, (pipeline, stats) in enumerate(stages(reader.run))}
    keys = sorted(counts, key=lambda k: (order.get(k[:2], len(order)), -counts[k], k))
    return [Rejected(*key, counts[key], _examples(reader, chosen[key])) for key in keys]


def _keys(rows: pa.Table, pipelines: Sequence[str]) -> Any:
    pipeline = pc.take(pa.array(pipelines, pa.string()), rows.column(PLACE[0]))
    return pc.binary_join_element_wise(pipeline, rows.column("stage"), rows.column("code"), "\x1f")


def _examples(reader: Reader, chosen: Smallest) -> list[dict[str, Any]]:
    columns = ("record_id", "detail", "exception", "input_ref")
    rows = (reader.row("rejects", place, columns) for _, place in chosen.kept)
    different = {(row["detail"], row["input_ref"]): {**row, "detail": _cut(row["detail"])} for row in rows if row}
    return list(different.values())[:EXAMPLES]


def _cut(text: str) -> str:
    return text if len(text) <= _DETAIL else text[:_DETAIL] + " …"
