"""Decode: source items -> recordings at one sample rate, in the scratch of the shard, with their levels."""

from __future__ import annotations

import hashlib
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
from data_engine.core.schema import load_schema
from data_engine.core.stage import BatchHint, Reject, StageResult, StageSpec, Worker, iterate_rows
from data_engine.io.audio import AudioInfo, decode_blocks, probe
from data_engine.io.levels import FloatArray, LevelMeter, Levels
from data_engine.io.localize import LocalFile, Localizer
from data_engine.io.mixing import active_channels, gain_for, mix_weights, one_channel, split_weights
from data_engine.io.resample import Resampler, resampled_length
from data_engine.io.scratch import ScratchAudio

_COPIED = ("item_id", "uri", "member", "language", "speaker", "licence", "consent_basis", "allowed_uses", "text", "attributes")
_SECONDS_PER_BLOCK = 10.0
_MIX_BLOCK = 1 << 20
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
            version="1",
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
            raise RecordError("DUPLICATE", f"the same bytes as item {item['duplicate_of']}, which is used instead")
        local = self._localizer.localize(item, self._downloads)
        try:
            first = self._taken.setdefault(local.recording_id, item["item_id"])
            if first != item["item_id"]:
                raise RecordError("DUPLICATE", f"the same bytes as item {first}, which is used instead")
            return {**{name: item[name] for name in _COPIED}, **self._decode(local, _attributes(item))}
        finally:
            local.release()

    def _decode(self, local: LocalFile, attributes: Mapping[str, Any]) -> dict[str, Any]:
        recording_id = local.recording_id
        info = probe(local.path)
        raw_id, damage = f"{recording_id}-source", list[str]()
        try:
            levels = self._decode_source(local.path, info, raw_id, damage)
            self._check(info, levels)
            weights, antiphase = self._weights(info, levels, attributes)
            gain = self._mix(raw_id, recording_id, weights, levels)
        finally:
            self._scratch.discard(raw_id)
        warnings = self._warnings(info, levels, damage, weights, gain)
        return self._row(recording_id, info, levels, weights, gain, [*warnings, *["ANTIPHASE"] * antiphase])

    def _decode_source(self, path: Path, info: AudioInfo, raw_id: str, damage: list[str]) -> Levels:
        """Decodes, measures and resamples each source channel into scratch.

        Raises:
            RecordError: TOO_SHORT for no sample at all, TOO_LONG as soon as the limit is passed.
        """
        meter = LevelMeter(info.channels, info.sample_rate)
        resampler = Resampler(info.sample_rate, self.config.sample_rate, info.channels)
        writers = [self._scratch.writer(raw_id, channel) for channel in range(info.channels)]
        limit = self.config.max_hours * 3600 * info.sample_rate
        try:
            for block in decode_blocks(path, _SECONDS_PER_BLOCK, info, damage):
                for writer, samples in zip(writers, resampler.push(meter.push(block)), strict=True):
                    writer.append(samples)
                if meter.num_samples > limit:
                    raise RecordError("TOO_LONG", f"longer than {self.config.max_hours:g} hours (decode.max_hours)")
            for writer, samples in zip(writers, resampler.finish(), strict=True):
                writer.append(samples)
        finally:
            for writer in writers:
                writer.close()
        if not meter.num_samples:
            promise = f"the header promises {info.declared_num_samples}" if info.declared_num_samples else "an empty track"
            raise RecordError("TOO_SHORT", f"0 samples could be decoded; {promise}")
        return meter.levels()

    def _check(self, info: AudioInfo, levels: Levels) -> None:
        """Raises RecordError for sound that is too short, broken, silent, or not as long as declared."""
        seconds = levels.num_samples / info.sample_rate
        if seconds < self.config.min_seconds:
            raise RecordError("TOO_SHORT", f"{seconds:.4g} s, less than {self.config.min_seconds:g} s (decode.min_seconds)")
        broken = levels.non_finite / (levels.num_samples * info.channels)
        if broken >= _MOST_NON_FINITE:
            raise RecordError("NON_FINITE", f"{broken:.1%} of the samples are NaN, infinite or beyond any scale")
        swing = max((s for c, s in enumerate(levels.swing) if c not in info.lfe_channels), default=0.0)
        if _dbfs(swing) < self.config.silence_dbfs:
            offset = f" around a constant offset of {levels.offset[0]:.3g}" if levels.offset.any() else ""
            raise RecordError("SILENT", f"peak {_dbfs(swing):.0f} dBFS{offset}, below {self.config.silence_dbfs:g} dBFS")
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

    def _mix(self, raw_id: str, recording_id: str, weights: FloatArray, levels: Levels) -> float:
        """Writes the output channels from the source channels and returns the gain, equal for all."""
        mixers = [_Mixer(self._scratch, raw_id, row, levels.residual) for row in weights]
        gain = gain_for(max(mixer.peak() for mixer in mixers))
        for channel, mixer in enumerate(mixers):
            mixer.write(recording_id, channel, gain)
        return gain

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
            "split": split_of(recording_id),
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


