"""Sound files in and out."""

import struct
import tracemalloc

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from data_engine.core.errors import RecordError
from data_engine.io.audio import decode_blocks, decode_bytes, encode_flac, probe
from data_engine.io.decoding.containers import sniff
from data_engine.io.decoding.resample import Resampler, resample, resampled_length


def speechlike(seconds=1.0, rate=16_000, channels=1, seed=0):
    """Modulated tones and noise, float32 [channels, samples], peak 0.5."""
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(seed).standard_normal((channels, len(time)))
    wave = np.sin(2 * np.pi * 220 * time) * (1 + np.sin(2 * np.pi * 3 * time)) + 0.1 * noise
    return (0.5 * wave / np.abs(wave).max()).astype(np.float32)


def write(path, wave, rate, **kind):
    soundfile.write(path, wave.T, rate, **kind)
    return path


def wav_header(data_bytes, rate=16_000, channels=1):
    block = 2 * channels
    form = struct.pack("<HHIIHH", 1, channels, rate, rate * block, block, 16)
    riff = struct.pack("<I", min(data_bytes + 36, 0xFFFFFFFF))
    return b"RIFF" + riff + b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", data_bytes)


def encode_with_ffmpeg(path, wave, rate, codec, container):
    import av

    layout = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}[len(wave)]
    with av.open(str(path), "w", format=container) as file:
        stream = file.add_stream(codec, rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave.T.reshape(1, -1)), "flt", layout)
        frame.sample_rate = rate
        resampler = av.AudioResampler(format=stream.codec_context.format, layout=layout, rate=rate, frame_size=1024)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            file.mux(stream.encode(piece))
        file.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 44_100, 96_000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_every_rate_and_channel_count_of_wav_decodes_to_what_was_written(tmp_path, rate, channels):
    wave = speechlike(0.5, rate, channels)
    path = write(tmp_path / "a.wav", wave, rate, subtype="FLOAT")
    info = probe(path)
    assert (info.container, info.sample_rate, info.channels) == ("wav", rate, channels)
    assert info.declared_num_samples == wave.shape[1]
    np.testing.assert_array_equal(np.concatenate(list(decode_blocks(path, 0.2)), axis=1), wave)


@pytest.mark.parametrize(
    ("subtype", "container", "error"),
    [("PCM_U8", "WAV", 2e-2), ("PCM_16", "WAV", 1e-4), ("PCM_24", "WAV", 1e-6), ("PCM_32", "WAV", 1e-6),
     ("DOUBLE", "WAV", 1e-6), ("ULAW", "WAV", 4e-2), ("ALAW", "WAV", 4e-2), ("PCM_16", "FLAC", 1e-4),
     ("PCM_16", "AIFF", 1e-4), ("PCM_16", "AU", 1e-4), ("PCM_16", "CAF", 1e-4), ("PCM_16", "NIST", 1e-4),
     ("PCM_16", "W64", 1e-4), ("PCM_16", "RF64", 1e-4), ("PCM_16", "WAVEX", 1e-4)],
)  # fmt: skip
def test_plain_codings_are_read_by_content(tmp_path, subtype, container, error):
    wave = speechlike()
    path = write(tmp_path / "named.txt", wave, 16_000, subtype=subtype, format=container)
    decoded, rate = decode_bytes(path.read_bytes())
    assert rate == 16_000
    assert decoded.shape == wave.shape
    assert np.abs(decoded - wave).max() < error


