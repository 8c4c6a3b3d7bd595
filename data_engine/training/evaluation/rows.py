"""The table: rows in the order they are printed, their measures and what is asked of each."""

from __future__ import annotations

from dataclasses import dataclass

from data_engine.training.evaluation.figures import Sense, Target


@dataclass(frozen=True, slots=True)
class Measure:
    """One line of the table; `key` is its name within the row."""

    key: str
    text: str
    target: Target


@dataclass(frozen=True, slots=True)
class Row:
    """Measures that are computed together.

    Attributes:
        function: `module:function` of this package; takes the bench, returns what it found by key.
        measures: Lines of the table.
    """

    function: str
    measures: tuple[Measure, ...]


def _share(sense: Sense, floor: float, asked: float | None = None) -> Target:
    return Target(sense, floor, asked, "%")


def _points(sense: Sense, floor: float, asked: float | None = None) -> Target:
    return Target(sense, floor, asked, "points")


ROWS: dict[str, Row] = {
    "linguistic": Row("tokenizers:linguistic", (
        Measure("teachers", "linguistic PER, held-out sentences, teacher voices", _share("<=", 0.15, 0.08)),
        Measure("real", "linguistic PER, real speech, held-out adults", _share("<=", 0.40, 0.28)),
    )),
    "codes": Row("tokenizers:codes", (
        Measure("linguistic_used", "linguistic codes used, of 1,024", Target(">=", 1000)),
        Measure("linguistic_perplexity", "perplexity of linguistic codes", Target(">=", 600)),
        Measure("pnmi", "PNMI of linguistic codes and phones", Target(">=", 0.80)),
        Measure("semantic_used", "semantic codes used, of 4,096", Target(">=", 2000)),
    )),
    "semantic": Row("tokenizers:semantic", (
        Measure("teachers", "semantic PER from codes alone, teacher voices", _share("<=", 0.28, 0.18)),
        Measure("real", "semantic PER from codes alone, real speech", _share("<=", 0.50, 0.35)),
    )),
    "rebuilt": Row("rebuilding:rebuilt", (
        Measure("teachers_wer", "tokens to wave: WER over the original's, teacher voices", _points("<=", 0.15, 0.06)),
        Measure("real_wer", "tokens to wave: WER over the original's, real speech", _points("<=", 0.30, 0.15)),
        Measure("teachers_similarity", "speaker similarity to the original, teacher voices", Target(">=", 0.84, 0.90)),
        Measure("real_similarity", "speaker similarity to the original, real speech", Target(">=", 0.68, 0.75)),
    )),
    "shuffled": Row("rebuilding:shuffled", (
        Measure("wer", "control: WER of shuffled tokens", _share(">=", 0.95)),
    )),
    "probes": Row("probes:linear", (
        Measure("phones", "S1a (b): linear phone probe, vq02 over vq06", _points(">=", 0.05)),
        Measure("prosody", "S1a (b): F0 and energy probe R2, vq06 over vq02", Target(">=", 0.1)),
    )),
    "language-model": Row("code_models:bits", (
        Measure("bits", "S1a (c): bits per second, 2:3 interleave over two single streams", Target("<=", 0.97)),
    )),
    "phone-head": Row("code_models:phone_heads", (
        Measure("ratio", "S1a (d): phone errors of a CTC head, interleaved ids over vq06 alone", Target("<=", 0.9)),
    )),
    "recognizer": Row("speaking:recognizer", (
        Measure("wer", "recognizer WER on the demo's synthetic speech", _share("<=", 0.15, 0.06)),
    )),
    "speaker-lm": Row("speaking:text_to_speech", (
        Measure("wer", "speaker LM, text to speech, closed domain: WER over the teacher's", _points("<=", 0.25, 0.10)),
    )),
    "answers": Row("speaking:spoken_answers", (
        Measure("gain", "AQTAA 10:15 interleave over audio alone, closed QA world", _points(">=", 0.20)),
    )),
    "int8": Row("tokenizers:int8", (
        Measure("linguistic", "int8 against fp32: linguistic ids equal", Target(">=", 0.99)),
        Measure("semantic", "int8 against fp32: semantic ids equal", Target(">=", 0.99)),
    )),
    "speed": Row("speed:real_time", (
        Measure("tokenize", "real-time factor of one core, tokenize", Target("<=", 0.02)),
        Measure("decode", "real-time factor of one core, decode", Target("<=", 0.15)),
    )),
    "one-by-one": Row("speed:over_one_by_one", (
        Measure("chunks", "tokenizing: Step-Audio's procedure, 240 ms chunks, over ours", Target(">=", 3, 6, "x")),
        Measure("whole", "tokenizing: the same with whole clips (same codes), over ours", Target(">=", 3, 6, "x")),
    )),
}  # fmt: skip
"""vLLM's throughput has a command of its own: it needs another environment."""
