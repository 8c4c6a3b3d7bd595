"""Speak: a synthesizer speaks each candidate in a consented voice; without consent it is refused here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from data_engine.backends.protocols import Speech, SpeechRequest, Synthesizer, VoicePrompt
from data_engine.core.config import BackendChoice, Settings, role, speed_knob
from data_engine.core.errors import RecordError
from data_engine.core.schema import load_schema
from data_engine.core.stage import BatchHint, Reject, StageResult, StageSpec, Worker, iterate_rows
from data_engine.io.audio import decode_bytes, encode_flac
from data_engine.stages.rules.consent import CONSENT_COLUMNS, TableReference, require_consent
from data_engine.stages.rules.voice_library import LoadVoices, VoiceLibrary, read_voices

Row = dict[str, Any]
_PROMPT_COLUMNS = ("audio", "text", "embedding", "f0_median_hz", "f0_std_semitones")


class Speak:
    """Adds the audio of each candidate. A voice speaks only if the voices table itself says that it may be cloned.

    Consumes: candidate_id, language, text, emotion, level, dialect, speed, voice_id, seed
    Produces: candidate_id, generator, generator_revision, generator_params, is_synthetic, audio, num_samples,
        sample_rate
    Rejects: VOICE_NOT_CONSENTED, UNSUPPORTED_LANGUAGE, UNSUPPORTED_CONTROL, SYNTHESIS_FAILED, DECODE_FAILED
    """

    class Config(Settings):
        """Settings of the speaking.

        Attributes:
            voices: Where the voices are.
            tts: Back end of role `tts`.
            batch_rows: Candidates at once; a service speaks so many at a time.
        """

        voices: TableReference = TableReference()
        tts: BackendChoice = role("tts", "espeak")
        batch_rows: int = speed_knob(32, ge=1)

    def __init__(self, config: Config, load_voices: LoadVoices = read_voices) -> None:
        self.config, self._load_voices = config, load_voices
        schema = load_schema("candidate")
        self.spec = StageSpec(
            name="speak",
            version="1",
            consumes=schema.pick("language", "text", "emotion", "level", "dialect", "speed", "voice_id", "seed"),
            produces=schema.pick(
                "audio", "num_samples", "sample_rate", "generator", "generator_revision", "generator_params",
                "is_synthetic",
            ),
            shape="map",
            batch=BatchHint(max_rows=config.batch_rows),
        )  # fmt: skip

    def open(self, worker: Worker) -> None:
        """Takes the synthesizer and the voices; a prompt is decoded when it is first needed."""
        choice = self.config.tts
        self._synthesizer: Synthesizer = worker.backend("tts", choice.name, choice.options)
        self._voices: VoiceLibrary = {}
        if self.config.voices.uri:
            self._voices = self._load_voices(self.config.voices.uri, (*CONSENT_COLUMNS, *_PROMPT_COLUMNS))
        self._prompts: dict[str, VoicePrompt] = {}

    def process(self, batch: pa.RecordBatch) -> StageResult:
        """Refuses what has no consent, and speaks the rest."""
        requests: dict[str, SpeechRequest] = {}
        outcomes: dict[str, Speech | RecordError] = {}
        for row in iterate_rows(batch):
            try:
                requests[row["candidate_id"]] = self._request(row)
            except RecordError as error:
                outcomes[row["candidate_id"]] = error
        outcomes |= dict(zip(requests, self._speak(list(requests.values())), strict=True))
        return self._result(batch, outcomes)

    def close(self) -> None:
        """Forgets voices; back ends are closed by their cache."""
        self._voices, self._prompts = {}, {}

    def _result(self, batch: pa.RecordBatch, outcomes: Mapping[str, Speech | RecordError]) -> StageResult:
        rows: list[Row] = []
        rejects: list[Reject] = []
        for row in iterate_rows(batch.select(["candidate_id"])):
            candidate_id = row["candidate_id"]
            outcome = outcomes[candidate_id]
            if isinstance(outcome, RecordError):
                rejects.append(Reject(candidate_id, outcome.code, outcome.detail))
            else:
                rows.append({"candidate_id": candidate_id, **self._columns(candidate_id, outcome)})
        refused = sum(reject.code == "VOICE_NOT_CONSENTED" for reject in rejects)
        return StageResult(self.spec.produces.batch(rows), rejects, {"refused_without_consent": float(refused)})

    def _columns(self, candidate_id: str, speech: Speech) -> Row:
        encoded = encode_flac(speech.wave, speech.sample_rate)
        return {
            "audio": {"bytes": encoded, "path": f"{candidate_id}.flac"},
            "num_samples": len(speech.wave),
            "sample_rate": speech.sample_rate,
            "generator": self.config.tts.name,
            "generator_revision": self._synthesizer.revision,
            "generator_params": json.dumps(dict(speech.parameters), ensure_ascii=False, sort_keys=True),
            "is_synthetic": True,
        }

    def _request(self, row: Row) -> SpeechRequest:
        voice = require_consent(row["voice_id"], self._voices.get(row["voice_id"]))
        names = ("text", "language", "seed", "emotion", "level", "dialect", "speed")
        return SpeechRequest(voice=self._prompt(row["voice_id"], voice), **{name: row[name] for name in names})

    def _prompt(self, voice_id: str, voice: Mapping[str, Any]) -> VoicePrompt:
        if voice_id not in self._prompts:
            channels, rate = decode_bytes(voice["audio"]["bytes"])
            self._prompts[voice_id] = VoicePrompt(
                voice_id, channels.mean(axis=0, dtype=np.float32), rate, voice["text"],
                np.asarray(voice["embedding"], np.float32), voice["f0_median_hz"], voice["f0_std_semitones"],
            )  # fmt: skip
        return self._prompts[voice_id]

    def _speak(self, requests: list[SpeechRequest]) -> list[Speech | RecordError]:
        """Returns speech; when one request of a batch fails, each is spoken alone to find which."""
        if not requests:
            return []
        try:
            return [_audible(speech) for speech in self._synthesizer.speak(requests)]
        except RecordError as error:
            return [error] if len(requests) == 1 else [self._speak([request])[0] for request in requests]


def _audible(speech: Speech) -> Speech:
    """Returns the speech if it can be stored.

    Raises:
        RecordError: SYNTHESIS_FAILED, the synthesizer returned nothing or broken samples.
    """
    if not len(speech.wave) or not np.isfinite(speech.wave).all():
        raise RecordError("SYNTHESIS_FAILED", "the synthesizer returned no sample, or samples that are not finite")
    return speech
