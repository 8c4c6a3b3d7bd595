"""Stage `tokenize`: turns speech into the two code streams a model is trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import pyarrow as pa

from data_engine.backends.protocols import Codec, CodeStreams, Wave
from data_engine.core.config import BackendChoice, Settings, role, speed_knob
from data_engine.core.errors import RecordError
from data_engine.core.schema import load_schema
from data_engine.core.stage import BatchHint, Reject, StageResult, StageSpec, Worker, iterate_rows
from data_engine.io.audio import decode_bytes
from data_engine.io.decoding.resample import resample
from data_engine.tokens.layout import expected_counts, num_groups

_CONSUMES = ("audio", "num_samples", "sample_rate")
_PRODUCES = ("vq02", "vq06", "num_groups", "codec", "tokenizer_hash", "quant_bits")


class TokenizeConfig(Settings):
    """Configuration of `tokenize`.

    Attributes:
        record: What the rows are: curated segments or synthesized candidates.
        codec: Back end of the role `codec`.
        max_rows: At most so many clips at once.
        max_seconds: At most so many seconds of audio at once.
    """

    record: Literal["segment", "candidate"] = "segment"
    codec: BackendChoice = role("codec", "nano")
    max_rows: int = speed_knob(64, ge=1)
    max_seconds: float = speed_knob(300.0, gt=0.0)


class Tokenize:
    """Adds the raw codes of both streams; codes beyond the last complete group are kept.

    Consumes: audio, num_samples, sample_rate
    Produces: vq02, vq06, num_groups, codec, tokenizer_hash, quant_bits
    Rejects: TOO_FEW_TOKENS, DECODE_FAILED, TRUNCATED_HEADER, NOT_AUDIO, EMPTY_FILE

    A clip that does not fill one group of 120 ms is rejected: no audio run can be laid out from it.
    """

    Config = TokenizeConfig

    def __init__(self, config: TokenizeConfig) -> None:
        self._config = config
        self._codec: Codec | None = None
        self._stamp: dict[str, Any] = {}
        schema = load_schema(config.record)
        hint = BatchHint(config.max_rows, config.max_seconds)
        self.spec = StageSpec("tokenize", "1", schema.pick(*_CONSUMES), schema.pick(*_PRODUCES), "map", batch=hint)

    def open(self, worker: Worker) -> None:
        """Loads the codec."""
        codec: Codec = worker.backend("codec", self._config.codec.name, self._config.codec.options)
        self._codec = codec
        self._stamp = {
            "codec": self._config.codec.name, "tokenizer_hash": codec.revision, "quant_bits": codec.quant_bits,
        }  # fmt: skip

    def close(self) -> None:
        """Lets go of the codec; the worker's cache owns it."""
        self._codec = None

    def process(self, batch: pa.RecordBatch) -> StageResult:
        """Tokenizes one batch; the codec sees all its waves at once."""
        assert self._codec is not None
        waves: dict[str, Wave] = {}
        rejects: list[Reject] = []
        for row in iterate_rows(batch):
            record_id = row[self.spec.produces.id]
            try:
                waves[record_id] = clip_wave(row, self._codec.sample_rate)
            except RecordError as error:
                rejects.append(Reject(record_id, error.code, error.detail))
        rows = []
        for record_id, streams in zip(waves, self._codec.encode(list(waves.values())), strict=True):
            count = num_groups(len(streams.vq02), len(streams.vq06))
            if count:
                rows.append(self._row(record_id, streams, count))
            else:
                rejects.append(Reject(record_id, "TOO_FEW_TOKENS", "the codec gave no complete group"))
        metrics = {"token_groups": float(sum(row["num_groups"] for row in rows))}
        return StageResult(self.spec.produces.batch(rows), rejects, metrics)

    def _row(self, record_id: str, streams: CodeStreams, count: int) -> dict[str, Any]:
        codes = {"vq02": streams.vq02, "vq06": streams.vq06, "num_groups": count}
        return {self.spec.produces.id: record_id, **codes, **self._stamp}


def clip_wave(row: Mapping[str, Any], sample_rate: int) -> Wave:
    """Returns a clip's sound, mono float32 [samples] at the codec's rate.

    Args:
        row: audio, num_samples and sample_rate of a record.
        sample_rate: Hz.

    Raises:
        RecordError: TOO_FEW_TOKENS before anything is decoded when the clip cannot fill a group, or the code of the
            decoder when the bytes are no sound.
    """
    if row["audio"] is None or not row["num_samples"]:
        raise RecordError("TOO_FEW_TOKENS", "the record has no audio")
    if not expected_counts(row["num_samples"], row["sample_rate"])[2]:
        seconds = row["num_samples"] / row["sample_rate"]
        raise RecordError("TOO_FEW_TOKENS", f"{seconds:.3f} s do not fill one group of 120 ms")
    samples, rate = decode_bytes(row["audio"]["bytes"])
    return resample(samples[0], rate, sample_rate)
