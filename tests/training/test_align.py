"""Forced alignment on scores where the answer is plain to see."""

import numpy as np
import pytest

pytest.importorskip("torch")

from data_engine.training.align import viterbi


def scores(path, tokens=6):
    table = np.full((len(path), tokens), -5.0, np.float32)
    table[np.arange(len(path)), path] = -0.1
    return table


def test_the_path_follows_the_scores_and_may_skip_pauses():
    states = np.array([0, 3, 0, 4, 0])
    path = viterbi(scores([0, 3, 3, 4, 4, 4]), states, states == 0)
    assert states[path].tolist() == [0, 3, 3, 4, 4, 4]


def test_every_phone_gets_a_frame_even_when_it_was_not_heard():
    states = np.array([0, 3, 0, 5, 0, 4, 0])
    path = viterbi(scores([3, 3, 3, 4, 4, 4]), states, states == 0)
    assert [int(token) for token in dict.fromkeys(states[path].tolist())] == [3, 5, 4]


def test_too_few_frames_have_no_alignment():
    states = np.array([0, 3, 0, 4, 0, 5, 0])
    assert viterbi(scores([3, 5]), states, states == 0) is None
