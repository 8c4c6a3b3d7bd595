"""Select: gates and ranks the takes of each turn, and marks the one that is used. Every candidate stays a row."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from data_engine.core.config import Settings, speed_knob
from data_engine.core.schema import load_schema
from data_engine.core.stage import BatchHint, StageResult, StageSpec, Worker, column, concat
from data_engine.stages.rules.dialogue import DialogueStream, Row
from data_engine.stages.rules.gates import MEASURES, Gates, Weights, components, composite, gate

_DECIDED = ("score", "decision", "reasons", "rank", "selected")
_READ = ("candidate_id", "turn", "variant", "take", "num_groups", *MEASURES)


class Select:
    """Decides over the takes of a dialogue: gates, composite score, rank, and the selected take of each text.

    Consumes: candidate_id, dialogue_id, turn, role, variant, variant_axis, take, language, split, text, context,
        emotion, level, dialect, speed, voice_id, licence, consent_basis, allowed_uses, seed, generator,
        generator_revision, generator_params, is_synthetic, audio, num_samples, sample_rate, dnsmos_sig, dnsmos_bak,
        dnsmos_ovr, snr_db, clipping_ratio, bandwidth_hz, energy_dbfs, f0_median_hz, f0_std_semitones, voiced_ratio,
        speaking_rate, silence_ratio, rate_ratio, pitch_ratio, heard, word_error_rate, speaker_similarity,
        longest_silence, repetition, vq02, vq06, num_groups, codec, tokenizer_hash, quant_bits
    Produces: candidate_id, dialogue_id, turn, role, variant, variant_axis, take, language, split, text, context,
        emotion, level, dialect, speed, voice_id, licence, consent_basis, allowed_uses, seed, generator,
        generator_revision, generator_params, is_synthetic, audio, num_samples, sample_rate, dnsmos_sig, dnsmos_bak,
        dnsmos_ovr, snr_db, clipping_ratio, bandwidth_hz, energy_dbfs, f0_median_hz, f0_std_semitones, voiced_ratio,
        speaking_rate, silence_ratio, rate_ratio, pitch_ratio, heard, word_error_rate, speaker_similarity,
        longest_silence, repetition, vq02, vq06, num_groups, codec, tokenizer_hash, quant_bits, score, decision,
        reasons, rank, selected
    Rejects: none
    """

    class Config(Settings):
        """Settings of the selection.

        Attributes:
            gates: Thresholds a take must pass to be kept.
            weights: Weights of the composite score.
            batch_rows: Rows at once.
        """

        gates: Gates = Gates()
        weights: Weights = Weights()
        batch_rows: int = speed_knob(64, ge=1)

    def __init__(self, config: Config) -> None:
        self.config, schema = config, load_schema("candidate")
        self.spec = StageSpec(
            name="select",
            version="1",
            consumes=schema.pick(*(name for name in schema.names if name not in _DECIDED)),
            produces=schema,
            shape="fold",
            parents="candidate_id",
            batch=BatchHint(max_rows=config.batch_rows),
        )
        self._stream = DialogueStream()

    def open(self, worker: Worker) -> None:
        """Forgets the shard before."""
        self._stream.reset()

    def process(self, batch: pa.RecordBatch) -> StageResult:
        """Returns the rows of the dialogues that this batch completes."""
        return self._decided([self._decide(rows) for rows in self._stream.push(batch)])

    def finish(self) -> StageResult:
        """Returns the rows of the last dialogue."""
        rows = [self._decide(rows) for rows in self._stream.flush()]
        self._stream.reset()
        return self._decided(rows)

    def close(self) -> None:
        """Holds nothing outside a shard."""

    def _decide(self, dialogue: pa.RecordBatch) -> pa.RecordBatch:
        rows = dialogue.select(list(_READ)).to_pylist()
        decided = decide(rows, self.config.gates, self.config.weights)
        added = self.spec.produces.pick(*_DECIDED).batch(decided)
        columns = {**_columns(dialogue), **_columns(added)}
        arrow = pa.schema([field.arrow() for field in self.spec.produces.fields])
        return pa.RecordBatch.from_arrays([columns[name] for name in arrow.names], schema=arrow)

    def _decided(self, dialogues: list[pa.RecordBatch]) -> StageResult:
        rows = concat(dialogues, self.spec.produces)
        kept = sum(decision == "keep" for decision in column(rows, "decision"))
        selected = pc.sum(rows.column("selected")).as_py() or 0
        return StageResult(rows, metrics={"kept": kept, "dropped": rows.num_rows - kept, "selected": selected})


def decide(rows: list[Row], gates: Gates, weights: Weights) -> list[Row]:
    """Returns, per candidate of one dialogue and in its order, id, score, decision, reasons, rank and selected.

    Takes of one turn and variant are ranked: those that pass first, then by score, then by number. The first is
    selected when it passes.
    """
    decided = [_decision(row, gates, weights) for row in rows]
    order = sorted(range(len(rows)), key=lambda i: _merit(rows[i], decided[i]))
    places: dict[tuple[int, int], int] = {}
    for index in order:
        text = rows[index]["turn"], rows[index]["variant"]
        rank = places.get(text, 0)
        places[text] = rank + 1
        decided[index] |= {"rank": rank, "selected": rank == 0 and decided[index]["decision"] == "keep"}
    return decided


def _decision(row: Row, gates: Gates, weights: Weights) -> Row:
    reasons = gate(row, gates)
    return {
        "candidate_id": row["candidate_id"],
        "score": composite(components(row), weights),
        "decision": "drop" if reasons else "keep",
        "reasons": reasons,
    }


def _merit(row: Row, decided: Row) -> tuple[bool, float, int, str]:
    return decided["decision"] == "drop", -decided["score"], row["take"], row["candidate_id"]


def _columns(batch: pa.RecordBatch) -> dict[str, pa.Array]:
    return dict(zip(batch.schema.names, batch.columns, strict=True))
