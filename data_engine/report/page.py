"""The HTML report of a run: one page that needs nothing else, for a browser, a phone or a printer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from data_engine.io.storage import Storage
from data_engine.report import funnel, settings, wording
from data_engine.report.control import CONTROLS, median_factor
from data_engine.report.counting import Tally
from data_engine.report.distributions import Figure, control_figure, figures
from data_engine.report.reading import PLACE, Reader
from data_engine.report.samples import read_samples
from data_engine.report.tables import (
    Candidates,
    Clips,
    Examples,
    Pairs,
    read_candidates,
    read_examples,
    read_pairs,
    read_segments,
    read_speech_seconds,
)
from data_engine.report.totals import TOTALS, Counts, count_totals

PAGE = "report/index.html"
_VOICES = 40
_VOICE = (
    "voice_id", "speaker_id", "language", "licence", "consent_basis", "allowed_uses", "num_samples", "sample_rate",
    "f0_median_hz", "speaking_rate", "dnsmos_ovr", "score",
)  # fmt: skip
_TEMPLATES = Path(__file__).parent / "templates"
_CONTROL_CHARACTERS = dict.fromkeys([*range(9), 11, 12, *range(14, 32), 127], "\N{REPLACEMENT CHARACTER}")


@dataclass(frozen=True, slots=True)
class Findings:
    """What one pass over the tables found, and the totals."""

    segments: Clips
    candidates: Candidates
    examples: Examples
    pairs: Pairs
    voices: Tally
    voice_rows: list[dict[str, Any]]
    speech: Tally


def write_report(storage: Storage, run: Mapping[str, Any], totals: Mapping[str, Any] | None = None) -> str:
    """Writes the report of a run into its output folder.

    Args:
        storage: Output folder.
        run: Content of `run.json`; of a run that has not ended, what `runners.books.read_run` returns.
        totals: The summary `Totals` over its parts, where a runner has made it; none: it is made here.

    Returns:
        Name of the page inside the folder.

    Raises:
        StorageError: The page cannot be written. Parts that cannot be read are named on the page instead.
    """
    totals = totals if totals is not None else count_totals(storage, run)
    storage.write_json(TOTALS, totals)
    storage.write(PAGE, render(storage, run, totals).encode("utf-8", "replace"))
    return PAGE


def render(storage: Storage, run: Mapping[str, Any], totals: Mapping[str, Any] | None = None) -> str:
    """Returns the page as text; everything that comes from the run is escaped."""
    reader = Reader(storage, run)
    found = _findings(reader, Counts(totals if totals is not None else count_totals(storage, run)))
    context = {
        "run": run,
        "title": run.get("config", {}).get("name") or storage.uri.rstrip("/").rsplit("/", 1)[-1],
        "folder": storage.uri,
        **_run_parts(run, reader, found),
        **_figures(run, found),
        "found": found,
        "samples": read_samples(reader, found.segments, found.candidates, found.pairs),
        "problems": reader.problems,
        "tables": [(name, reader.rows(name), len(reader.parts(name))) for name in run.get("tables", {})],
    }
    page = environment().get_template("report.html.j2").render(context)
    return page.translate(_CONTROL_CHARACTERS)


def environment() -> Environment:
    """Returns the template environment: everything is escaped, an unknown name is an error."""
    loaded = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    names = ("duration", "count", "share", "number", "factor", "speed", "plural", "short")
    loaded.filters |= {name: getattr(wording, name) for name in names}
    loaded.filters["octaves"] = median_factor
    return loaded


def _findings(reader: Reader, counts: Counts) -> Findings:
    return Findings(
        segments=read_segments(reader, counts),
        candidates=read_candidates(reader, counts),
        examples=read_examples(reader, counts),
        pairs=read_pairs(reader, counts),
        voices=counts.every("voices"),
        voice_rows=_best_voices(reader),
        speech=read_speech_seconds(reader),
    )


def _best_voices(reader: Reader) -> list[dict[str, Any]]:
    """Returns the best voices, by score and id."""
    best: list[dict[str, Any]] = []
    for rows in reader.chunks("voices", _VOICE):
        chosen = rows.drop_columns(list(PLACE)).sort_by([("score", "descending"), ("voice_id", "ascending")])
        best += chosen.slice(0, _VOICES).to_pylist()
    best.sort(key=lambda row: (-row["score"], row["voice_id"]))
    return best[:_VOICES]


def _run_parts(run: Mapping[str, Any], reader: Reader, found: Findings) -> dict[str, Any]:
    config = run.get("config", {})
    pipelines = run.get("pipelines", {})
    return {
        "settings": [*settings.main_settings(config), *settings.filter_results(pipelines)],
        "back_ends": settings.back_ends(config),
        "config_json": settings.as_json(config),
        "curated": funnel.curate_funnel(run, found.speech, found.segments, found.voices),
        "synthesized": funnel.synthesize_funnel(reader, found.candidates, found.examples, found.pairs),
        "stages": list(funnel.stages(run)),
        "dead": [(name, shard) for name, state in pipelines.items() for shard in state.get("dead", [])],
        "rejects": funnel.read_rejects(reader),
        "unused": [
            (pipeline, stats["stage"], reason, rows)
            for pipeline, stats in funnel.stages(run)
            for reason, rows in stats.get("unused_reasons", {}).items()
        ],
    }


def _figures(run: Mapping[str, Any], found: Findings) -> dict[str, Any]:
    control = found.candidates.control
    ordered = {name: control.ordered(name) for name in CONTROLS}
    drawn: list[Figure | None] = [
        control_figure("Tempo by speed asked for", ordered["speed"], "tempo"),
        control_figure("Tempo by emotion asked for", ordered["emotion"], "tempo"),
        control_figure("Pitch by emotion asked for", ordered["emotion"], "pitch"),
    ]
    limits = settings.gate_limits(run.get("config", {}))
    return {
        "segment_figures": figures(found.segments, "segments", {}),
        "take_figures": figures(found.candidates.clips, "takes", limits),
        "control": ordered,
        "control_figures": [figure for figure in drawn if figure is not None],
    }
