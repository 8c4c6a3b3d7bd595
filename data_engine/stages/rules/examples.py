"""Training examples out of one dialogue: token records of each type, and their `aqaa.v1` rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from data_engine.core.config import Settings
from data_engine.core.errors import RecordError
from data_engine.core.ids import content_id
from data_engine.stages.rules.dialogue import (
    CHAT_TEMPLATE,
    Row,
    Script,
    audio_run,
    prompt_ids,
    prompt_turns,
    shared_tokenizer,
)
from data_engine.stages.rules.gates import MEASURES
from data_engine.tokens.interleave import Interleaving
from data_engine.tokens.preference import dpo_mask
from data_engine.tokens.records import (
    TokenRecord,
    aqaa_record,
    aqta_record,
    aqtaa_record,
    taqta_record,
    tqta_record,
    tts_record,
)
from data_engine.tokens.templates import Encode, Turn, system_prompt
from data_engine.tokens.vocabulary import Ids, SpecialTokens

RecordKind = Literal["TQTA", "AQTA", "TAQTA", "AQTAA", "AQAA", "TTS"]
TTS_TEMPLATE = "step-audio-tts.1"


class InterleavingSettings(Settings):
    """How text and audio of an answer are interleaved; see `tokens.interleave.Interleaving`."""

    num_text: int = 10
    num_audio: int = 15
    markers: Literal["per_chunk", "per_segment", "none"] = "per_chunk"
    tail: Literal["run", "pad", "stop"] = "run"

    def build(self) -> Interleaving:
        """Returns the settings the interleaver takes.

        Raises:
            ConfigError: The ratio would cut groups.
        """
        return Interleaving(self.num_text, self.num_audio, self.markers, self.tail)


@dataclass(frozen=True, slots=True)
class Coder:
    """What turns texts and codes into ids.

    Attributes:
        encode: Text tokenizer, special tokens not interpreted.
        special: Ids of the special tokens.
        interleaving: How answers are interleaved.
        text_tokenizer_hash: Revision of the text tokenizer.
    """

    encode: Encode
    special: SpecialTokens
    interleaving: Interleaving
    text_tokenizer_hash: str


@dataclass(frozen=True, slots=True)
class Exchange:
    """One answer of a dialogue and what it answers.

    Attributes:
        script: The dialogue.
        query: Index of the user turn that is answered.
        answer: Index of the assistant turn.
        spoken_query: Selected take of the query.
        spoken_answer: A take of the answer.
        voice: Row of `voice.v1` of the answer's voice, for type TTS.
    """

    script: Script
    query: int
    answer: int
    spoken_query: Row
    spoken_answer: Row
    voice: Mapping[str, Any] | None = field(default=None)


def token_record(kind: RecordKind, exchange: Exchange, coder: Coder) -> TokenRecord:
    """Returns prompt and target ids of one example.

    The target is that of the type's builder in `tokens.records`; the prompt is the whole conversation, in which a
    tool call and its result may follow the query.

    Raises:
        RecordError: TOO_FEW_TOKENS: query or answer has no whole group of audio.
        ContractError: A text cannot be encoded.
    """
    if kind == "TTS":
        return _tts(exchange, coder)
    audio = None if kind == "TQTA" else audio_run(exchange.spoken_query)
    query = Turn("user", exchange.spoken_query["text"], audio)
    target = _target(kind, query, exchange.spoken_answer, coder)
    prompt = conversation_ids(exchange, audio, coder, with_text=kind == "TAQTA")
    mask = np.repeat(np.array([0, 1], np.uint8), [prompt.size, target.size])
    return TokenRecord(kind, np.concatenate([prompt, target]), mask)


def conversation_ids(exchange: Exchange, audio: Ids | None, coder: Coder, with_text: bool = False) -> Ids:
    """Returns the prompt of an exchange, int32 [n], with the query as `audio` (None: as text).

    Raises:
        ContractError: A text cannot be encoded.
    """
    turns = prompt_turns(exchange.script, exchange.query, exchange.answer, audio)
    if with_text:
        turns = [Turn(t.role, t.content, t.audio_ids, with_text=t.audio_ids is not None) for t in turns]
    return prompt_ids(turns, coder.encode, coder.special)


def spoken_target(answer: Row, coder: Coder) -> Ids:
    """Returns the interleaved text and audio of an answer with its end of turn, int32 [n].

    Raises:
        RecordError: TOO_FEW_TOKENS: the answer has no whole group of audio.
        ContractError: The text cannot be encoded.
    """
    query = Turn("user", "", np.zeros(0, np.int32))
    return _target("AQTAA", query, answer, coder)


def _target(kind: RecordKind, query: Turn, answer: Row, coder: Coder) -> Ids:
    encode, special, text = coder.encode, coder.special, answer["text"].strip()
    if kind == "TQTA":
        record = tqta_record([query], text, encode, special)
    elif kind == "AQTA":
        record = aqta_record([query], text, encode, special)
    elif kind == "TAQTA":
        record = taqta_record([query], text, encode, special)
    elif kind == "AQTAA":
        record = aqtaa_record([query], [(text, audio_run(answer))], encode, special, coder.interleaving)
    else:
        record = aqaa_record([query], [audio_run(answer)], encode, special, coder.interleaving)
    return record.input_ids[record.prompt_length :]


def _tts(exchange: Exchange, coder: Coder) -> TokenRecord:
    voice, answer = exchange.voice, exchange.spoken_answer
    if voice is None or not voice["text"]:
        raise RecordError("NO_VOICE", f"voice {answer['voice_id']} has no prompt text, which a TTS record needs")
    language = "zh" if answer["language"] == "zh" else "en"
    return tts_record(
        tagged_text(answer), audio_run(answer), voice["text"].strip(), audio_run(voice), coder.encode, coder.special,
        system=system_prompt("clone", language),
    )  # fmt: skip


def tagged_text(answer: Row) -> str:
    """Returns the text with the controls asked for in brackets before it (Step-Audio, arXiv 2502.11946).

    Emotion with its level, dialect, speed; what is neutral or normal is left out.
    """
    tags = [
        f"({answer['emotion']}{answer['level']})" if answer["emotion"] != "neutral" else "",
        f"({answer['dialect']})" if answer["dialect"] else "",
        f"({answer['speed']})" if answer["speed"] != "normal" else "",
    ]
    return "".join(tags) + str(answer["text"]).strip()


def example_row(kind: RecordKind, exchange: Exchange, coder: Coder) -> Row:
    """Returns the `aqaa.v1` row of one example.

    Raises:
        RecordError: TOKENIZER_MISMATCH, TOO_FEW_TOKENS or NO_VOICE.
        ContractError: A text cannot be encoded.
    """
    answer = exchange.spoken_answer
    query = _voice_prompt(exchange) if kind == "TTS" else exchange.spoken_query
    tokenizer_hash, quant_bits = shared_tokenizer([query, answer])
    record = token_record(kind, exchange, coder)
    parents = [row["candidate_id"] for row in (query, answer) if "candidate_id" in row]
    template = TTS_TEMPLATE if kind == "TTS" else CHAT_TEMPLATE
    return {
        "example_id": content_id("aqaa", *parents, kind, template),
        "type": kind,
        "axis": exchange.script.axis,
        **{name: answer[name] for name in _OF_ANSWER},
        "voice_q": query["voice_id"], "voice_a": answer["voice_id"],
        "text_q": query["text"], "text_a": answer["text"],
        "audio_q": query["audio"], "audio_a": answer["audio"],
        "vq02_q": query["vq02"], "vq06_q": query["vq06"], "vq02_a": answer["vq02"], "vq06_a": answer["vq06"],
        "input_ids": record.input_ids, "loss_mask": record.loss_mask,
        "dpo_mask": dpo_mask(record.input_ids, record.prompt_length),
        "prompt_length": record.prompt_length, "prompt_template": template,
        "text_tokenizer_hash": coder.text_tokenizer_hash,
        "tokenizer_hash": tokenizer_hash, "quant_bits": quant_bits,
        "scores": to_json({"query": scores(query), "answer": scores(answer)}),
        "generator": to_json(generators(exchange.script, query, answer)),
        "is_synthetic": bool(query.get("is_synthetic") or answer["is_synthetic"]),
        "licence": " AND ".join(sorted({row["licence"] for row in (query, answer) if row["licence"]})) or None,
        "parents": parents,
    }  # fmt: skip


_OF_ANSWER = ("dialogue_id", "turn", "language", "split", "emotion", "level", "dialect", "speed")


def _voice_prompt(exchange: Exchange) -> Mapping[str, Any]:
    if exchange.voice is None:
        raise RecordError("NO_VOICE", f"voice {exchange.spoken_answer['voice_id']} is not in the voices table")
    return exchange.voice


def scores(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns every measurement of a row, the composite score and what was heard; null where not measured."""
    values = {name: row.get(name) for name in (*MEASURES, "score", "heard")}
    return {name: round(v, 6) if isinstance(v, float) else v for name, v in values.items()}


def generators(script: Script, *rows: Mapping[str, Any]) -> dict[str, Any]:
    """Returns who wrote the dialogue and who spoke each row, with revision, seed and parameters."""
    keys = ("generator", "generator_revision", "seed", "generator_params")
    return {"writer": dict(script.writer), "speech": [{key: row.get(key) for key in keys} for row in rows]}


def to_json(value: Any) -> str:
    """Returns canonical JSON: sorted keys, no white space to differ in."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
