"""Pair: the candidates of one answer become preference pairs, about its text or about its sound."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import pyarrow as pa
from pydantic import Field

from data_engine.core.config import BackendChoice, Settings, role, speed_knob
from data_engine.core.errors import ContractError, RecordError
from data_engine.core.schema import load_schema
from data_engine.core.stage import BatchHint, StageResult, StageSpec, Worker
from data_engine.stages.rules.books import DialogueBook, close_books
from data_engine.stages.rules.dialogue import DialogueStream, Row, audio_run, chosen_takes, parse_context
from data_engine.stages.rules.examples import Coder, Exchange, InterleavingSettings, conversation_ids, spoken_target
from data_engine.stages.rules.gates import MEASURES
from data_engine.stages.rules.pairs import Contrast, audio_contrast, pair_row, text_contrast
from data_engine.tokens.preference import dpo_mask, preference_row
from data_engine.tokens.vocabulary import SpecialTokens

_READ = (
    "dialogue_id", "turn", "role", "variant", "variant_axis", "language", "split", "text", "context", "seed",
    "is_synthetic", "audio", *MEASURES, "heard", "vq02", "vq06", "num_groups", "tokenizer_hash", "quant_bits",
    "score", "decision", "selected",
)  # fmt: skip


class Pair:
    """Makes text pairs (masked DPO) and audio pairs (reward model) of each answer; both share its prompt.

    Text: the selected take of the answer over that of each worse alternative. Audio: the selected take over the worst
    take of the same text, when the margin is large and no component speaks against it.

    Consumes: candidate_id, dialogue_id, turn, role, variant, variant_axis, language, split, text, context, seed,
        is_synthetic, audio, dnsmos_sig, dnsmos_bak, dnsmos_ovr, snr_db, clipping_ratio, bandwidth_hz, energy_dbfs,
        f0_median_hz, f0_std_semitones, voiced_ratio, speaking_rate, silence_ratio, rate_ratio, pitch_ratio, heard,
        word_error_rate, speaker_similarity, longest_silence, repetition, vq02, vq06, num_groups, tokenizer_hash,
        quant_bits, score, decision, selected
    Produces: pair_id, dialogue_id, turn, kind, masked, axis, language, split, prompt_text, chosen_text, rejected_text,
        audio_q, chosen_audio, rejected_audio, prompt_ids, chosen_ids, rejected_ids, mask_chosen, mask_rejected,
        margin, scorer, chosen_scores, rejected_scores, seed, text_tokenizer_hash, tokenizer_hash, quant_bits,
        is_synthetic, parents
    Rejects: SCRIPT_INVALID, SAME_TEXT, TOKENIZER_MISMATCH, TOO_FEW_TOKENS
    """

    class Config(Settings):
        """Settings of the pairing.

        Attributes:
            min_margin: Least difference of the composite score for an audio pair, 0..10. Two takes of the embedded
                synthesizer differ by 0.45 (English) or 0.08 (Chinese) in the median;
                a generative one deserves 3 or more.
            max_component_loss: By how much the rejected take of an audio pair may win on one component, 0..1.
            max_length_difference: Largest difference of the two texts of a text pair, in ids that carry loss; the
                masked loss is a sum, so a much longer answer would win or lose by length.
            kinds: Kinds of pair to make.
            interleaving: As the answers of the AQTAA examples.
            text_tokenizer: Back end of role `text_tokenizer`.
            batch_rows: Rows at once.
        """

        min_margin: float = Field(default=0.5, gt=0, le=10)
        max_component_loss: float = Field(default=0.1, ge=0, le=1)
        max_length_difference: int = Field(default=64, ge=0)
        kinds: tuple[Literal["text", "audio"], ...] = ("text", "audio")
        interleaving: InterleavingSettings = InterleavingSettings()
        text_tokenizer: BackendChoice = role("text_tokenizer", "bpe")
        batch_rows: int = speed_knob(64, ge=1)

    def __init__(self, config: Config) -> None:
        self.config = config
        self._interleaving = config.interleaving.build()
        self.spec = StageSpec(
            name="pair",
            version="1",
            consumes=load_schema("candidate").pick(*_READ),
            produces=load_schema("preference"),
            shape="fold",
            parents="parents",
            batch=BatchHint(max_rows=config.batch_rows),
        )
        self._stream = DialogueStream()

    def open(self, worker: Worker) -> None:
        """Takes the text tokenizer."""
        choice = self.config.text_tokenizer
        tokenizer = worker.backend("text_tokenizer", choice.name, choice.options)
        special = SpecialTokens.from_mapping(tokenizer.specials())
        self._coder = Coder(tokenizer.encode, special, self._interleaving, tokenizer.revision)
        self._stream.reset()

    def process(self, batch: pa.RecordBatch) -> StageResult:
        """Returns the pairs of the dialogues that this batch completes."""
        return self._paired(self._stream.push(batch))

    def finish(self) -> StageResult:
        """Returns the pairs of the last dialogue."""
        result = self._paired(self._stream.flush())
        self._stream.reset()
        return result

    def close(self) -> None:
        """Holds nothing outside a shard."""

    def _paired(self, dialogues: Iterable[pa.RecordBatch]) -> StageResult:
        books = (self._dialogue(dialogue.to_pylist()) for dialogue in dialogues)
        return close_books(books, self.spec.produces, _why_unused)

    def _dialogue(self, candidates: list[Row]) -> DialogueBook:
        book = DialogueBook(candidates)
        book.count("dialogues")
        try:
            script = parse_context(candidates[0]["context"])
        except RecordError as error:
            book.reject(candidates, error)
            return book
        takes = chosen_takes(candidates)
        for query, answer in script.answers():
            if (query, 0) in takes and (answer, 0) in takes:
                exchange = Exchange(script, query, answer, takes[query, 0], takes[answer, 0])
                for contrast in self._contrasts(exchange, takes, book):
                    self._pair(contrast, exchange, book)
        return book

    def _contrasts(self, exchange: Exchange, takes: dict[tuple[int, int], Row], book: DialogueBook) -> list[Contrast]:
        best, found = exchange.spoken_answer, []
        if "text" in self.config.kinds:
            alternatives = [row for (turn, variant), row in sorted(takes.items()) if turn == best["turn"] and variant]
            found = [text_contrast(best, row) for row in alternatives if not _same_text(best, row, book)]
        if "audio" in self.config.kinds:
            same = [row for row in book.candidates if row["turn"] == best["turn"] and row["variant"] == 0]
            heard = audio_contrast(best, same, self.config.min_margin, self.config.max_component_loss)
            found += [heard] if heard else []
        return found

    def _pair(self, contrast: Contrast, exchange: Exchange, book: DialogueBook) -> None:
        try:
            chosen, rejected = (spoken_target(row, self._coder) for row in (contrast.chosen, contrast.rejected))
            gap = abs(int(dpo_mask(chosen, 0).sum()) - int(dpo_mask(rejected, 0).sum()))
            if contrast.kind == "text" and gap > self.config.max_length_difference:
                book.leave([contrast.rejected], "length_difference")
                return
            prompt = conversation_ids(exchange, audio_run(exchange.spoken_query), self._coder)
            pair = preference_row(
                prompt, chosen, rejected, contrast.kind, self._coder.special,
                margin=contrast.margin, scorer=contrast.scorer, seed=contrast.chosen["seed"], aspect=contrast.axis,
                source_id=contrast.chosen["candidate_id"], tokenizer_hash=contrast.chosen["tokenizer_hash"] or "",
            )  # fmt: skip
            book.rows.append(pair_row(pair, contrast, exchange, self._coder))
            book.count(f"pairs_{contrast.kind}")
        except (RecordError, ContractError) as error:
            book.reject([contrast.rejected], error)


def _same_text(best: Row, alternative: Row, book: DialogueBook) -> bool:
    same = bool(best["text"].split() == alternative["text"].split())
    if same:
        detail = f"alternative {alternative['variant']} of turn {best['turn']} says the same as the answer"
        book.reject([alternative], RecordError("SAME_TEXT", detail))
    return same


def _why_unused(row: Row) -> str:
    if row["decision"] == "drop":
        return "failed_gates"
    return "no_pair" if row["selected"] else "not_selected"
