"""What happens to copies of a recording on their way through the world: re-encoding, gain, trimming, another speed."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from data_engine.io.audio import decode_bytes
from data_engine.io.decoding.resample import resample

RATE = 16_000
Wave = npt.NDArray[np.float32]
Disturbance = Callable[[Wave], Wave]


def coded(wave: Wave, codec: str, container: str, bits: int) -> Wave:
    """Returns a wave after an encoder of FFmpeg and the engine's own decoder.

    Args:
        wave: float32 [samples] at 16 kHz.
        codec: Encoder, such as libmp3lame.
        container: Format of the file, such as mp3.
        bits: Bits a second.
    """
    import av

    sink = io.BytesIO()
    with av.open(sink, "w", format=container) as file:
        stream = file.add_stream(codec, rate=RATE, layout="mono")
        stream.bit_rate = bits
        frame = av.AudioFrame.from_ndarray(stored(wave)[None, :], format="s16", layout="mono")
        frame.sample_rate = RATE
        fifo = av.AudioResampler(stream.format, "mono", RATE, frame_size=stream.frame_size or 0)
        for piece in [*fifo.resample(frame), *fifo.resample(None)]:
            file.mux(stream.encode(piece))
        file.mux(stream.encode(None))
    samples, rate = decode_bytes(sink.getvalue())
    return resample(np.ascontiguousarray(samples[0]), rate, RATE) if rate != RATE else samples[0]


def stored(wave: Wave) -> npt.NDArray[np.int16]:
    """Returns a wave as a 16-bit file holds it: what is louder than full scale is clipped."""
    return np.rint(np.clip(wave.astype(np.float64) * 32768.0, -32768, 32767)).astype(np.int16)


def narrow(wave: Wave) -> Wave:
    """Returns a wave after storage at 8 kHz."""
    low = stored(resample(wave, RATE, RATE // 2)).astype(np.float32) / 32768
    return resample(low, RATE // 2, RATE)


def gained(wave: Wave, decibels: float) -> Wave:
    """Returns a wave at another level, clipped to full scale as a 16-bit file would."""
    return stored(wave * np.float32(10 ** (decibels / 20))).astype(np.float32) / 32768


def trimmed(wave: Wave, head: float, tail: float) -> Wave:
    """Returns a wave without these shares of its start and end."""
    return wave[round(len(wave) * head) : round(len(wave) * (1 - tail))]


def sped(wave: Wave, factor: float) -> Wave:
    """Returns a wave played so many times as fast, pitch included."""
    return resample(wave, round(RATE * factor), RATE)


DISTURBANCES: Mapping[str, Disturbance] = {
    "MP3 32 kbit/s": lambda wave: coded(wave, "libmp3lame", "mp3", 32_000),
    "Opus 16 kbit/s": lambda wave: coded(wave, "libopus", "ogg", 16_000),
    "8 kHz": narrow,
    "+12 dB": lambda wave: wave * np.float32(10 ** (12 / 20)),
    "-12 dB": lambda wave: gained(wave, -12.0),
    "start trimmed by 10 %": lambda wave: trimmed(wave, 0.1, 0.0),
    "end trimmed by 10 %": lambda wave: trimmed(wave, 0.0, 0.1),
    "both ends trimmed by 5 %": lambda wave: trimmed(wave, 0.05, 0.05),
    "2 % faster": lambda wave: sped(wave, 1.02),
    "2 % slower": lambda wave: sped(wave, 1 / 1.02),
}
"""What copies are asked to bear; a louder one in a file with room for it, as 32-bit and float files have."""

HARSHER: Mapping[str, Disturbance] = {"+12 dB, clipped": lambda wave: gained(wave, 12.0)}
"""Measured, too, but not asked: normalised speech loses up to a quarter of its samples to clipping."""
