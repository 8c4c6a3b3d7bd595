"""Sound files in and out: probe, stream-decode, encode. Any container, any rate, any length, flat memory."""

from __future__ import annotations

import errno
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from data_engine.core.errors import RecordError
from data_engine.io.decoding.containers import AudioInfo, WavHeader, lfe_of_mask, read_head, read_wav_header, sniff
from data_engine.io.decoding.readers import (
    Samples,
    Source,
    ffmpeg_blocks,
    ffmpeg_info,
    soundfile_blocks,
    soundfile_info,
)

__all__ = ["AudioInfo", "Samples", "decode_blocks", "decode_bytes", "encode_flac", "probe"]

_LIBSNDFILE = {"wav", "rf64", "w64", "flac", "ogg", "aiff", "au", "caf", "nist"}
_LOWEST_RATE, _HIGHEST_RATE = 4_000, 768_000
_SHORT_FILE = 4_096
_NOT_IN_LIBSNDFILE = (b"OpusHead", b"Speex  ", b"\x80theora", b"\x01video")
_UNREADABLE = {
    errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.EIO, errno.ELOOP, errno.ESTALE,
}  # fmt: skip


def probe(source: str | Source) -> AudioInfo:
    """Returns what a sound file says about itself, by its content.

    Args:
        source: Path, or the bytes of a file.

    Raises:
        RecordError: UNREADABLE, EMPTY_FILE, NOT_AUDIO, TRUNCATED_HEADER, NO_AUDIO_STREAM,
            UNSUPPORTED_CODEC, DECODE_FAILED.
    """
    source = Path(source) if isinstance(source, str) else source
    try:
        head, size = read_head(source)
    except OSError as error:
        if error.errno not in _UNREADABLE:
            raise
        raise RecordError("UNREADABLE", f"the file cannot be read: {error.strerror}") from error
    if not size:
        raise RecordError("EMPTY_FILE", "the file has 0 bytes")
    container = sniff(head)
    info = _plain_info(source, container, head, size) or ffmpeg_info(source)
    if info is None:
        raise _refusal(source, container, size)
    if not _LOWEST_RATE <= info.sample_rate <= _HIGHEST_RATE or info.channels < 1:
        shape = f"{info.channels} channels at {info.sample_rate} Hz"
        raise RecordError("UNSUPPORTED_CODEC", f"{shape}; rates of {_LOWEST_RATE}-{_HIGHEST_RATE} Hz are understood")
    return info if len(info.lfe_channels) < info.channels else replace(info, lfe_channels=())


def _plain_info(source: Source, container: str, head: bytes, size: int) -> AudioInfo | None:
    """Returns what libsndfile finds, corrected by the WAV header; None when FFmpeg is the better reader."""
    if container not in _LIBSNDFILE or any(mark in head[:512] for mark in _NOT_IN_LIBSNDFILE):
        return None
    header = _wav_header(source, size) if container == "wav" and head[:4] == b"RIFF" else None
    if header is not None and header.defeats_libsndfile:
        found = ffmpeg_info(source)
        return found and replace(found, declared_num_samples=None)
    info = soundfile_info(source)
    if info is None or header is None or not header.complete:
        return info
    declared = header.declared_num_samples if header.is_pcm else info.declared_num_samples
    return replace(info, container="wav", declared_num_samples=declared, lfe_channels=lfe_of_mask(header.channel_mask))


def _wav_header(source: Source, size: int) -> WavHeader:
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        return read_wav_header(file, size)


def _refusal(source: Source, container: str, size: int) -> RecordError:
    """Returns why no library opens the file."""
    if not container:
        detail = "no sound or video format was recognised in the bytes (headerless PCM needs a WAV header)"
        return RecordError("NOT_AUDIO", detail)
    if container == "wav" and _wav_header(source, size).complete:
        return RecordError("UNSUPPORTED_CODEC", "a WAV file whose coding no decoder here knows")
    if container in ("wav", "mp4") or size < _SHORT_FILE:
        return RecordError("TRUNCATED_HEADER", f"it starts as {container}, but the header is incomplete ({size} bytes)")
    return RecordError("DECODE_FAILED", f"it starts as {container}, but no decoder can open it")


def decode_blocks(
    source: str | Source,
    block_seconds: float = 30.0,
    info: AudioInfo | None = None,
    damage: list[str] | None = None,
) -> Iterator[Samples]:
    """Yields the sound of a file in blocks, at its own rate; memory does not grow with its length.

    Args:
        source: Path, or the bytes of a file.
        block_seconds: Length of a block in seconds; the last one is shorter.
        info: What `probe` returned, to save a second look.
        damage: Receives a sentence for each part that could not be decoded.

    Yields:
        float32 [channels, samples]; full scale is 1.0, float sources may exceed it.

    Raises:
        RecordError: As `probe`; DECODE_FAILED when nothing at all can be decoded.
    """
    source = Path(source) if isinstance(source, str) else source
    found = info or probe(source)
    notes: list[str] = [] if damage is None else damage
    blocks = soundfile_blocks if found.reader == "soundfile" else ffmpeg_blocks
    anything = False
    for block in blocks(source, max(1, round(block_seconds * found.sample_rate)), notes):
        anything = True
        yield block
    if notes and not anything:
        raise RecordError("DECODE_FAILED", f"no sample of this {found.codec} could be decoded: {notes[0]}")


def decode_bytes(encoded: bytes) -> tuple[Samples, int]:
    """Decodes a whole sound file from memory.

    Returns:
        float32 [channels, samples], and the sample rate in Hz.

    Raises:
        RecordError: As `decode_blocks`.
    """
    info = probe(encoded)
    blocks = list(decode_blocks(encoded, info=info))
    empty = np.zeros((info.channels, 0), np.float32)
    return (np.concatenate(blocks, axis=1) if blocks else empty), info.sample_rate


def encode_flac(samples: Samples, sample_rate: int) -> bytes:
    """Encodes mono sound as 16-bit FLAC; equal samples give equal bytes.

    Args:
        samples: float32 [samples]; what exceeds full scale is clipped, not wrapped.
        sample_rate: Hz.

    Raises:
        ValueError: Not one channel, no sample, or a sample that is NaN or infinite.
    """
    import soundfile

    if samples.ndim != 1 or not samples.size or not np.isfinite(samples).all():
        raise ValueError(f"one channel of finite samples is needed, got shape {samples.shape}")
    scaled = np.rint(np.clip(samples.astype(np.float64) * 32768.0, -32768, 32767)).astype(np.int16)
    sink = io.BytesIO()
    soundfile.write(sink, scaled, sample_rate, format="FLAC", subtype="PCM_16")
    return sink.getvalue()
