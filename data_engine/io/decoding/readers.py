"""The two libraries that decode sound: libsndfile for plain formats, FFmpeg for everything else.

Blocks are float32 [channels, samples] at the rate of the source. What could not be decoded on the way is
told in `damage`, one sentence each; what could be decoded is never thrown away.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_engine.core.errors import RecordError
from data_engine.io.decoding.containers import AudioInfo, has_mp3_length, lfe_of_surround, read_head

Samples = npt.NDArray[np.float32]
Source = Path | bytes

_UNKNOWN_LENGTH = 1 << 60
_MAX_PLANES = 8
_FULL_SCALE = {"u8": 128.0, "s16": 32768.0, "s32": 2147483648.0, "s64": 2.0**63}
_CODEC_NAMES = {"mp3float": "mp3", "libopus": "opus", "libvorbis": "vorbis", "libdav1d": "av1"}
_STATES_LENGTH = {"mov", "matroska", "ogg", "flac", "asf", "wav", "w64", "aiff", "avi"}
_DEMUXERS = (
    "aa,aac,ac3,aiff,amr,ape,asf,au,avi,caf,dsf,dts,dtshd,eac3,flac,flv,loas,matroska,webm,mov,mp3,mpc,mpc8,mpeg,"
    "mpegts,nistsphere,ogg,oma,rm,sox,tak,tta,voc,w64,wav,wv,xwma"
)
"""Sound and video containers only: no playlist, picture or text format, which could open other files."""


@contextmanager
def _soundfile(source: Source) -> Iterator[Any]:
    """Opens by descriptor, so that libsndfile sees the content and not the name."""
    import soundfile

    if isinstance(source, bytes):
        with soundfile.SoundFile(io.BytesIO(source)) as file:
            yield file
        return
    descriptor = os.open(source, os.O_RDONLY)
    try:
        with soundfile.SoundFile(descriptor, closefd=False) as file:
            yield file
    finally:
        os.close(descriptor)


def soundfile_info(source: Source) -> AudioInfo | None:
    """Returns what libsndfile finds; None when it cannot open the source or does not know its length."""
    import soundfile

    try:
        with _soundfile(source) as file:
            lfe = lfe_of_surround(file.channels) if file.format in ("FLAC", "OGG") else ()
            info = AudioInfo(
                file.format.lower(), file.subtype.lower(), file.samplerate, file.channels, file.frames, True, lfe
            )
    except (soundfile.LibsndfileError, TypeError):
        return None
    return info if (info.declared_num_samples or 0) < _UNKNOWN_LENGTH else None


def soundfile_blocks(source: Source, block_samples: int, damage: list[str]) -> Iterator[Samples]:
    """Yields blocks; where libsndfile gives up, FFmpeg, which finds its way back, takes over."""
    import soundfile

    delivered = 0
    with _soundfile(source) as file:
        try:
            while len(block := file.read(block_samples, dtype="float32", always_2d=True)):
                delivered += len(block)
                yield np.ascontiguousarray(block.T)
        except soundfile.LibsndfileError as error:
            damage.append(f"damaged after sample {delivered}: {error}")
        else:
            return
    yield from _after(ffmpeg_blocks(source, block_samples, damage), delivered)


def _after(blocks: Iterator[Samples], skip: int) -> Iterator[Samples]:
    """Yields `blocks` without their first `skip` samples."""
    for block in blocks:
        if skip < block.shape[1]:
            yield block[:, skip:]
        skip = max(0, skip - block.shape[1])


@contextmanager
def _ffmpeg(source: Source) -> Iterator[tuple[Any, Any]]:
    """Opens a nameless stream, so that FFmpeg judges by content; yields the container and its sound track.

    Raises:
        av.error.FFmpegError, ValueError: FFmpeg cannot open it.
        RecordError: NO_AUDIO_STREAM, UNSUPPORTED_CODEC.
    """
    import av

    av.logging.set_level(None)
    with io.BytesIO(source) if isinstance(source, bytes) else _Nameless(source) as file:
        options = {"format_whitelist": _DEMUXERS}
        with av.open(file, options=options, metadata_errors="ignore") as container:
            stream = container.streams.best("audio")
            if stream is None:
                kinds = sorted({str(s.type) for s in container.streams}) or ["nothing"]
                raise RecordError("NO_AUDIO_STREAM", f"the file holds {', '.join(kinds)} but no sound track")
            context: Any = stream.codec_context
            if context is None or not context.sample_rate:
                raise RecordError(
                    "UNSUPPORTED_CODEC", f"no decoder for the sound track of this {container.format.name}"
                )
            yield container, stream


class _Nameless(io.FileIO):
    """A file without a `name`, which FFmpeg would take as a hint of the format."""

    name = None


def ffmpeg_info(source: Source) -> AudioInfo | None:
    """Returns what FFmpeg finds; None when it cannot open the source.

    Raises:
        RecordError: NO_AUDIO_STREAM, UNSUPPORTED_CODEC.
    """
    import av

    try:
        with _ffmpeg(source) as (container, stream):
            context = stream.codec_context
            lfe = tuple(i for i, c in enumerate(context.layout.channels) if c.name.upper().startswith("LFE"))
            name = container.format.name.split(",")[0]
            return AudioInfo(
                {"mov": "mp4"}.get(name, name),
                _CODEC_NAMES.get(context.codec.name, context.codec.name),
                context.sample_rate,
                context.layout.nb_channels,
                _stated_length(source, container, stream, name),
                lfe_channels=lfe,
                reader="ffmpeg",
            )
    except (av.error.FFmpegError, ValueError):
        return None


def _stated_length(source: Source, container: Any, stream: Any, name: str) -> int | None:
    """Returns samples per channel if the file states them; guesses from the bit rate do not count."""
    if name not in _STATES_LENGTH and not (name == "mp3" and has_mp3_length(read_head(source)[0])):
        return None
    rate = int(stream.codec_context.sample_rate)
    if stream.duration:
        seconds = float(stream.duration * stream.time_base)
    elif container.duration and len(container.streams) == 1:
        seconds = container.duration / 1e6
    else:
        return None
    return round(seconds * rate)


def ffmpeg_blocks(source: Source, block_samples: int, damage: list[str]) -> Iterator[Samples]:
    """Yields blocks; packets that cannot be decoded are skipped."""
    pending: list[Samples] = []
    held = 0
    for samples in _ffmpeg_frames(source, damage):
        pending.append(samples)
        held += samples.shape[1]
        if held >= block_samples:
            joined = np.concatenate(pending, axis=1)
            for start in range(0, held - block_samples + 1, block_samples):
                yield joined[:, start : start + block_samples]
            pending = [joined[:, held - held % block_samples :]]
            held %= block_samples
    if held:
        yield np.concatenate(pending, axis=1)


def _ffmpeg_frames(source: Source, damage: list[str]) -> Iterator[Samples]:
    import av

    lost = 0
    with _ffmpeg(source) as (container, stream):
        converter = _Converter(stream.codec_context)
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except (av.error.FFmpegError, ValueError) as error:
                damage.append(f"unreadable from here on: {error}")
                break
            if packet is None:
                break
            try:
                frames = packet.decode()
            except (av.error.FFmpegError, ValueError):
                lost += 1
                continue
            for frame in frames:
                yield from converter.convert(frame)
    if lost:
        damage.append(f"{lost} packets could not be decoded")


class _Converter:
    """Frames to float32 [channels, samples].

    A change of rate or layout on the way is converted back. Planar frames of eight channels or more are
    interleaved first: PyAV looks for a null pointer behind their planes, and there is none.
    """

    def __init__(self, context: Any) -> None:
        self._rate, self._layout = context.sample_rate, context.layout
        self._resampler: Any = None
        self._resampled_kind: tuple[str, int, int] | None = None

    def convert(self, frame: Any) -> Iterator[Samples]:
        """Yields the samples of one frame."""
        channels = frame.layout.nb_channels
        unchanged = (frame.sample_rate, channels) == (self._rate, self._layout.nb_channels)
        if unchanged and not (frame.format.is_planar and channels >= _MAX_PLANES):
            yield _to_float(frame)
            return
        import av

        kind = (frame.format.name, frame.sample_rate, channels)
        if kind != self._resampled_kind:
            self._resampler = av.AudioResampler(format="flt", layout=self._layout, rate=self._rate)
            self._resampled_kind = kind
        for converted in self._resampler.resample(frame):
            yield _to_float(converted)


def _to_float(frame: Any) -> Samples:
    array = frame.to_ndarray()
    if not frame.format.is_planar:
        array = array.reshape(-1, frame.layout.nb_channels).T
    scale = _FULL_SCALE.get(frame.format.name.removesuffix("p"))
    if scale is None:
        return np.ascontiguousarray(array, dtype=np.float32)
    centred = array.astype(np.float64) - (scale if array.dtype == np.uint8 else 0.0)
    return np.ascontiguousarray(centred / scale, dtype=np.float32)