@pytest.mark.parametrize(
    ("codec", "container", "channels", "rate"),
    [("libmp3lame", "mp3", 1, 44_100), ("libmp3lame", "mp3", 2, 16_000), ("aac", "mp4", 1, 16_000),
     ("aac", "adts", 2, 44_100), ("libopus", "webm", 2, 48_000), ("libopus", "ogg", 1, 48_000),
     ("aac", "mp4", 8, 48_000), ("ac3", "ac3", 6, 48_000), ("aac", "matroska", 1, 16_000)],
)  # fmt: skip
def test_compressed_sound_decodes_whatever_it_is_called(tmp_path, codec, container, channels, rate):
    wave = speechlike(2.0, rate, channels)
    path = encode_with_ffmpeg(tmp_path / "misnamed.wav", wave, rate, codec, container)
    info = probe(path)
    blocks = list(decode_blocks(path, 0.5))
    decoded = np.concatenate(blocks, axis=1)
    assert (info.reader, info.channels, info.sample_rate) == ("ffmpeg", channels, rate)
    assert {block.shape[1] for block in blocks[:-1]} == {rate // 2}
    assert abs(decoded.shape[1] - wave.shape[1]) < 0.15 * rate
    loudness = np.sqrt((decoded**2).mean(axis=1)) / np.sqrt((wave**2).mean(axis=1))
    heard = [c for c in range(channels) if c not in info.lfe_channels]
    assert np.all((loudness[heard] > 0.5) & (loudness[heard] < 2.0))


@pytest.mark.parametrize("declared", [0, 0xFFFFFFFF, 0x7FFFFFFF])
def test_a_length_written_by_a_pipe_is_no_promise(tmp_path, declared):
    path = tmp_path / "piped.wav"
    pcm = (speechlike()[0] * 32767).astype("<i2").tobytes()
    path.write_bytes(wav_header(declared) + pcm)
    assert probe(path).declared_num_samples is None
    assert sum(block.shape[1] for block in decode_blocks(path)) == 16_000


def test_a_wav_cut_in_half_keeps_its_promise_and_yields_what_is_there(tmp_path):
    path = write(tmp_path / "a.wav", speechlike(), 16_000)
    path.write_bytes(path.read_bytes()[: 44 + 2 * 8_000])
    assert probe(path).declared_num_samples == 16_000
    assert sum(block.shape[1] for block in decode_blocks(path)) == 8_000


@pytest.mark.parametrize("damage", ["cut", "overwritten"])
def test_damaged_flac_is_decoded_around_the_damage_and_says_so(tmp_path, damage):
    path = write(tmp_path / "a.flac", speechlike(10.0), 16_000)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : len(content) if damage == "cut" else middle + 300] = b"" if damage == "cut" else bytes(300)
    path.write_bytes(content)
    notes = []
    decoded = sum(block.shape[1] for block in decode_blocks(path, damage=notes))
    assert decoded > (60_000 if damage == "cut" else 140_000)
    assert notes


def test_a_wave_of_more_than_four_gibibytes_is_read_past_them(tmp_path):
    path = tmp_path / "huge.wav"
    size = 0xFFFFFFFF + 44_100 * 4 * 10
    with path.open("wb") as file:
        file.write(wav_header(0xFFFFFFFF, 44_100, 2))
        file.truncate(44 + size)
    info = probe(path)
    assert (info.reader, info.declared_num_samples, info.channels) == ("ffmpeg", None, 2)


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"", "EMPTY_FILE"), (b"RIFF", "TRUNCATED_HEADER"), (wav_header(100)[:20], "TRUNCATED_HEADER"),
     (b"hello, this is text\n" * 40, "NOT_AUDIO"), (bytes(5000), "NOT_AUDIO"), (b"fLaC\0\0", "TRUNCATED_HEADER"),
     (b"OggS" + bytes(30), "TRUNCATED_HEADER"), (b"#EXTM3U\n#EXTINF:1,\nother.wav\n", "NOT_AUDIO"),
     (b"\0\0\0\x18ftypM4A \0\0\0\0M4A mp42isom" + bytes(9000), "TRUNCATED_HEADER"),
     (b"ffconcat version 1.0\nfile other.wav\n", "NOT_AUDIO"),
     (wav_header(3200, rate=3) + bytes(3200), "UNSUPPORTED_CODEC")],
)  # fmt: skip
def test_what_is_no_sound_is_refused_with_the_reason(tmp_path, content, code):
    path = tmp_path / "item.wav"
    path.write_bytes(content)
    for source in (path, content):
        with pytest.raises(RecordError) as refusal:
            list(decode_blocks(source))
        assert refusal.value.code == code
        assert refusal.value.detail


def test_a_video_without_sound_has_no_audio_stream(tmp_path):
    import av

    path = tmp_path / "silent.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.width, stream.height = 32, 32
        for _ in range(5):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24")))
        file.mux(stream.encode(None))
    with pytest.raises(RecordError, match="NO_AUDIO_STREAM"):
        probe(path)


