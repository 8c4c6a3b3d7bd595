"""Batches: a step number decides everything, labels lie where the phones are."""

from dataclasses import replace

import numpy as np
import pytest

from data_engine.models.whisper_mel import whisper_log_mel
from data_engine.training.batches import UNKNOWN, Batches, BatchSettings, Grid, frame_labels, frame_pitch
from data_engine.training.speech.augment import AugmentSettings, disturbed
from data_engine.training.speech.waves import Part, Utterance, pitch_frames

GRID = Grid(whisper_log_mel, 640, 240, 4)
QUIET = AugmentSettings(warp=0, equalise=0, room=0, noise=0, band_limit=0, mask=0)


def part(name, timed, utterances=12, seconds=1.0):
    rng = np.random.default_rng(len(name))
    length = np.full(utterances, int(16000 * seconds))
    counts = np.full(utterances, 4)
    ends = np.tile((np.arange(1, 5) * length[0]) // 4, utterances) if timed else np.full(4 * utterances, -1)
    frames = np.array([pitch_frames(int(samples)) for samples in length])
    pitch = np.concatenate([np.linspace(7.0, 8.0, count) for count in frames]).astype(np.float32)
    return Part(
        name, rng.integers(-3000, 3000, length.sum()).astype(np.int16), np.cumsum(length) - length, length,
        np.cumsum(counts) - counts, counts, np.full(utterances, int(timed)), np.zeros(utterances, int),
        np.zeros(utterances, int), ("made",), np.tile([5, 6, 7, 8], utterances), ends, pitch,
        np.cumsum(frames) - frames,
    )  # fmt: skip


def test_a_step_always_gives_the_same_batch():
    batches = Batches([part("a", True), part("bb", False)], BatchSettings(weights={"a": 1, "bb": 1}), GRID, 3)
    one, other = batches.batch(7), batches.batch(7)
    assert np.array_equal(one.features, other.features)
    assert np.array_equal(one.frames, other.frames)
    assert not np.array_equal(batches.batch(8).features[0], one.features[0])


def test_labels_follow_the_phone_times():
    labels = frame_labels(part("a", True).utterance(0), 25, GRID, 1.0)
    assert np.flatnonzero(np.diff(labels)).tolist() == [5, 12, 18]
    assert labels[[0, 24]].tolist() == [5, 8]


def test_labels_move_with_a_warped_wave():
    utterance = part("a", True).utterance(0)
    assert frame_labels(utterance, 50, GRID, 2.0)[::2].tolist() == pytest.approx(
        frame_labels(utterance, 25, GRID, 1.0), abs=1
    )


def test_speech_without_times_has_no_frame_labels():
    utterance = Utterance(np.zeros(16000, np.float32), np.array([5, 6]), None)
    assert set(frame_labels(utterance, 25, GRID, 1.0)) == {UNKNOWN}


def test_weights_are_shares_of_the_audio():
    batches = Batches(
        [part("a", True, 30, 0.5), part("bb", False, 30, 1.0)],
        BatchSettings(weights={"a": 3, "bb": 1}, augment=QUIET, seconds=8), GRID, 1,
    )  # fmt: skip
    drawn = [batches.batch(step) for step in range(40)]
    timed = sum((batch.frames != UNKNOWN).any(1) @ batch.lengths for batch in drawn)
    assert timed / sum(batch.lengths.sum() for batch in drawn) == pytest.approx(0.75, abs=0.15)


def test_disturbed_speech_keeps_its_length_and_never_clips():
    rng = np.random.default_rng(0)
    wave = rng.standard_normal(16000).astype(np.float32)
    everything = AugmentSettings(equalise=1, room=1, noise=1, band_limit=1)
    changed = disturbed(wave, everything, rng)
    assert changed.shape == wave.shape
    assert changed.dtype == np.float32
    assert np.abs(changed).max() < 1


def test_pitch_is_read_at_the_centre_of_each_frame_and_falls_when_speech_is_stretched():
    utterance = part("a", True).utterance(3)
    plain = frame_pitch(utterance, 25, GRID, 1.0)
    assert np.allclose(plain, 7.0 + (240 + 640 * np.arange(25)) // 160 / 100, atol=1e-6)
    stretched = frame_pitch(utterance, 30, GRID, 1.2)
    assert np.allclose(stretched[:25] + np.log2(1.2), 7.0 + (240 + 640 * np.arange(25)) / 1.2 / 16000, atol=0.011)


def test_a_batch_carries_pitch_only_where_it_was_measured():
    batches = Batches([part("a", True)], BatchSettings(weights={"a": 1}, augment=QUIET), GRID, 3)
    assert np.isfinite(batches.batch(0).pitch[:, :24]).all()
    unmeasured = replace(part("a", True), pitch=None)
    batches = Batches([unmeasured], BatchSettings(weights={"a": 1}, augment=QUIET), GRID, 3)
    assert np.isnan(batches.batch(0).pitch).all()
