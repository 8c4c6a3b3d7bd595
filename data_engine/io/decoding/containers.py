"""What kind of sound file some bytes are: told from the content, never from the name."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

HEAD_BYTES = 65_536
"""Bytes from the start of a file that tell its container."""

_RIFF_FORMS = {b"WAVE": "wav", b"AVI ": "avi"}
_MAGIC = (
    (b"fLaC", "flac"), (b"OggS", "ogg"), (b"ID3", "mp3"), (b"\x1aE\xdf\xa3", "matroska"), (b".snd", "au"),
    (b"caff", "caf"), (b"NIST_1A", "nist"), (b"riff\x2e\x91\xcf\x11", "w64"), (b"RF64", "rf64"),
    (b"BW64", "rf64"), (b"#!AMR", "amr"), (b"\x30\x26\xb2\x75", "asf"), (b"wvpk", "wavpack"), (b"FLV\x01", "flv"),
)  # fmt: skip
_STREAMED_SIZE = 0x7FFF_0000
_WAVE_EXTENSIBLE = 0xFFFE
_LFE_BIT = 0x8
_SURROUND_LFE = 3


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What a sound file says about itself.

    Attributes:
        container: Container found in the bytes: wav, flac, ogg, mp3, mp4, matroska ...
        codec: Codec: pcm_16, ulaw, vorbis, mp3, aac, opus ...
        sample_rate: Hz.
        channels: Number of channels.
        declared_num_samples: Samples per channel that the header promises; None when it promises nothing.
        exact: The promise is exact, so one missing sample means that the file was cut.
        lfe_channels: Channels that carry low-frequency effects, not speech.
        reader: Library that decodes it.
    """

    container: str
    codec: str
    sample_rate: int
    channels: int
    declared_num_samples: int | None = None
    exact: bool = False
    lfe_channels: tuple[int, ...] = ()
    reader: Literal["soundfile", "ffmpeg"] = "soundfile"


@dataclass(frozen=True, slots=True)
class WavHeader:
    """The chunks of a RIFF/WAVE file that matter.

    Attributes:
        block_align: Bytes per sample of all channels; 0 when the `fmt ` chunk is missing.
        is_pcm: Each sample takes `block_align` bytes (PCM, float, A-law, mu-law).
        channel_mask: Speaker positions of WAVE_FORMAT_EXTENSIBLE, else 0.
        data_start: Byte offset of the samples; -1 when the `data` chunk is missing.
        declared_bytes: Length that the `data` chunk states.
        present_bytes: Bytes that really follow.
    """

    block_align: int
    is_pcm: bool
    channel_mask: int
    data_start: int
    declared_bytes: int
    present_bytes: int

    @property
    def complete(self) -> bool:
        """Both chunks were found."""
        return self.block_align > 0 and self.data_start >= 0

    @property
    def declared_num_samples(self) -> int | None:
        """Samples per channel that the header promises; None for a length that a pipe wrote."""
        streamed = self.declared_bytes == 0 or self.declared_bytes >= _STREAMED_SIZE
        if not self.is_pcm or (streamed and self.declared_bytes != self.present_bytes):
            return None
        return self.declared_bytes // self.block_align

    @property
    def defeats_libsndfile(self) -> bool:
        """With length 0 libsndfile reads nothing, and beyond 4 GiB it stops."""
        return (self.declared_bytes == 0 and self.present_bytes > 0) or self.present_bytes >= 0xFFFF_FFFF


def sniff(head: bytes) -> str:
    """Returns the container that the first bytes of a file show; "" when they show none that is known."""
    if head[:4] in (b"RIFF", b"RIFX"):
        return _RIFF_FORMS.get(head[8:12], "riff" if len(head) >= 12 else "wav")
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "aiff"
    if head[4:8] in (b"ftyp", b"moov"):
        return "mp4"
    return next((name for magic, name in _MAGIC if head.startswith(magic)), "")


def read_wav_header(file: BinaryIO, size: int) -> WavHeader:
    """Walks the chunks of a little-endian RIFF/WAVE file up to its samples.

    Args:
        file: Opened anywhere; its position is changed.
        size: Size of the file in bytes.
    """
    block_align, is_pcm, mask, position = 0, False, 0, 12
    while position + 8 <= size:
        file.seek(position)
        name, length = struct.unpack("<4sI", file.read(8))
        if name == b"data":
            return WavHeader(block_align, is_pcm, mask, position + 8, length, size - position - 8)
        if name == b"fmt ":
            block_align, is_pcm, mask = _read_format(file.read(min(length, 40)))
        position += 8 + length + length % 2
    return WavHeader(block_align, is_pcm, mask, -1, 0, 0)


def _read_format(chunk: bytes) -> tuple[int, bool, int]:
    if len(chunk) < 16:
        return 0, False, 0
    tag, channels, _, _, block_align, bits = struct.unpack("<HHIIHH", chunk[:16])
    mask = 0
    if tag == _WAVE_EXTENSIBLE and len(chunk) >= 26:
        mask, tag = struct.unpack("<IH", chunk[20:26])
    is_pcm = tag in (1, 3, 6, 7) and block_align == channels * ((bits + 7) // 8)
    return block_align, is_pcm, mask


def lfe_of_mask(mask: int) -> tuple[int, ...]:
    """Returns the index of the LFE channel in a WAVE channel mask (bit 3), or nothing."""
    return ((mask & (_LFE_BIT - 1)).bit_count(),) if mask & _LFE_BIT else ()


def lfe_of_surround(channels: int) -> tuple[int, ...]:
    """Returns the LFE of FLAC's fixed layouts, which put it fourth when there are six or more channels."""
    return (_SURROUND_LFE,) if channels in (6, 7, 8) else ()


def has_mp3_length(head: bytes) -> bool:
    """Tells whether an MP3 states its length (Xing, Info or VBRI header); else it is only guessed."""
    start = 0
    if head[:3] == b"ID3" and len(head) >= 10:
        start = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    frame = head[start : start + 512]
    return any(mark in frame for mark in (b"Xing", b"Info", b"VBRI"))


def read_head(source: Path | bytes) -> tuple[bytes, int]:
    """Returns the first bytes of a file and its size in bytes.

    Raises:
        OSError: The file cannot be read.
    """
    if isinstance(source, bytes):
        return source[:HEAD_BYTES], len(source)
    with source.open("rb") as file:
        return file.read(HEAD_BYTES), source.stat().st_size
