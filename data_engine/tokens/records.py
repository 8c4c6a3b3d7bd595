"""Training records: prompt ids without loss, target ids with loss, one builder per record type.

Only the last assistant turn carries loss and the audio of earlier turns is replaced by its transcript. Every
target ends with the end-of-turn id, which carries loss too.

| type | prompt (loss 0) | target (loss 1) |
|---|---|---|
| TQTA | text query | text answer |
| AQTA | audio query | text answer |
| TAQTA | text query, then audio query | text query again, then text answer |
| AQTAA | audio query | text and audio answer, interleaved |
| AQAA | audio query | audio answer |
| TTS | system, prompt text, prompt audio, target text | target audio |
| EDIT | instruction and neutral audio | emotional audio |

Source: Step-Audio (arXiv 2502.11946) sec. 5 for TQTA, AQTA, TAQTA, TTS and EDIT; Step-Audio-AQAA
(arXiv 2506.08967) for AQTAA. The order of text and audio inside a TAQTA query is not published; text first is
this engine's choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from data_engine.core.errors import ContractError
from data_engine.tokens.interleave import Interleaving, interleave_segments
from data_engine.tokens.runs import validate_run
from data_engine.tokens.templates import (
    EDIT_SYSTEM,
    Encode,
    Turn,
    chat_prompt_ids,
    continuation_ids,
    edit_prompt_ids,
    tts_prompt_ids,
    with_text_history,
)
from data_engine.tokens.vocabulary import Ids, SpecialTokens

RecordType = Literal["TQTA", "AQTA", "TAQTA", "AQTAA", "AQAA", "TTS", "EDIT"]
LossMask = npt.NDArray[np.uint8]
AnswerSegment = tuple[str, Any]


@dataclass(frozen=True, eq=False)
class TokenRecord:
    """One training example.

    Attributes:
        type: Record type.
        input_ids: int32, shape (n,).
        loss_mask: uint8, shape (n,): zeros over the prompt, ones over the target.
    """

    type: RecordType
    input_ids: Ids
    loss_mask: LossMask

    def __post_init__(self) -> None:
        if self.input_ids.ndim != 1 or self.input_ids.shape != self.loss_mask.shape:
            raise ContractError(
                f"{self.type} record: ids {self.input_ids.shape} and mask {self.loss_mask.shape} "
                "must be 1-D and of one length"
            )

    @property
    def prompt_length(self) -> int:
        """Number of ids before the target."""
        return int(self.loss_mask.size - np.count_nonzero(self.loss_mask))


def tqta_record(turns: Sequence[Turn], answer: str, encode: Encode, special: SpecialTokens) -> TokenRecord:
    """Text query -> text answer.

    Args:
        turns: The conversation; its last turn is the user's query.
        answer: The assistant's text.
        encode: Text tokenizer without special tokens.
        special: Ids of the turn tokens.

    Raises:
        ContractError: The last turn is no text query of the user, or the answer is empty.
    """
    _require_query("TQTA", turns, audio=False)
    return _chat_record("TQTA", turns, _text_target("TQTA", [answer], encode, special), encode, special)


def aqta_record(turns: Sequence[Turn], answer: str, encode: Encode, special: SpecialTokens) -> TokenRecord:
    """Audio query -> text answer; arguments as `tqta_record`.

    Raises:
        ContractError: The last turn is no audio query of the user, or the answer is empty.
    """
    _require_query("AQTA", turns, audio=True)
    return _chat_record("AQTA", turns, _text_target("AQTA", [answer], encode, special), encode, special)


def taqta_record(turns: Sequence[Turn], answer: str, encode: Encode, special: SpecialTokens) -> TokenRecord:
    """Text and audio of one query -> the text again, then the text answer; arguments as `tqta_record`.

    The last turn's `content` is the text query. Repeating it with loss ties text to audio (Step-Audio,
    arXiv 2502.11946, sec. 5.2).

    Raises:
        ContractError: The last turn lacks audio or text, or the answer is empty.
    """
    _require_query("TAQTA", turns, audio=True)
    query = replace(turns[-1], with_text=True)
    target = _text_target("TAQTA", [query.content, answer], encode, special)
    return _chat_record("TAQTA", [*turns[:-1], query], target, encode, special)


def aqtaa_record(
    turns: Sequence[Turn],
    answer: Sequence[AnswerSegment],
    encode: Encode,
    special: SpecialTokens,
    settings: Interleaving,
) -> TokenRecord:
    """Audio query -> interleaved text and audio answer (Step-Audio-AQAA, arXiv 2506.08967).

    Args:
        turns: The conversation; its last turn is the user's audio query.
        answer: (text, audio run) segments, one per tag; most answers have one.
        encode: Text tokenizer without special tokens.
        special: Ids of turn tokens and markers.
        settings: Interleaving; the end of turn is always written.

    Raises:
        ContractError: The last turn is no audio query, or the answer lacks text or audio.
    """
    _require_query("AQTAA", turns, audio=True)
    segments = [(continuation_ids(text, encode), validate_run(audio)) for text, audio in answer]
    if not any(text.size for text, _ in segments) or not any(audio.size for _, audio in segments):
        raise ContractError("AQTAA answer needs text and audio; use aqta_record or aqaa_record for one of them")
    target = interleave_segments(segments, special, replace(settings, end_of_turn=True))
    return _chat_record("AQTAA", turns, target, encode, special)


def aqaa_record(
    turns: Sequence[Turn],
    answer: Sequence[Any],
    encode: Encode,
    special: SpecialTokens,
    settings: Interleaving,
) -> TokenRecord:
    """Audio query -> audio answer alone: an extra for diversity, weak as the only training form.

    `answer` holds the audio runs, one per segment; markers follow `settings`. The tail rule is `run`, since
    the others cut or pad against a text that does not exist. Other arguments as `aqtaa_record`.

    Raises:
        ContractError: The last turn is no audio query, or the answer has no audio.
    """
    _require_query("AQAA", turns, audio=True)
    segments = [(np.zeros(0, np.int32), validate_run(audio)) for audio in answer]
    if not any(audio.size for _, audio in segments):
        raise ContractError("AQAA answer has no audio")
    target = interleave_segments(segments, special, replace(settings, end_of_turn=True, tail="run"))
    return _chat_record("AQAA", turns, target, encode, special)


def tts_record(
    target_text: str,
    target_audio_ids: Any,
    prompt_text: str,
    prompt_audio_ids: Any,
    encode: Encode,
    special: SpecialTokens,
    *,
    system: str,
) -> TokenRecord:
    """Voice prompt and target text -> target audio (Step-Audio, arXiv 2502.11946, sec. 5.1).

    Raises:
        ContractError: Either audio is no valid run, or the target is empty.
    """
    prompt = tts_prompt_ids(target_text, prompt_text, prompt_audio_ids, encode, special, system=system)
    return _record("TTS", prompt, _audio_target("TTS", target_audio_ids, special))


def edit_record(
    instruction: str,
    neutral_audio_ids: Any,
    emotional_audio_ids: Any,
    encode: Encode,
    special: SpecialTokens,
    *,
    system: str = EDIT_SYSTEM,
) -> TokenRecord:
    """Instruction and neutral audio -> emotional audio of the text (Step-Audio, arXiv 2502.11946, sec. 5.1).

    Raises:
        ContractError: Either audio is no valid run, or the target is empty.
    """
    prompt = edit_prompt_ids(instruction, neutral_audio_ids, encode, special, system=system)
    return _record("EDIT", prompt, _audio_target("EDIT", emotional_audio_ids, special))


def _chat_record(
    kind: RecordType, turns: Sequence[Turn], target: Ids, encode: Encode, special: SpecialTokens
) -> TokenRecord:
    return _record(kind, chat_prompt_ids(with_text_history(turns), encode, special), target)


def _record(kind: RecordType, prompt: Ids, target: Ids) -> TokenRecord:
    mask = np.repeat(np.array([0, 1], np.uint8), [prompt.size, target.size])
    return TokenRecord(kind, np.concatenate([prompt, target]), mask)


def _text_target(kind: RecordType, texts: Sequence[str], encode: Encode, special: SpecialTokens) -> Ids:
    if not all(text.strip() for text in texts):
        raise ContractError(f"{kind} target has an empty text; every part of the target needs words")
    end = np.array([special.end_of_turn], np.int32)
    return np.concatenate([*(continuation_ids(text, encode) for text in texts), end])


def _audio_target(kind: RecordType, audio_ids: Any, special: SpecialTokens) -> Ids:
    run = validate_run(audio_ids)
    if not run.size:
        raise ContractError(f"{kind} target has no audio")
    return np.append(run, np.int32(special.end_of_turn))


def _require_query(kind: RecordType, turns: Sequence[Turn], *, audio: bool) -> None:
    if not turns or turns[-1].written_role != "human":
        raise ContractError(f"{kind} needs the user's query as the last turn")
    if (turns[-1].audio_ids is not None) != audio:
        raise ContractError(f"{kind} needs {'an audio' if audio else 'a text'} query as the last turn")
