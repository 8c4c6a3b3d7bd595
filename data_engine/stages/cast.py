"""Cast: gives each spoken turn of a dialogue its voice and its takes; nothing is spoken yet."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import pyarrow as pa

from data_engine.core.config import BackendChoice, Settings, role, speed_knob
from data_engine.core.errors import RecordError
from data_engine.core.ids import content_id, seed_of
from data_engine.core.schema import load_schema
from data_engine.core.stage import BatchHint, Reject, StageResult, StageSpec, Worker, iterate_rows
from data_engine.stages.rules.consent import TableReference, may_be_cloned
from data_engine.stages.rules.script_rules import is_spoken
from data_engine.stages.rules.voice_library import LoadVoices, VoiceLibrary, read_voices

Row = dict[str, Any]
_VOICE_COLUMNS = ("language", "speaker_id", "licence", "consent_basis", "allowed_uses")


class Cast:
    """Makes a candidate row per spoken turn, variant of its text and take; each role keeps one voice per dialogue.

    Consumes: dialogue_id, language, axis, split, persona, tools, turns, generator, generator_revision, seed
    Produces: candidate_id, dialogue_id, turn, role, variant, variant_axis, take, language, split, text, context,
        emotion, level, dialect, speed, voice_id, licence, consent_basis, allowed_uses, seed
    Rejects: NO_VOICE, NO_CHILDREN
    """

    class Config(Settings):
        """Settings of the casting.

        Attributes:
            voices: Where the voices are.
            voices_from: `consented`: those that may be cloned; when none may, all of them, so that `speak` refuses
                each by name. `all`: any.
            tts: Back end of role `tts` that will speak, as in `speak`: it is part of what a candidate is.
            assistant_takes: Takes of what the assistant says.
            user_takes: Takes of what the user says.
            alternative_takes: Takes of each alternative of an assistant turn.
            batch_rows: Dialogues at once.
        """

        voices: TableReference = TableReference()
        voices_from: Literal["consented", "all"] = "consented"
        tts: BackendChoice = role("tts", "espeak")
        assistant_takes: int = 4
        user_takes: int = 2
        alternative_takes: int = 2
        batch_rows: int = speed_knob(64, ge=1)

    def __init__(self, config: Config, load_voices: LoadVoices = read_voices) -> None:
        self.config, self._load_voices = config, load_voices
        self.spec = StageSpec(
            name="cast",
            version="1",
            consumes=load_schema("script").pick(
                "language", "axis", "split", "persona", "tools", "turns", "generator", "generator_revision", "seed"
            ),
            produces=load_schema("candidate").pick(
                "dialogue_id", "turn", "role", "variant", "variant_axis", "take", "language", "split", "text",
                "context", "emotion", "level", "dialect", "speed", "voice_id", "licence", "consent_basis",
                "allowed_uses", "seed",
            ),
            shape="expand",
            parents="dialogue_id",
            batch=BatchHint(max_rows=config.batch_rows),
        )  # fmt: skip

    def open(self, worker: Worker) -> None:
        """Takes the voices and the revision of the synthesizer."""
        self._revision = worker.backend("tts", self.config.tts.name, self.config.tts.options).revision
        self._voices: VoiceLibrary = {}
        if self.config.voices.uri:
            self._voices = self._load_voices(self.config.voices.uri, _VOICE_COLUMNS)

    def process(self, batch: pa.RecordBatch) -> StageResult:
        """Returns the candidates of each dialogue."""
        rows: list[Row] = []
        rejects: list[Reject] = []
        for script in iterate_rows(batch):
            try:
                rows.extend(self._candidates(script))
            except RecordError as error:
                rejects.append(Reject(script["dialogue_id"], error.code, error.detail))
        return StageResult(self.spec.produces.batch(rows), rejects)

    def close(self) -> None:
        """Holds nothing but the voices."""
        self._voices = {}

    def _candidates(self, script: Row) -> list[Row]:
        if not any(is_spoken(turn) for turn in script["turns"]):
            raise RecordError("NO_CHILDREN", "no turn of this dialogue is spoken")
        chosen = choose_voices(script, self._voices, consented=self.config.voices_from == "consented")
        context = dialogue_context(script)
        return [
            self._candidate(script, context, chosen, index, turn, variant, take)
            for index, turn in enumerate(script["turns"])
            if is_spoken(turn)
            for variant, take in self._takes(turn)
        ]

    def _takes(self, turn: Row) -> Iterator[tuple[int, int]]:
        """Yields (variant, take); variant 0 is the text of the turn, k its k-th alternative."""
        takes = self.config.assistant_takes if turn["role"] == "assistant" else self.config.user_takes
        yield from ((0, take) for take in range(takes))
        for variant in range(1, len(turn["alternatives"] or []) + 1):
            yield from ((variant, take) for take in range(self.config.alternative_takes))

    def _candidate(
        self, script: Row, context: str, chosen: Mapping[str, str], index: int, turn: Row, variant: int, take: int
    ) -> Row:
        voice_id = chosen[turn["role"]]
        voice = self._voices[voice_id]
        other = turn["alternatives"][variant - 1] if variant else None
        text = other["text"] if other else turn["text"]
        controls = {name: turn[name] for name in ("emotion", "level", "dialect", "speed")}
        seed = seed_of(script["dialogue_id"], index, variant, take)
        generator = (self.config.tts.name, self._revision)
        return {
            "candidate_id": content_id(
                "candidate", script["dialogue_id"], index, text, *controls.values(), voice_id, *generator, seed
            ),
            "dialogue_id": script["dialogue_id"],
            "turn": index,
            "role": turn["role"],
            "variant": variant,
            "variant_axis": other["axis"] if other else None,
            "take": take,
            "language": script["language"],
            "split": script["split"],
            "text": text,
            "context": context,
            **controls,
            "voice_id": voice_id,
            "licence": voice["licence"],
            "consent_basis": voice["consent_basis"],
            "allowed_uses": voice["allowed_uses"],
            "seed": seed,
        }


def choose_voices(script: Mapping[str, Any], voices: VoiceLibrary, consented: bool) -> dict[str, str]:
    """Returns the voice of the user and of the assistant: two speakers where there are two.

    Voices of the dialogue's language come first when two speakers have it. The dialogue's id decides among equals.

    Args:
        script: Row of `script.v1`.
        voices: Voice id -> record.
        consented: Whether to choose among voices that may be cloned, as long as there is one.

    Raises:
        RecordError: NO_VOICE.
    """
    if not voices:
        raise RecordError("NO_VOICE", "there is no voice to speak with: curate recordings first, or set 'voices'")
    pool = sorted(voices)
    pool = [v for v in pool if may_be_cloned(voices[v])] or pool if consented else pool
    native = [v for v in pool if voices[v]["language"] == script["language"]]
    pool = native if len({voices[v]["speaker_id"] for v in native}) > 1 else pool
    user = _pick(pool, script["dialogue_id"], "user")
    others = [v for v in pool if voices[v]["speaker_id"] != voices[user]["speaker_id"]]
    return {"user": user, "assistant": _pick(others or pool, script["dialogue_id"], "assistant")}


def dialogue_context(script: Mapping[str, Any]) -> str:
    """Returns the script as JSON for the stages after: who wrote it, persona, tools, turns less alternatives."""
    turns = [{k: v for k, v in turn.items() if k != "alternatives" and v is not None} for turn in script["turns"]]
    context = {
        "axis": script["axis"],
        "persona": script["persona"],
        "tools": json.loads(script["tools"]) if script["tools"] else [],
        "turns": turns,
        **{name: script[name] for name in ("generator", "generator_revision", "seed")},
    }
    return json.dumps(context, ensure_ascii=False, sort_keys=True)


def _pick(voice_ids: Sequence[str], dialogue_id: str, part: str) -> str:
    return voice_ids[seed_of(dialogue_id, "voice", part) % len(voice_ids)]
