"""Scratch sound of the current shard."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.io.scratch import ScratchAudio


@given(
    cuts=st.lists(st.integers(1, 300), min_size=1, max_size=8), start=st.integers(0, 900), length=st.integers(0, 900)
)
def test_any_part_reads_back_as_it_was_appended(tmp_path_factory, cuts, start, length):
    wave = np.random.default_rng(0).standard_normal(sum(cuts)).astype(np.float32)
    scratch = ScratchAudio(tmp_path_factory.mktemp("shard"))
    with scratch.writer("r", 1) as writer:
        for piece in np.split(wave, np.cumsum(cuts)[:-1]):
            writer.append(piece)
    assert scratch.num_samples("r", 1) == writer.num_samples == len(wave)
    np.testing.assert_array_equal(scratch.read("r", 1, start, length), wave[start : start + length])
    np.testing.assert_array_equal(np.concatenate(list(scratch.blocks("r", 1, 100))), wave)


def test_discard_removes_one_recording_with_all_its_channels(tmp_path):
    scratch = ScratchAudio(tmp_path)
    for recording, channel in (("a", 0), ("a", 1), ("ab", 0)):
        with scratch.writer(recording, channel) as writer:
            writer.append(np.ones(3, np.float32))
    scratch.discard("a")
    assert scratch.channels("a") == []
    assert scratch.channels("ab") == [0]
    scratch.discard("never seen")


def test_reading_what_is_not_there_fails_loudly(tmp_path):
    scratch = ScratchAudio(tmp_path)
    with pytest.raises(FileNotFoundError):
        scratch.read("unknown", 0, 0, 1)
    with pytest.raises(ValueError, match="must not be negative"):
        scratch.read("unknown", 0, -1, 1)
