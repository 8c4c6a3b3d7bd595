"""Assemble: the selected takes of a dialogue become training examples, one per answer and record type."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from data_engine.core.config import BackendChoice, Settings, role, speed_knob
from data_engine.core.errors import ConfigError, ContractError, RecordError
from data_engine.core.schema import load_schema
from data_engine.core.stage import BatchHint, StageResult, StageSpec, Worker
from data_engine.stages.rules.books import DialogueBook, close_books
from data_engine.stages.rules.consent import TableReference
from data_engine.stages.rules.dialogue import DialogueStream, Row, chosen_takes, parse_context
from data_engine.stages.rules.examples import Coder, Exchange, InterleavingSettings, RecordKind, example_row
from data_engine.stages.rules.gates import MEASURES
from data_engine.stages.rules.voice_library import LoadVoices, VoiceLibrary, read_voices
from data_engine.tokens.vocabulary import SpecialTokens

_READ = (
    "dialogue_id", "turn", "role", "variant", "language", "split", "text", "context", "emotion", "level", "dialect",
    "speed", "voice_id", "licence", "seed", "generator", "generator_revision", "generator_params", "is_synthetic",
    "audio", *MEASURES, "heard", "vq02", "vq06", "tokenizer_hash", "quant_bits", "score", "decision", "reasons",
    "selected",
)  # fmt: skip
_PROMPT = (
    "text", "licence", "audio", "vq02", "vq06", "tokenizer_hash", "quant_bits", "dnsmos_ovr", "f0_median_hz",
    "f0_std_semitones", "speaking_rate", "score",
)  # fmt: skip


class Assemble:
    """Makes the examples of each dialogue; an answer needs its selected take and that of the query before it.

    The takes of a turn of which none passed are rejects. What was selected but has no partner is unused as
    `dialogue_incomplete` (`not_needed` when no answer is lost), other takes as `not_selected`, `failed_gates` or
    `variant` (kept for pairs).

    Consumes: candidate_id, dialogue_id, turn, role, variant, language, split, text, context, emotion, level, dialect,
        speed, voice_id, licence, seed, generator, generator_revision, generator_params, is_synthetic, audio,
        dnsmos_sig, dnsmos_bak, dnsmos_ovr, snr_db, clipping_ratio, bandwidth_hz, energy_dbfs, f0_median_hz,
        f0_std_semitones, voiced_ratio, speaking_rate, silence_ratio, rate_ratio, pitch_ratio, heard,
        word_error_rate, speaker_similarity, longest_silence, repetition, vq02, vq06, tokenizer_hash, quant_bits,
        score, decision, reasons, selected
    Produces: example_id, type, dialogue_id, turn, axis, language, split, emotion, level, dialect, speed, voice_q,
        voice_a, text_q, text_a, audio_q, audio_a, vq02_q, vq06_q, vq02_a, vq06_a, input_ids, loss_mask, dpo_mask,
        prompt_length, prompt_template, text_tokenizer_hash, tokenizer_hash, quant_bits, scores, generator,
        is_synthetic, licence, parents
    Rejects: NO_PASSING_CANDIDATE, SCRIPT_INVALID, TOKENIZER_MISMATCH, TOO_FEW_TOKENS, NO_VOICE
    """

    class Config(Settings):
        """Settings of the assembly.

        Attributes:
            record_types: Types of example to make of each answer.
            interleaving: Ratio, markers and tail of text and audio in an answer.
            text_tokenizer: Back end of role `text_tokenizer`.
            voices: Where the voices are; only type TTS needs them.
            batch_rows: Rows at once.
        """

        record_types: tuple[RecordKind, ...] = ("AQTAA",)
        interleaving: InterleavingSettings = InterleavingSettings()
        text_tokenizer: BackendChoice = role("text_tokenizer", "bpe")
        voices: TableReference = TableReference()
        batch_rows: int = speed_knob(64, ge=1)

    def __init__(self, config: Config, load_voices: LoadVoices = read_voices) -> None:
        """Checks the settings.

        Raises:
            ConfigError: Type TTS without voices, or a ratio that would cut groups.
        """
        if "TTS" in config.record_types and not config.voices.uri:
            raise ConfigError("stage 'assemble': record type TTS needs 'voices', the folder of the voices table")
        self.config, self._load_voices = config, load_voices
        self._interleaving = config.interleaving.build()
        self.spec = StageSpec(
            name="assemble",
            version="1",
            consumes=load_schema("candidate").pick(*_READ),
            produces=load_schema("aqaa"),
            shape="fold",
            parents="parents",
            batch=BatchHint(max_rows=config.batch_rows),
        )
        self._stream = DialogueStream()

    def open(self, worker: Worker) -> None:
        """Takes the text tokenizer and, for type TTS, the voices."""
        choice = self.config.text_tokenizer
        tokenizer = worker.backend("text_tokenizer", choice.name, choice.options)
        special = SpecialTokens.from_mapping(tokenizer.specials())
        self._coder = Coder(tokenizer.encode, special, self._interleaving, tokenizer.revision)
        self._voices: VoiceLibrary = {}
        if "TTS" in self.config.record_types and self.config.voices.uri:
            self._voices = self._load_voices(self.config.voices.uri, _PROMPT)
        self._stream.reset()

    def process(self, batch: pa.RecordBatch) -> StageResult:
        """Returns the examples of the dialogues that this batch completes."""
        return self._assembled(self._stream.push(batch))

    def finish(self) -> StageResult:
        """Returns the examples of the last dialogue."""
        result = self._assembled(self._stream.flush())
        self._stream.reset()
        return result

    def close(self) -> None:
        """Holds nothing outside a shard."""

    def _assembled(self, dialogues: Iterable[pa.RecordBatch]) -> StageResult:
        books = (self._dialogue(dialogue.to_pylist()) for dialogue in dialogues)
        return close_books(books, self.spec.produces, _why_unused)

    def _dialogue(self, candidates: list[Row]) -> DialogueBook:
        book = DialogueBook(candidates)
        book.count("dialogues")
        try:
            script = parse_context(candidates[0]["context"])
        except RecordError as error:
            book.reject(candidates, error)
            book.count("dialogues_incomplete")
            return book
        _reject_failed_turns(book)
        takes = chosen_takes(candidates)
        for query, answer in script.answers():
            if (query, 0) in takes and (answer, 0) in takes:
                spoken = takes[query, 0], takes[answer, 0]
                self._examples(Exchange(script, query, answer, *spoken, self._voices.get(spoken[1]["voice_id"])), book)
        self._complete(book, [answer for _, answer in script.answers()], takes)
        return book

    def _examples(self, exchange: Exchange, book: DialogueBook) -> None:
        for kind in self.config.record_types:
            try:
                book.rows.append(example_row(kind, exchange, self._coder))
                book.count(f"examples_{kind}")
            except (RecordError, ContractError) as error:
                book.reject([exchange.spoken_query, exchange.spoken_answer], error)
                book.count(f"examples_failed_{kind}")

    @staticmethod
    def _complete(book: DialogueBook, answers: list[int], takes: dict[tuple[int, int], Row]) -> None:
        """Books whether every answer became an example, and why selected takes of the dialogue are left over."""
        lost = set(answers) - {row["turn"] for row in book.rows}
        if lost:
            book.count("dialogues_incomplete")
            book.count("answers_lost", len(lost))
        spoken = [row for (_, variant), row in takes.items() if variant == 0]
        book.leave(spoken, "dialogue_incomplete" if lost else "not_needed")


def _reject_failed_turns(book: DialogueBook) -> None:
    """Rejects the takes of each turn of which none passed."""
    turns: dict[int, list[Row]] = {}
    for row in book.candidates:
        if row["variant"] == 0:
            turns.setdefault(row["turn"], []).append(row)
    for turn, takes in turns.items():
        if not any(row["selected"] for row in takes):
            failed = sorted({reason for row in takes for reason in row["reasons"] or ()})
            detail = f"no take of turn {turn} passed; gates failed: {', '.join(failed) or 'none'}"
            book.reject(takes, RecordError("NO_PASSING_CANDIDATE", detail))


def _why_unused(row: Row) -> str:
    if row["variant"]:
        return "variant"
    return "failed_gates" if row["decision"] == "drop" else "not_selected"
