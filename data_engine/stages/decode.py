"""Decode: source items -> recordings at one sample rate, in the scratch of the shard, with their levels."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field

from data_engine.core.config import Settings, speed_knob
from data_engine.core.errors import RecordError
from data_engine.core.ids import split_of
from data_engine.core.redaction import public_uri
from data_engine.core.schema import load_schema
from data_engine.core.stage import BatchHint, Reject, StageResult, StageSpec, Worker, iterate_rows
from data_engine.io.audio import AudioInfo, probe
from data_engine.io.decoding.canonical import CanonicalAudio
from data_engine.io.decoding.levels import FloatArray, Levels
from data_engine.io.decoding.mixing import mix_weights, one_channel, split_weights
from data_engine.io.decoding.resample import resampled_length
from data_engine.io.ingest.localize import LocalFile, Localizer
from data_engine.io.scratch import ScratchAudio

_COPIED = (
    "item_id", "uri", "member", "language", "speaker", "licence", "consent_basis", "allowed_uses", "text", "attributes",
)  # fmt: skip
_LENGTH_SLACK_SECONDS = 0.1
_NARROW_HZ, _NARROW_BELOW_DB = 4_200.0, 60.0
_CLIPPED_RATIO = 0.001
_MOST_NON_FINITE = 0.01


class DecodeConfig(Settings):
    """Settings of decode.

    Attributes:
        sample_rate: Rate of everything downstream, Hz.
        channels: `mix`: one mono sum. `split`: each channel is a speaker's own. `auto`: mix, unless the
            item's attribute `channels` says split; an attribute `channel` picks one, counted from 0.
        min_seconds: Shorter recordings are rejected as TOO_SHORT.
        max_hours: Longer recordings are rejected as TOO_LONG.
        silence_dbfs: Recordings whose peak, offset removed, is below are rejected as SILENT.
        length_tolerance: Share by which the decoded length may differ from the declared one.
        length_mismatch: `warn` uses the decodable part, `reject` refuses it as LENGTH_MISMATCH.
        batch_rows: Recordings at once.
    """

    sample_rate: int = Field(16_000, ge=8_000, le=96_000)
    channels: Literal["mix", "split", "auto"] = "auto"
    min_seconds: float = Field(0.1, ge=0)
    max_hours: float = Field(24.0, gt=0)
    silence_dbfs: float = -75.0
    length_tolerance: float = Field(0.02, ge=0, lt=1)
    length_mismatch: Literal["warn", "reject"] = "warn"
    batch_rows: int = speed_knob(8, ge=1)


class Decode:
    """Finds, decodes, repairs, mixes and resamples recordings, in one pass and in flat memory.

    The split is the item's attribute `split` when that is train, validation or test, else a hash of the recording.

    Consumes: item_id, uri, member, duplicate_of, language, speaker, licence, consent_basis, allowed_uses,
        text, attributes
    Produces: recording_id, item_id, uri, member, language, speaker, licence, consent_basis, allowed_uses,
        text, attributes, split, container, codec, source_sample_rate, source_channels, source_num_samples,
        sample_rate, num_samples, num_channels, gain_db, peak_dbfs, clipping_ratio, bandwidth_hz, warnings
    Rejects: EMPTY_FILE, NOT_AUDIO, TRUNCATED_HEADER, UNSUPPORTED_CODEC, DECODE_FAILED, NO_AUDIO_STREAM,
        LENGTH_MISMATCH, TOO_SHORT, TOO_LONG, SILENT, NON_FINITE, UNREADABLE, CHANNEL_NOT_FOUND, DUPLICATE
    """

    Config = DecodeConfig

    def __init__(self, config: DecodeConfig) -> None:
        source, recording = load_schema("source"), load_schema("recording")
        self.config = config
        self.spec = StageSpec(
            name="decode",
            version="2",
            consumes=source.pick(*_COPIED, "duplicate_of"),
            produces=recording.pick(*[n for n in recording.names if n not in ("speech", "turns", "num_speakers")]),
            shape="expand",
            parents="item_id",
            batch=BatchHint(max_rows=config.batch_rows),
        )

    def open(self, worker: Worker) -> None:
        """Takes the shard's scratch folder."""
        self._scratch = ScratchAudio(worker.scratch)
        self._downloads = Path(worker.scratch) / "downloads"
        self._localizer = Localizer()
        self._taken: dict[str, str] = {}

    def process(self, batch: pa.RecordBatch) -> StageResult:
        """Decodes each item; what cannot be decoded is rejected with the reason."""
        rows: list[dict[str, Any]] = []
        rejects: list[Reject] = []
        metrics: Counter[str] = Counter()
        for item in iterate_rows(batch):
            try:
                rows.append(self._recording(item))
                metrics.update(f"warned:{code}" for code in rows[-1]["warnings"])
            except RecordError as error:
                where = item["uri"] + (f"#{item['member']}" if item["member"] else "")
                rejects.append(Reject(item["item_id"], error.code, error.detail, input_ref=where))
        return StageResult(self.spec.produces.batch(rows), rejects, dict(metrics))

    def close(self) -> None:
        """Closes the archive that was read last."""
        if hasattr(self, "_localizer"):
            self._localizer.close()

    def _recording(self, item: Mapping[str, Any]) -> dict[str, Any]:
        if item["duplicate_of"]:
            raise RecordError("DUPLICATE", f"the same bytes as item {item['duplicate_of']}")
        local = self._localizer.localize(item, self._downloads)
        try:
            first = self._taken.setdefault(local.recording_id, item["item_id"])
            if first != item["item_id"]:
                raise RecordError("DUPLICATE", f"the same bytes as item {first}")
            copied = {name: item[name] for name in _COPIED} | {"uri": public_uri(item["uri"])}
            attributes = _attributes(item)
            return copied | {"split": _split(attributes, local.recording_id)} | self._decode(local, attributes)
        finally:
            local.release()

    def _decode(self, local: LocalFile, attributes: Mapping[str, Any]) -> dict[str, Any]:
        recording_id = local.recording_id
        info = probe(local.path)
        damage: list[str] = []
        with CanonicalAudio(self._scratch, recording_id, self.config.sample_rate) as canonical:
            levels = canonical.decode(local.path, info, self.config.max_hours * 3600, damage)
            self._check(info, levels)
            weights, antiphase = self._weights(info, levels, attributes)
            gain = canonical.mix(weights, levels.residual)
        warnings = self._warnings(info, levels, damage, weights, gain)
        return self._row(recording_id, info, levels, weights, gain, [*warnings, *["ANTIPHASE"] * antiphase])

    def _check(self, info: AudioInfo, levels: Levels) -> None:
        """Raises RecordError for sound that is too short, broken, silent, or not as long as declared."""
        seconds = levels.num_samples / info.sample_rate
        if seconds < self.config.min_seconds:
            detail = f"{seconds:.4g} s, less than {self.config.min_seconds:g} s (decode.min_seconds)"
            raise RecordError("TOO_SHORT", detail)
        broken = levels.non_finite / (levels.num_samples * info.channels)
        if broken >= _MOST_NON_FINITE:
            raise RecordError("NON_FINITE", f"{broken:.1%} of the samples are NaN, infinite or beyond any scale")
        swing = max((s for c, s in enumerate(levels.swing) if c not in info.lfe_channels), default=0.0)
        if _dbfs(swing) < self.config.silence_dbfs:
            offset = f" around a constant offset of {levels.offset[0]:.3g}" if levels.offset.any() else ""
            detail = f"peak {_dbfs(swing):.0f} dBFS{offset}, below {self.config.silence_dbfs:g} dBFS"
            raise RecordError("SILENT", detail)
        if self.config.length_mismatch == "reject" and self._missing(info, levels):
            detail = f"{levels.num_samples} samples decoded, {info.declared_num_samples} declared"
            raise RecordError("LENGTH_MISMATCH", detail)

    def _missing(self, info: AudioInfo, levels: Levels) -> int:
        """Returns declared less decoded samples when that is beyond the tolerance, else 0."""
        if info.declared_num_samples is None:
            return 0
        missing = info.declared_num_samples - levels.num_samples
        slack = max(self.config.length_tolerance * info.declared_num_samples, _LENGTH_SLACK_SECONDS * info.sample_rate)
        return missing if abs(missing) > slack else 0

    def _weights(self, info: AudioInfo, levels: Levels, attributes: Mapping[str, Any]) -> tuple[FloatArray, bool]:
        """Returns the weights [outputs, source channels] and whether a mix would have cancelled."""
        picked = _channel_number(attributes.get("channel"))
        if self.config.channels == "auto" and picked is not None:
            return one_channel(info.channels, picked), False
        split = self.config.channels == "split" or (
            self.config.channels == "auto" and attributes.get("channels") == "split"
        )
        if split and info.channels > 1:
            return split_weights(info.channels, info.lfe_channels), False
        return mix_weights(levels, info.lfe_channels)

    def _warnings(
        self, info: AudioInfo, levels: Levels, damage: list[str], weights: FloatArray, gain: float
    ) -> list[str]:
        missing = self._missing(info, levels)
        cut = info.exact and (info.declared_num_samples or 0) > levels.num_samples
        used = _used(weights)
        narrow = levels.bandwidth_hz(used, _NARROW_BELOW_DB)
        found = {
            "TRUNCATED": cut or missing > 0,
            "LENGTH_MISMATCH": missing != 0,
            "NARROW_BAND": narrow is not None and narrow <= _NARROW_HZ,
            "CLIPPED": max(levels.clipping[used]) >= _CLIPPED_RATIO,
            "OVER_FULL_SCALE": gain < 1 and max(levels.peak[used]) > 1.0,
            "QUIET": gain > 1,
            "DC_OFFSET": bool(levels.offset[used].any()),
            "NON_FINITE_REPAIRED": levels.non_finite > 0,
            "DECODE_WARNING": bool(damage),
        }
        return [code for code, applies in found.items() if applies]

    def _row(
        self, recording_id: str, info: AudioInfo, levels: Levels, weights: FloatArray, gain: float, warnings: list[str]
    ) -> dict[str, Any]:
        used = _used(weights)
        return {
            "recording_id": recording_id,
            "container": info.container,
            "codec": info.codec,
            "source_sample_rate": info.sample_rate,
            "source_channels": info.channels,
            "source_num_samples": levels.num_samples,
            "sample_rate": self.config.sample_rate,
            "num_samples": resampled_length(levels.num_samples, info.sample_rate, self.config.sample_rate),
            "num_channels": len(weights),
            "gain_db": 20 * math.log10(gain),
            "peak_dbfs": _dbfs(max(levels.peak[used])),
            "clipping_ratio": float(max(levels.clipping[used])),
            "bandwidth_hz": levels.bandwidth_hz(used),
            "warnings": warnings,
        }


def _dbfs(amplitude: float) -> float:
    """Returns decibels relative to full scale; -200 for nothing."""
    return 20 * math.log10(max(float(amplitude), 1e-10))


def _used(weights: FloatArray) -> list[int]:
    """Returns the source channels that reach an output."""
    return [channel for channel, column in enumerate(weights.T) if column.any()]


def _attributes(item: Mapping[str, Any]) -> Mapping[str, Any]:
    found = json.loads(item["attributes"]) if item["attributes"] else {}
    return found if isinstance(found, dict) else {}


def _split(attributes: Mapping[str, Any], recording_id: str) -> str:
    """Returns the split a manifest declares, so that speakers can be held out; else a hash of the recording decides."""
    declared = attributes.get("split")
    return declared if declared in ("train", "validation", "test") else split_of(recording_id)


def _channel_number(value: object) -> int | None:
    """Returns the channel a manifest asks for; what is no number is somebody's own column."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    return int(value) if str(value).isdecimal() else None
