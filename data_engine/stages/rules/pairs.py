"""Which takes of a dialogue make a preference pair, and by how much: pure functions over scored candidates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from data_engine.core.ids import content_id
from data_engine.stages.rules.dialogue import Row, prompt_string, prompt_turns, shared_tokenizer
from data_engine.stages.rules.examples import Coder, Exchange, scores, to_json
from data_engine.stages.rules.gates import AXES, by_axis, components
from data_engine.tokens.preference import PreferenceRow

FULL_MARGIN = 10.0
COMPOSITE_SCORER = "composite.1"
SCRIPT_SCORER = "script.1"


@dataclass(frozen=True, slots=True)
class Contrast:
    """Two takes of one answer, the better first.

    Attributes:
        chosen: Better take.
        rejected: Worse take.
        kind: `text`: what is said differs; `audio`: only how it sounds.
        axis: What makes the rejected one worse.
        margin: By how much, 0..10.
        scorer: What says so.
    """

    chosen: Row
    rejected: Row
    kind: Literal["text", "audio"]
    axis: str
    margin: float
    scorer: str


def text_contrast(chosen: Row, alternative: Row) -> Contrast:
    """Returns the contrast of an answer and an alternative the writer made worse on purpose.

    The margin is full: the alternative is worse by construction, no model has measured it.
    """
    axis = alternative["variant_axis"] or "correctness"
    return Contrast(chosen, alternative, "text", axis, FULL_MARGIN, SCRIPT_SCORER)


def audio_contrast(best: Row, takes: list[Row], min_margin: float, max_loss: float) -> Contrast | None:
    """Returns the contrast of the best take of a text and its worst, or None when it is not clear.

    Large margins only, as Step-Audio-EditX (arXiv 2511.03601) asks for. The axis is the one on which the two differ
    most; a worst take that is clearly better on any component makes no pair.

    Args:
        best: The selected take.
        takes: All takes of the same text with a score.
        min_margin: Least difference of the composite, 0..10.
        max_loss: By how much the rejected take may win on one component, 0..1.
    """
    others = [row for row in takes if row["candidate_id"] != best["candidate_id"] and row["num_groups"]]
    if not others:
        return None
    worst = min(others, key=lambda row: (row["score"], row["candidate_id"]))
    margin = FULL_MARGIN * (best["score"] - worst["score"])
    good, bad = components(best), components(worst)
    if margin < min_margin or any(bad[name] - good[name] > max_loss for name in good.keys() & bad.keys()):
        return None
    better, worse = by_axis(good), by_axis(bad)
    gains = {axis: better[axis] - worse[axis] for axis in AXES if axis in better and axis in worse}
    if not gains or max(gains.values()) <= 0:
        return None
    axis = max(gains, key=lambda name: gains[name])
    return Contrast(best, worst, "audio", axis, min(margin, FULL_MARGIN), COMPOSITE_SCORER)


def pair_row(pair: PreferenceRow, contrast: Contrast, exchange: Exchange, coder: Coder) -> Row:
    """Returns the `preference.v1` row of a pair.

    Raises:
        RecordError: TOKENIZER_MISMATCH.
        ContractError: A text of the prompt holds a turn token.
    """
    chosen, rejected, query = contrast.chosen, contrast.rejected, exchange.spoken_query
    tokenizer_hash, quant_bits = shared_tokenizer([query, chosen, rejected])
    turns = prompt_turns(exchange.script, exchange.query, exchange.answer, None)
    parents = [row["candidate_id"] for row in (query, chosen, rejected)]
    return {
        "pair_id": content_id("preference", *parents, contrast.axis),
        **{name: chosen[name] for name in ("dialogue_id", "turn", "language", "split", "seed")},
        "kind": contrast.kind, "masked": pair.masked, "axis": contrast.axis,
        "prompt_text": prompt_string(turns), "chosen_text": chosen["text"], "rejected_text": rejected["text"],
        "audio_q": query["audio"], "chosen_audio": chosen["audio"], "rejected_audio": rejected["audio"],
        "prompt_ids": pair.prompt_ids, "chosen_ids": pair.chosen_ids, "rejected_ids": pair.rejected_ids,
        "mask_chosen": pair.mask_chosen, "mask_rejected": pair.mask_rejected,
        "margin": contrast.margin, "scorer": contrast.scorer,
        "chosen_scores": to_json(scores(chosen)), "rejected_scores": to_json(scores(rejected)),
        "text_tokenizer_hash": coder.text_tokenizer_hash,
        "tokenizer_hash": tokenizer_hash, "quant_bits": quant_bits,
        "is_synthetic": any(row["is_synthetic"] for row in (query, chosen, rejected)),
        "parents": parents,
    }  # fmt: skip