def test_missing_files_and_folders_are_unreadable(tmp_path):
    for path in (tmp_path / "missing.wav", tmp_path):
        with pytest.raises(RecordError, match="UNREADABLE"):
            probe(path)


def test_surround_names_its_low_frequency_channel(tmp_path):
    path = write(tmp_path / "a.flac", speechlike(0.2, channels=6), 16_000)
    assert probe(path).lfe_channels == (3,)
    assert probe(write(tmp_path / "b.wav", speechlike(0.2, channels=6), 16_000)).lfe_channels == ()


def test_flac_comes_back_as_it_went_in_and_never_wraps():
    wave = speechlike()[0]
    encoded = encode_flac(wave * 4, 16_000)
    decoded, rate = decode_bytes(encoded)
    assert encoded == encode_flac(wave * 4, 16_000)
    assert rate == 16_000
    np.testing.assert_allclose(decoded[0], np.clip(wave * 4, -1, 1), atol=1 / 32768)
    np.testing.assert_array_equal(decode_bytes(encode_flac(decoded[0], 16_000))[0], decoded)


@pytest.mark.parametrize(
    "wave", [np.array([np.nan], np.float32), np.zeros(0, np.float32), np.zeros((2, 9), np.float32)]
)
def test_flac_refuses_what_cannot_be_sound(wave):
    with pytest.raises(ValueError, match="finite samples"):
        encode_flac(wave, 16_000)


@given(
    num_samples=st.integers(1, 20_000),
    rate=st.sampled_from([8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000]),
    cut=st.integers(1, 9_000),
)
def test_resampling_has_the_exact_length_and_does_not_depend_on_the_cut(num_samples, rate, cut):
    wave = np.random.default_rng(num_samples).standard_normal(num_samples).astype(np.float32)
    stream = Resampler(rate, 16_000, 1)
    pieces = [stream.push(wave[None, start : start + cut]) for start in range(0, num_samples, cut)]
    streamed = np.concatenate([*pieces, stream.finish()], axis=1)[0]
    assert len(streamed) == resampled_length(num_samples, rate, 16_000)
    assert abs(len(streamed) - num_samples * 16_000 / rate) <= 0.5
    np.testing.assert_array_equal(streamed, resample(wave, rate, 16_000))


def test_resampling_keeps_a_tone_and_its_level():
    time = np.arange(44_100) / 44_100
    tone = resample(np.sin(2 * np.pi * 1_000 * time).astype(np.float32), 44_100, 16_000)
    spectrum = np.abs(np.fft.rfft(tone * np.hanning(len(tone))))
    assert spectrum.argmax() == 1_000
    assert 0.99 < np.abs(tone[1000:-1000]).max() < 1.01


def test_memory_does_not_grow_with_the_length_of_a_file(tmp_path):
    path = tmp_path / "long.wav"
    with soundfile.SoundFile(path, "w", 44_100, 2) as file:
        for _ in range(30):
            file.write(np.zeros((44_100 * 10, 2), np.float32))
    tracemalloc.start()
    try:
        assert sum(block.shape[1] for block in decode_blocks(path, 5.0)) == 300 * 44_100
        assert tracemalloc.get_traced_memory()[1] < 6 * 5 * 44_100 * 2 * 4
    finally:
        tracemalloc.stop()


def test_containers_are_told_by_their_first_bytes():
    assert sniff(b"RIFF\0\0\0\0AVI LIST") == "avi"
    assert sniff(b"\x1aE\xdf\xa3....") == "matroska"
    assert sniff(b"\0\0\0\x20ftypisom") == "mp4"
    assert sniff(b"plain text") == ""


def test_every_shared_recording_decodes_or_is_refused_with_a_reason(shared_speech):
    import json

    lines = (shared_speech / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    codes = []
    for entry in map(json.loads, lines):
        try:
            blocks = decode_blocks(shared_speech / entry["path"])
            assert all(block.dtype == np.float32 and block.ndim == 2 for block in blocks)
        except RecordError as refusal:
            codes.append(refusal.code)
    assert set(codes) <= {"NOT_AUDIO", "TRUNCATED_HEADER", "EMPTY_FILE", "UNSUPPORTED_CODEC"}
    assert len(codes) < 0.05 * len(lines)
