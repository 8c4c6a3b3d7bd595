"""Which answer of a closed world was spoken: the one whose teacher's linguistic codes are nearest.

Linguistic codes are nearly phones, so this hears the audio channel without a decoder or a recognizer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from data_engine.training.scoring import edits
from data_engine.training.speech.texts import plain


def distance(reference: npt.NDArray[Any], said: npt.NDArray[Any]) -> float:
    """Returns the edits between two code sequences over the longer one's length, 0..1; 1 against nothing."""
    longest = max(len(reference), len(said))
    return edits(reference, said) / longest if longest and len(said) else 1.0


def joined(codes: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Returns codes without repeats of the one before, so that tempo counts less."""
    wide = np.asarray(codes, np.int64)
    return wide[np.concatenate([[True], wide[1:] != wide[:-1]])] if len(wide) else wide


class AnswerJudge:
    """Hears which of a world's answers was spoken.

    Args:
        renditions: Linguistic codes of the teacher's renditions of each answer.
    """

    def __init__(self, renditions: Mapping[str, Sequence[npt.NDArray[Any]]]) -> None:
        self._renditions = {answer: [joined(codes) for codes in spoken] for answer, spoken in renditions.items()}

    def heard(self, codes: npt.NDArray[Any]) -> tuple[str, float]:
        """Returns the nearest answer and its distance; the answer is empty when nothing was said."""
        said = joined(codes)
        if not len(said):
            return "", 1.0
        near = {a: min(distance(one, said) for one in spoken) for a, spoken in self._renditions.items()}
        best = min(near, key=lambda answer: near[answer])
        return best, near[best]


def nearest_in_letters(text: str, answers: Sequence[str]) -> str:
    """Returns the answer whose letters are nearest to what a recognizer wrote; empty when it wrote nothing.

    Names are not in its dictionary, so it writes words that sound like them.
    """
    if not plain(text):
        return ""
    letters = {answer: np.frombuffer(plain(answer).encode(), np.uint8) for answer in (*answers, text)}
    return min(answers, key=lambda answer: distance(letters[answer], letters[text]))
