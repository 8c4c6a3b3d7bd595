"""Preference rows for DPO in which only text carries the preference.

Step-Audio-AQAA (arXiv 2506.08967) masks audio ids out of the DPO loss, because unmasked DPO pulled text and
audio apart. A pair whose texts agree then teaches nothing, so such a pair is refused here; preferences about
the audio itself (prosody, timbre, noise) are marked for an unmasked set or a reward model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from data_engine.core.errors import ContractError
from data_engine.tokens.interleave import split_interleaved
from data_engine.tokens.vocabulary import Ids, SpecialTokens, as_ids, is_audio

Axis = Literal["text", "audio"]
LossMask = npt.NDArray[np.uint8]
LogProbabilities = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class PreferenceRow:
    """One pair of answers to one prompt.

    Attributes:
        prompt_ids: int32, up to and including the open assistant turn.
        chosen_ids: int32, the better answer without the prompt.
        rejected_ids: int32, the worse answer without the prompt.
        mask_chosen: uint8, 1 where `chosen_ids` carries loss.
        mask_rejected: uint8, likewise for `rejected_ids`.
        axis: Whether the pair differs in what is said or in how it sounds.
        masked: True for masked DPO (axis text); False belongs to the unmasked set.
        aspect: What was compared, e.g. "relevance" or "tag_obedience".
        margin: Score of chosen minus score of rejected, in the scorer's units.
        scorer: What gave the scores.
        seed: Seed of the sampling that made the pair.
        source_id: Record that the pair was made from.
        tokenizer_hash: Tokenizer whose ids these are.
    """

    prompt_ids: Ids
    chosen_ids: Ids
    rejected_ids: Ids
    mask_chosen: LossMask
    mask_rejected: LossMask
    axis: Axis
    masked: bool
    aspect: str
    margin: float
    scorer: str
    seed: int
    source_id: str
    tokenizer_hash: str


def dpo_mask(ids: Any, prompt_length: int, *, excluded: Sequence[int] = ()) -> LossMask:
    """Marks the ids that carry the masked DPO loss: last assistant turn and below 65536.

    Text, markers and the end of turn count; Step-Audio-AQAA (arXiv 2506.08967) sets m_t = 0 for the audio
    vocabulary only. Whether markers should count is not published, so `excluded` can take them out.

    Args:
        ids: Prompt and answer, shape (n,).
        prompt_length: Where the last assistant turn's content starts.
        excluded: Text ids without loss.

    Returns:
        uint8, shape (n,).

    Raises:
        ContractError: An id is outside the vocabulary, or prompt_length is outside 0..n.
    """
    stream, answer = _answer(ids, prompt_length)
    mask = answer & ~is_audio(stream) & ~np.isin(stream, np.array(excluded, np.int32))
    return mask.astype(np.uint8)


def audio_loss_mask(ids: Any, prompt_length: int) -> LossMask:
    """Marks the audio ids of the last assistant turn, e.g. to watch their likelihood drift under DPO.

    Raises:
        ContractError: As `dpo_mask`.
    """
    stream, answer = _answer(ids, prompt_length)
    return (answer & is_audio(stream)).astype(np.uint8)


def preference_row(
    prompt_ids: Any,
    chosen_ids: Any,
    rejected_ids: Any,
    axis: Axis,
    special: SpecialTokens,
    *,
    margin: float,
    scorer: str,
    seed: int,
    source_id: str,
    tokenizer_hash: str,
    aspect: str = "",
    max_length_gap: int | None = None,
) -> PreferenceRow:
    """Builds a row; for axis text the texts must differ, for axis audio the audio must.

    Args:
        prompt_ids: Shape (p,), ends with the open assistant turn.
        chosen_ids: Answer only, shape (c,).
        rejected_ids: Answer only, shape (r,).
        axis: `text` gets the mask of `dpo_mask`; `audio` loses nothing and is marked `masked=False`.
        special: Ids of turn tokens and markers.
        margin: Score difference, greater than 0.
        scorer: What gave the scores.
        seed: Seed of the sampling.
        source_id: Source record.
        tokenizer_hash: Tokenizer of the ids.
        aspect: What was compared.
        max_length_gap: Largest allowed difference of the two masks' sums; the loss is a sum, so a much longer
            answer would win by length.

    Raises:
        ContractError: Empty side, more than one turn in an answer, margin not positive, nothing to prefer on
            this axis, or too large a length gap.
    """
    if axis not in ("text", "audio"):
        raise ContractError(f"{source_id}: axis {axis!r} is unknown; choose text or audio")
    if not margin > 0:
        raise ContractError(f"{source_id}: margin {margin} is not positive; swap the answers or drop the pair")
    chosen = _one_turn(chosen_ids, "chosen", source_id, special)
    rejected = _one_turn(rejected_ids, "rejected", source_id, special)
    _require_difference(chosen, rejected, axis, source_id, special)
    masks = [dpo_mask(ids, 0) if axis == "text" else np.ones(ids.size, np.uint8) for ids in (chosen, rejected)]
    gap = abs(int(masks[0].sum()) - int(masks[1].sum()))
    if max_length_gap is not None and gap > max_length_gap:
        raise ContractError(f"{source_id}: loss lengths differ by {gap} ids, over {max_length_gap}; drop the pair")
    return PreferenceRow(
        prompt_ids=as_ids(prompt_ids, f"{source_id}: prompt"),
        chosen_ids=chosen,
        rejected_ids=rejected,
        mask_chosen=masks[0],
        mask_rejected=masks[1],
        axis=axis,
        masked=axis == "text",
        aspect=aspect,
        margin=margin,
        scorer=scorer,
        seed=seed,
        source_id=source_id,
        tokenizer_hash=tokenizer_hash,
    )


def masked_dpo_loss(
    policy_chosen: LogProbabilities,
    policy_rejected: LogProbabilities,
    reference_chosen: LogProbabilities,
    reference_rejected: LogProbabilities,
    mask_chosen: LossMask,
    mask_rejected: LossMask,
    beta: float = 0.1,
) -> float:
    """Computes the masked DPO loss of one pair, as a reference for trainers.

    L = -log sigmoid(beta * (sum_t m_t (policy - reference)(chosen) - the same sum over rejected)),
    the formula of Step-Audio-AQAA (arXiv 2506.08967); beta is not published, 0.1 is DPO's common default.

    Args:
        policy_chosen: Log probability of every chosen id, natural log, shape (c,); `reference_chosen` alike.
        policy_rejected: Likewise, shape (r,); `reference_rejected` alike.
        reference_chosen: Under the frozen reference model.
        reference_rejected: Under the frozen reference model.
        mask_chosen: Shape (c,).
        mask_rejected: Shape (r,).
        beta: Strength of the preference.

    Raises:
        ContractError: Arrays of one side differ in shape.
    """
    chosen = _masked_ratio(policy_chosen, reference_chosen, mask_chosen, "chosen")
    rejected = _masked_ratio(policy_rejected, reference_rejected, mask_rejected, "rejected")
    return float(np.logaddexp(0.0, -beta * (chosen - rejected)))


def _masked_ratio(policy: LogProbabilities, reference: LogProbabilities, mask: LossMask, side: str) -> float:
    if not policy.shape == reference.shape == mask.shape:
        raise ContractError(f"{side}: policy {policy.shape}, reference {reference.shape} and mask {mask.shape} differ")
    # Selected, not multiplied: a masked -inf must not turn the sum into nan.
    keep = mask != 0
    return float(np.sum(policy[keep] - reference[keep], dtype=np.float64))


def _answer(ids: Any, prompt_length: int) -> tuple[Ids, npt.NDArray[np.bool_]]:
    stream = as_ids(ids)
    if not 0 <= prompt_length <= stream.size:
        raise ContractError(f"prompt_length {prompt_length} is outside 0..{stream.size}, the length of the ids")
    return stream, np.arange(stream.size) >= prompt_length


def _one_turn(ids: Any, side: str, source_id: str, special: SpecialTokens) -> Ids:
    answer = as_ids(ids, f"{source_id}: {side}")
    if not answer.size:
        raise ContractError(f"{source_id}: {side} answer is empty")
    extra = np.flatnonzero(answer == special.begin_of_turn)
    if extra.size:
        raise ContractError(
            f"{source_id}: {side} opens a turn at position {extra[0]}; pass the last assistant turn without its prompt"
        )
    return answer


def _require_difference(chosen: Ids, rejected: Ids, axis: Axis, source_id: str, special: SpecialTokens) -> None:
    part = 0 if axis == "text" else 1
    better, worse = split_interleaved(chosen, special)[part], split_interleaved(rejected, special)[part]
    if np.array_equal(better, worse):
        advice = "masked DPO would learn nothing; use axis='audio'" if axis == "text" else "nothing to prefer"
        raise ContractError(f"{source_id}: chosen and rejected have the same {axis}: {advice} or drop the pair")
