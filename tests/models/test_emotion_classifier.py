"""Coefficients in a JSON file: what is written is read, what is something else is refused."""

import json

import numpy as np
import pytest

from data_engine.core.errors import ConfigError
from data_engine.models.emotion_classifier import EmotionClassifier, read_classifier, write_classifier

CLASSIFIER = EmotionClassifier(
    ("angry", "sad"), ("pitch", "rate"), np.array([1.0, 4.0]), np.array([2.0, 0.5]),
    np.array([[1.5, 0.25], [-1.5, -0.25]]), np.array([0.1, -0.1]),
)  # fmt: skip


def test_what_is_written_is_read(tmp_path):
    write_classifier(tmp_path / "new" / "model.json", CLASSIFIER)
    again = read_classifier(tmp_path / "new" / "model.json")
    assert (again.emotions, again.measures) == (CLASSIFIER.emotions, CLASSIFIER.measures)
    rows = np.random.default_rng(0).normal(2, 2, (9, 2))
    np.testing.assert_array_equal(again.posteriors(rows), CLASSIFIER.posteriors(rows))


def test_posteriors_are_those_of_the_formula():
    (found,) = CLASSIFIER.posteriors(np.array([[3.0, 4.5]]))
    score = 1.5 * 1.0 + 0.25 * 1.0 + 0.1
    assert found[0] == pytest.approx(1 / (1 + np.exp(-2 * score)))
    assert found.sum() == pytest.approx(1)


def test_a_missing_measure_counts_as_the_mean_and_a_freak_value_as_three_and_a_half_deviations():
    missing, mean, freak, far = CLASSIFIER.posteriors(np.array([[np.nan, 4.5], [1.0, 4.5], [1e6, 4.5], [8.0, 4.5]]))
    np.testing.assert_array_equal(missing, mean)
    np.testing.assert_array_equal(freak, far)


def test_a_clip_is_judged_alone_whatever_its_neighbours():
    rows = np.random.default_rng(1).normal(2, 2, (50, 2))
    alone = np.concatenate([CLASSIFIER.posteriors(row[None]) for row in rows])
    np.testing.assert_array_equal(CLASSIFIER.posteriors(rows), alone)
    assert CLASSIFIER.posteriors(rows[:0]).shape == (0, 2)


def test_measures_are_taken_by_name():
    rows = CLASSIFIER.rows([{"rate": 5.0, "other": 0.0, "pitch": 3.0}])
    np.testing.assert_array_equal(rows, [[3.0, 5.0]])


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"format": "prosody-emotion-1"}', "another", "short"],
)
def test_another_file_is_refused(tmp_path, content):
    path = tmp_path / "model.json"
    write_classifier(path, CLASSIFIER)
    written = json.loads(path.read_text(encoding="utf-8"))
    changed = {"another": {**written, "format": "2"}, "short": {**written, "emotions": ["angry"]}}
    path.write_text(json.dumps(changed[content]) if content in changed else content, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"model\.json"):
        read_classifier(path)
