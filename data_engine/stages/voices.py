"""Voices: the best 3 to 15 seconds of each speaker become a prompt that carries the speaker's consent record."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from data_engine.backends.protocols import Codec, SpeakerEmbedder, Wave
from data_engine.core.config import BackendChoice, Settings, role, speed_knob
from data_engine.core.errors import RecordError
from data_engine.core.ids import content_id
from data_engine.core.schema import load_schema
from data_engine.core.stage import BatchHint, Reject, StageResult, StageSpec, Worker, iterate_rows
from data_engine.io.audio import decode_bytes, encode_flac
from data_engine.io.decoding.resample import resample
from data_engine.models.pitch import QUICK, fundamental_frequency, pitch_statistics
from data_engine.stages.rules.voice_prompt import (
    PromptRules,
    Row,
    Shortlists,
    choose,
    joined_text,
    joined_wave,
    seconds,
    segment_score,
    weighted_mean,
)
from data_engine.tokens.layout import num_groups

_READ = (
    "recording_id", "channel", "start", "num_samples", "sample_rate", "speaker_id", "language", "licence",
    "consent_basis", "allowed_uses", "audio", "text", "text_confidence", "dnsmos_ovr", "snr_db", "clipping_ratio",
    "speaking_rate", "decision", "language_confidence", "text_flags", "overlap_ratio",
)  # fmt: skip


class Voices:
    """Makes one voice per speaker, language and consent record; segments of different consent are never joined.

    Segments that the policy did not keep are unused as `not_kept`, others as `no_audio`, `too_short`, `too_long`,
    `overlapped`, for their text (`text_flagged`, `text_rate`, `language_unsure`, `text_script`), as `not_best`, or
    `too_little_speech` when the speaker has less than the shortest prompt.

    Consumes: segment_id, recording_id, channel, start, num_samples, sample_rate, speaker_id, language, licence,
        consent_basis, allowed_uses, audio, text, text_confidence, dnsmos_ovr, snr_db, clipping_ratio,
        speaking_rate, decision, language_confidence, text_flags, overlap_ratio
    Produces: voice_id, recording_id, speaker_id, language, licence, consent_basis, allowed_uses, audio, num_samples,
        sample_rate, text, segment_ids, embedding, f0_median_hz, f0_std_semitones, speaking_rate, dnsmos_ovr, vq02,
        vq06, num_groups, codec, tokenizer_hash, quant_bits, score, merged_speakers
    Rejects: DECODE_FAILED
    """

    class Config(Settings):
        """Settings of the prompts.

        Attributes:
            target_seconds: A prompt grows until it is this long.
            min_seconds: A speaker with less gives no voice.
            max_seconds: No prompt is longer.
            min_segment_seconds: Shorter segments are not used.
            gap_seconds: Silence between the segments of a prompt.
            rules: What else a segment must be.
            codec: Back end of role `codec`.
            speaker: Back end of role `speaker`.
            batch_rows: Rows at once.
        """

        target_seconds: float = Field(default=8.0, gt=0)
        min_seconds: float = Field(default=3.0, gt=0)
        max_seconds: float = Field(default=15.0, gt=0)
        min_segment_seconds: float = Field(default=0.8, ge=0)
        gap_seconds: float = Field(default=0.2, ge=0)
        rules: PromptRules = PromptRules()
        codec: BackendChoice = role("codec", "nano")
        speaker: BackendChoice = role("speaker", "resemblyzer")
        batch_rows: int = speed_knob(64, ge=1)

        @model_validator(mode="after")
        def _in_order(self) -> Voices.Config:
            if not self.min_seconds <= self.target_seconds <= self.max_seconds:
                raise ValueError("need min_seconds <= target_seconds <= max_seconds")
            return self

    def __init__(self, config: Config) -> None:
        self.config = config
        self.spec = StageSpec(
            name="voices",
            version="3",
            consumes=load_schema("segment").pick(*_READ),
            produces=load_schema("voice"),
            shape="fold",
            parents="segment_ids",
            batch=BatchHint(max_rows=config.batch_rows),
        )
        self._speakers = Shortlists(config.min_segment_seconds, config.max_seconds, config.rules)

    def open(self, worker: Worker) -> None:
        """Takes codec and speaker embedder."""
        codec, speaker = self.config.codec, self.config.speaker
        self._codec: Codec = worker.backend("codec", codec.name, codec.options)
        self._embedder: SpeakerEmbedder = worker.backend("speaker", speaker.name, speaker.options)
        self._speakers.take()

    def process(self, batch: pa.RecordBatch) -> StageResult:
        """Takes the segments that may become a prompt; returns no row."""
        unused = self._speakers.add(iterate_rows(batch))
        return StageResult(self.spec.produces.batch([]), unused=unused)

    def finish(self) -> StageResult:
        """Returns the voices, by speaker."""
        rows: list[Row] = []
        rejects: list[Reject] = []
        unused: dict[str, str] = {}
        shortlists = self._speakers.take()
        for shortlist in shortlists:
            chosen = choose(shortlist, self.config.target_seconds, self.config.max_seconds, self.config.gap_seconds)
            enough = sum(map(seconds, chosen)) >= self.config.min_seconds
            used = {row["segment_id"] for row in chosen} if enough else set()
            try:
                rows += [self._voice(chosen)] if enough else []
            except RecordError as error:
                rejects += [Reject(row["segment_id"], error.code, error.detail) for row in chosen]
            left = (name for (_, name), _ in shortlist.held if name not in used)
            unused |= dict.fromkeys(left, "not_best" if enough else "too_little_speech")
        metrics = {"speakers": float(len(shortlists)), "voices": float(len(rows))}
        return StageResult(self.spec.produces.batch(rows), rejects, metrics, unused)

    def close(self) -> None:
        """Back ends are closed by their cache."""
        self._speakers.take()

    def _voice(self, segments: Sequence[Row]) -> Row:
        first, rate = segments[0], segments[0]["sample_rate"]
        names = [row["segment_id"] for row in segments]
        wave = joined_wave([_wave(row) for row in segments], rate, self.config.gap_seconds)
        pitch = pitch_statistics(fundamental_frequency(wave, rate, QUICK))
        return {
            "voice_id": content_id("voice", *names),
            **{name: first[name] for name in ("recording_id", "speaker_id", "language", "licence", "consent_basis")},
            "allowed_uses": sorted(first["allowed_uses"]),
            "audio": {"bytes": encode_flac(wave, rate), "path": None},
            "num_samples": len(wave), "sample_rate": rate,
            "text": joined_text(segments), "segment_ids": names,
            "embedding": self._embedding(wave, rate),
            "f0_median_hz": pitch.median_hz, "f0_std_semitones": pitch.std_semitones,
            "speaking_rate": weighted_mean(segments, [row["speaking_rate"] for row in segments]),
            "dnsmos_ovr": weighted_mean(segments, [row["dnsmos_ovr"] for row in segments]),
            **self._tokens(wave, rate),
            "score": self._score(segments),
        }  # fmt: skip

    def _embedding(self, wave: Wave, rate: int) -> list[float]:
        vector = self._embedder.embed([resample(wave, rate, self._embedder.sample_rate)])[0]
        return [float(value) for value in vector]

    def _tokens(self, wave: Wave, rate: int) -> Row:
        streams = self._codec.encode([resample(wave, rate, self._codec.sample_rate)])[0]
        return {
            "vq02": streams.vq02, "vq06": streams.vq06,
            "num_groups": num_groups(len(streams.vq02), len(streams.vq06)),
            "codec": self.config.codec.name,
            "tokenizer_hash": self._codec.revision,
            "quant_bits": self._codec.quant_bits,
        }  # fmt: skip

    def _score(self, segments: Sequence[Row]) -> float:
        """Returns the mean score of the segments by length, lowered when the prompt is shorter than wanted."""
        mean = weighted_mean(segments, [segment_score(row) for row in segments]) or 0.0
        return mean * min(1.0, sum(map(seconds, segments)) / self.config.target_seconds)


def _wave(row: Row) -> Wave:
    samples, _ = decode_bytes(row["audio"]["bytes"])
    return np.ascontiguousarray(samples[0])
