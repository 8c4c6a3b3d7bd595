"""Dialogues out of candidate rows: cutting the stream where a dialogue ends, reading its script, its prompts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from data_engine.core.errors import ContractError, RecordError
from data_engine.core.stage import column
from data_engine.tokens.layout import interleave_codes
from data_engine.tokens.templates import (
    Encode,
    ToolCall,
    Turn,
    chat_prompt_string,
    open_turn_ids,
    render_tool_call,
    tool_schema_turn,
    turn_ids,
)
from data_engine.tokens.vocabulary import TOKEN_STRINGS, Ids, SpecialTokens

CHAT_TEMPLATE = "step-audio-chat.1"
Row = dict[str, Any]


class DialogueStream:
    """Cuts a stream of candidate rows into whole dialogues, so that one dialogue is held at a time.

    The rows of a dialogue must be next to each other, as the stages before leave them.
    """

    def __init__(self) -> None:
        self._pending: list[pa.RecordBatch] = []
        self._current: str | None = None
        self._seen: set[str] = set()

    def push(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """Yields the dialogues that `batch` completes, each as one batch in row order.

        Raises:
            ContractError: A dialogue comes back after another one began.
        """
        ids = column(batch, "dialogue_id")
        changes = [i for i in range(1, len(ids)) if ids[i] != ids[i - 1]]
        for start, end in pairwise([0, *changes, len(ids)] if ids else []):
            if ids[start] != self._current:
                yield from self.flush()
                self._begin(ids[start])
            self._pending.append(batch.slice(start, end - start))

    def flush(self) -> Iterator[pa.RecordBatch]:
        """Yields the dialogue that is held, if any, and forgets it."""
        held, self._pending, self._current = self._pending, [], None
        if held:
            yield pa.concat_batches(held)

    def reset(self) -> None:
        """Forgets everything, also which dialogues were seen."""
        self._pending, self._current, self._seen = [], None, set()

    def _begin(self, dialogue_id: str) -> None:
        if dialogue_id in self._seen:
            raise ContractError(
                f"the candidates of dialogue {dialogue_id} are not next to each other; sort them by dialogue"
            )
        self._seen.add(dialogue_id)
        self._current = dialogue_id


@dataclass(frozen=True, slots=True)
class Line:
    """One turn of a script: `call` is set where the assistant calls a tool instead of speaking."""

    role: str
    text: str
    call: ToolCall | None = None

    @property
    def is_spoken(self) -> bool:
        """Whether a candidate speaks this turn."""
        return self.role in ("user", "assistant") and bool(self.text.strip())


@dataclass(frozen=True, slots=True)
class Script:
    """What the candidates of a dialogue share: the column `context`, parsed."""

    axis: str
    persona: str | None
    tools: tuple[Mapping[str, Any], ...]
    lines: tuple[Line, ...]
    writer: Mapping[str, Any]

    def answers(self) -> list[tuple[int, int]]:
        """Returns (query, answer) turn indices: each spoken assistant turn and the last user turn before it."""
        pairs, query = [], None
        for index, line in enumerate(self.lines):
            if line.role == "user":
                query = index
            elif line.role == "assistant" and line.is_spoken and query is not None:
                pairs.append((query, index))
        return pairs


def parse_context(text: str | None) -> Script:
    """Returns the script in a candidate's `context`.

    Raises:
        RecordError: SCRIPT_INVALID: it is missing, no JSON, or lacks axis or turns.
    """
    try:
        document = json.loads(text or "")
        lines = tuple(_line(turn) for turn in document["turns"])
        tools = tuple(_parsed(document.get("tools")) or ())
        writer = {key: document.get(key) for key in ("generator", "generator_revision", "seed")}
        return Script(str(document["axis"]), document.get("persona") or None, tools, lines, writer)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordError("SCRIPT_INVALID", f"context of the candidate is not usable: {error!r}") from error


def _line(turn: Mapping[str, Any]) -> Line:
    call = _parsed(turn.get("call"))
    parsed = ToolCall(call["name"], dict(call.get("arguments") or {})) if call else None
    return Line(turn["role"], (turn.get("text") or "").strip(), parsed)


def _parsed(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) and value else value


def prompt_turns(script: Script, query: int, answer: int, query_audio: Ids | None) -> list[Turn]:
    """Returns the turns before an answer: persona, tools, then the history as text.

    Only the query is audio (Step-Audio, arXiv 2502.11946: earlier audio turns are replaced by their text); a tool
    call and its result may stand between query and answer.

    Args:
        script: The dialogue.
        query: Index of the user turn that is answered.
        answer: Index of the assistant turn that answers.
        query_audio: Audio run of the query; None leaves it as text.
    """
    turns = [Turn("system", script.persona)] if script.persona else []
    if script.tools:
        turns.append(tool_schema_turn(script.tools))
    for index, line in enumerate(script.lines[:answer]):
        content = f"{line.text}{render_tool_call(line.call)}" if line.call else line.text
        turns.append(Turn(line.role, content, query_audio if index == query else None))
    return turns


def prompt_ids(turns: Sequence[Turn], encode: Encode, special: SpecialTokens) -> Ids:
    """Returns the ids of a prompt, int32 [n], up to and including the open assistant turn.

    As `tokens.templates.chat_prompt_ids`, but a tool call is written with the ids of its call tokens, which a text
    tokenizer does not make.

    Raises:
        ContractError: A turn cannot be encoded.
        ConfigError: A call is in the prompt and the tokenizer has no call tokens.
    """
    parts = [turn_ids(turn.written_role, _body(turn, special), encode, special) for turn in turns]
    return np.concatenate([*parts, open_turn_ids("assistant", encode, special)])


def _body(turn: Turn, special: SpecialTokens) -> list[Any]:
    if turn.audio_ids is not None:
        return [turn.content, turn.audio_ids] if turn.with_text else [turn.audio_ids]
    before, opened, rest = turn.content.partition(TOKEN_STRINGS["call_start"])
    if turn.role != "assistant" or not opened:
        return [turn.content]
    inside, _, _ = rest.partition(TOKEN_STRINGS["call_end"])
    start, end = ([special[name]] for name in ("call_start", "call_end"))
    return [*([before] if before else []), start, inside, end]


def prompt_string(turns: Sequence[Turn]) -> str:
    """Returns a prompt as text, its audio as the transcript.

    Raises:
        ContractError: A text holds a turn token.
    """
    return chat_prompt_string([Turn(turn.role, turn.content) for turn in turns])


def audio_run(row: Mapping[str, Any]) -> Ids:
    """Returns the audio ids of a row's codes, int32 [5 * groups].

    Raises:
        RecordError: TOO_FEW_TOKENS: there is not one whole group.
        ContractError: A code is out of range.
    """
    layout = interleave_codes(row["vq02"] or [], row["vq06"] or [])
    if not layout.num_groups:
        raise RecordError("TOO_FEW_TOKENS", "the codes do not fill one group of 120 ms")
    return layout.ids


def shared_tokenizer(rows: Sequence[Mapping[str, Any]]) -> tuple[str, int]:
    """Returns tokenizer hash and bit width that all rows share.

    Raises:
        RecordError: TOKENIZER_MISMATCH: they do not, or a row has none.
    """
    found = {(row["tokenizer_hash"], row["quant_bits"]) for row in rows}
    if len(found) != 1 or None in next(iter(found)):
        names = ", ".join(sorted(map(str, found)))
        raise RecordError("TOKENIZER_MISMATCH", f"the codes of one record are of no or several tokenizers: {names}")
    ((name, bits),) = found
    return name, bits


def chosen_takes(rows: Sequence[Row]) -> dict[tuple[int, int], Row]:
    """Returns the selected take of each (turn, variant)."""
    return {(row["turn"], row["variant"]): row for row in rows if row["selected"]}
