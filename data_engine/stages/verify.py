"""Verify: measures each spoken candidate against what was asked. It decides nothing; `select` does."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from pydantic import Field

from data_engine.backends.prosody_rules import ProsodyRules, ProsodyTargets, asked_prosody, read_rules
from data_engine.backends.protocols import Recognizer, SpeakerEmbedder
from data_engine.core.config import BackendChoice, Settings, role, speed_knob
from data_engine.core.errors import RecordError
from data_engine.core.schema import load_schema
from data_engine.core.stage import BatchHint, Reject, StageResult, StageSpec, Worker, iterate_rows
from data_engine.models.acoustics import longest_pause
from data_engine.models.syllables import count_syllables, speaking_rate
from data_engine.stages.annotate import Clip, decode_clip
from data_engine.stages.rules.consent import TableReference
from data_engine.stages.rules.measures import cosine, finite, ratio, repetition, word_error_rate
from data_engine.stages.rules.voice_library import LoadVoices, VoiceLibrary, read_voices

Row = dict[str, Any]
Clips = dict[int, Clip]


class Verify:
    """Adds what was measured: rate and pitch over what was asked, what was heard, the voice, pauses, repeats.

    The rate asked for is the language's base rate times the tempo of emotion, level and speed; the pitch asked for is
    the voice's median times the pitch factor of the emotion.

    Consumes: candidate_id, language, text, emotion, level, speed, voice_id, audio, num_samples, sample_rate,
        f0_median_hz, vq02, vq06
    Produces: candidate_id, rate_ratio, pitch_ratio, heard, word_error_rate, speaker_similarity, longest_silence,
        repetition
    Rejects: DECODE_FAILED
    """

    class Config(Settings):
        """Settings of the measurement.

        Attributes:
            voices: Where the voices are; without them nothing is compared with a voice.
            asr: Back end of role `asr`; languages it does not have are not transcribed.
            speaker: Back end of role `speaker`; the one that made the voices' embeddings.
            base_rates: Syllables per second of speech at normal speed, neutral emotion, by language; the defaults are
                the medians of the embedded synthesizer over the script bank.
            batch_rows: Rows at once.
            batch_seconds: Seconds of audio at once.
        """

        voices: TableReference = TableReference()
        asr: BackendChoice = role("asr", "nano")
        speaker: BackendChoice = role("speaker", "resemblyzer")
        base_rates: dict[str, float] = Field(default={"en": 4.55, "zh": 4.65})
        batch_rows: int = speed_knob(32, ge=1)
        batch_seconds: float = speed_knob(240.0, gt=0)

    def __init__(self, config: Config, load_voices: LoadVoices = read_voices) -> None:
        self.config, self._load_voices = config, load_voices
        schema = load_schema("candidate")
        self.spec = StageSpec(
            name="verify",
            version="1",
            consumes=schema.pick(
                "language", "text", "emotion", "level", "speed", "voice_id", "audio", "num_samples", "sample_rate",
                "f0_median_hz", "vq02", "vq06",
            ),
            produces=schema.pick(
                "rate_ratio", "pitch_ratio", "heard", "word_error_rate", "speaker_similarity", "longest_silence",
                "repetition",
            ),
            shape="map",
            batch=BatchHint(max_rows=config.batch_rows, max_seconds=config.batch_seconds),
        )  # fmt: skip

    def open(self, worker: Worker) -> None:
        """Takes recognizer, speaker embedder, control rules and the voices."""
        asr, speaker = self.config.asr, self.config.speaker
        self._recognizer: Recognizer = worker.backend("asr", asr.name, asr.options)
        self._embedder: SpeakerEmbedder = worker.backend("speaker", speaker.name, speaker.options)
        self._rules: ProsodyRules = read_rules()
        self._voices: VoiceLibrary = {}
        if self.config.voices.uri:
            self._voices = self._load_voices(self.config.voices.uri, ("embedding", "f0_median_hz"))

    def process(self, batch: pa.RecordBatch) -> StageResult:
        """Returns the measures of each candidate; each model sees all clips it can judge at once."""
        rows, clips, rejects = _decoded(batch)
        heard, similarity = self._hear(rows, clips), self._compare(rows, clips)
        measured = [self._measure(row, clips.get(i), heard.get(i), similarity.get(i)) for i, row in enumerate(rows)]
        metrics = {
            "recognized": float(len(heard)),
            "unknown_voice": float(sum(row["voice_id"] not in self._voices for row in rows)),
        }
        return StageResult(self.spec.produces.batch(measured), rejects, metrics)

    def close(self) -> None:
        """Back ends are closed by their cache."""

    def _hear(self, rows: list[Row], clips: Clips) -> dict[int, str]:
        """Returns what was heard by row, one call of the recognizer per language; nothing is heard in silence."""
        known = {i for i in clips if rows[i]["language"] in self._recognizer.languages}
        heard = {i: "" for i in known if not clips[i].measurable}
        for language in sorted({rows[i]["language"] for i in known}):
            indices = sorted(i for i in known - heard.keys() if rows[i]["language"] == language)
            if indices:
                waves = [clips[i].at(self._recognizer.sample_rate) for i in indices]
                texts = self._recognizer.transcribe(waves, language)
                heard |= {i: transcript.text for i, transcript in zip(indices, texts, strict=True)}
        return heard

    def _compare(self, rows: list[Row], clips: Clips) -> dict[int, float | None]:
        """Returns the similarity to the voice by row, for the voices there are."""
        indices = [i for i in clips if clips[i].measurable and rows[i]["voice_id"] in self._voices]
        if not indices:
            return {}
        embeddings = self._embedder.embed([clips[i].at(self._embedder.sample_rate) for i in indices])
        voices = (self._voices[rows[i]["voice_id"]]["embedding"] for i in indices)
        return {i: cosine(e, v) for i, e, v in zip(indices, embeddings, voices, strict=True)}

    def _measure(self, row: Row, clip: Clip | None, heard: str | None, similarity: float | None) -> Row:
        asked = self._asked(row)
        base, voice_f0 = self._base_rate(row["language"]), self._voices.get(row["voice_id"], {}).get("f0_median_hz")
        measured = {
            "rate_ratio": ratio(_rate(row, clip), _times(base, asked.tempo if asked else None)),
            "pitch_ratio": ratio(row["f0_median_hz"], _times(voice_f0, asked.pitch_factor if asked else None)),
            "heard": heard,
            "word_error_rate": None if heard is None else word_error_rate(row["text"], heard),
            "speaker_similarity": similarity,
            "longest_silence": longest_pause(clip.where) if clip else None,
            "repetition": repetition(row["vq02"], row["vq06"], heard),
        }
        return {"candidate_id": row["candidate_id"], **finite(measured)}

    def _asked(self, row: Row) -> ProsodyTargets | None:
        try:
            return asked_prosody(row["emotion"], row["level"], row["speed"], self._rules)
        except RecordError:  # a control of another synthesizer: what it asks for is not known as numbers
            return None

    def _base_rate(self, language: str) -> float | None:
        rates = self.config.base_rates
        return rates.get(language, rates.get(language.split("-")[0]))


def _decoded(batch: pa.RecordBatch) -> tuple[list[Row], Clips, list[Reject]]:
    """Returns the rows that decode, without their bytes, their clips by place in that list, and the rejects."""
    rows: list[Row] = []
    clips: Clips = {}
    rejects: list[Reject] = []
    for row in iterate_rows(batch):
        try:
            clip = decode_clip(row.pop("audio"))
        except RecordError as error:
            rejects.append(Reject(row["candidate_id"], error.code, error.detail))
            continue
        if clip is not None:
            clips[len(rows)] = clip
        rows.append(row)
    return rows, clips, rejects


def _rate(row: Row, clip: Clip | None) -> float | None:
    """Returns syllables of the text per second of speech; None where they cannot be counted."""
    syllables = count_syllables(row["text"], row["language"]) if clip else None
    return speaking_rate(syllables, clip.where) if clip and syllables else None


def _times(value: float | None, factor: float | None) -> float | None:
    return None if value is None or factor is None else value * factor
