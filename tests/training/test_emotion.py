"""`data-engine train emotion`: a held-out speaker decides nothing about the classifier that judges them."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data_engine.backends.catalog import build_backend
from data_engine.core.config import read_yaml, validate
from data_engine.core.errors import ConfigError
from data_engine.training.command import train_model
from data_engine.training.emotion import EmotionSettings
from data_engine.training.emotion_examples import Examples
from data_engine.training.emotion_validation import (
    confusion,
    fitted,
    held_out_speakers,
    held_out_speakers_and_texts,
    interval,
    recalls,
    unweighted_accuracy,
)
from tests.models.test_prosody import RATE, voice

CONFIG = Path(__file__).parents[2] / "configs" / "training" / "emotion.yaml"
STYLES = {
    "anger": {"range_semitones": 4.0, "tilt_db": -6.0, "syllables": 5.0},
    "sadness": {"range_semitones": 0.5, "tilt_db": -15.0, "syllables": 3.0},
}


def settings(folder, output, **changed):
    values = {
        "output": output, "recordings": folder, "sources": ["somebody/voices"], "copies": 1, "draws": 200,
        "emotions": {"anger": "angry", "sadness": "sad"}, "strengths": [0.03, 0.3], **changed,
    }  # fmt: skip
    return read_yaml(CONFIG) | {key: _plain(value) for key, value in values.items()}


def _plain(value):
    return str(value) if isinstance(value, Path) else value


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four buzzing speakers of two emotions, and a clip with a tag nobody asked for."""
    made, lines = tmp_path_factory.mktemp("voices"), []
    for speaker, hertz in enumerate((100, 130, 180, 220)):
        for take in range(2):
            for tag, style in STYLES.items():
                name = f"{speaker}{take}{tag}.wav"
                soundfile.write(made / name, voice(0.9 + 0.1 * take, hertz=hertz, **style), RATE)
                lines.append({"path": name, "speaker_id": f"s{speaker}", "transcript": f"line {take}",
                              "style": [f"emotion:{tag}", "acted"], "source_repo": "somebody/voices"})  # fmt: skip
    odd = {"style": ["emotion:drunk"]}, {"style": None}, {"source_repo": "another/one"}
    lines += [lines[0] | change for change in odd]
    (made / "manifest.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    return made


def test_one_command_trains_measures_and_draws(folder, tmp_path):
    pytest.importorskip("matplotlib")
    config = tmp_path / "emotion.yaml"
    config.write_text(json.dumps(settings(folder, tmp_path / "out")), encoding="utf-8")
    train_model("emotion", config, [])
    report = json.loads((tmp_path / "out" / "validation.json").read_text(encoding="utf-8"))
    assert (report["clips"], report["speakers"], report["emotions"]) == (16, 4, ["angry", "sad"])
    assert report["unweighted_accuracy"] >= 0.9, "the two buzzes could not be more different"
    assert report["interval"][0] <= report["unweighted_accuracy"] <= report["interval"][1]
    assert (tmp_path / "out" / "confusion.png").read_bytes().startswith(b"\x89PNG")
    model = build_backend("emotion", "prosody", {"model": str(tmp_path / "out" / "model.json")})
    model.open()
    heard = model.recognize([voice(1.2, hertz=150, **style) for style in STYLES.values()])
    assert [one.name for one in heard] == ["angry", "sad"]
    train_model("emotion", config, [f"output={tmp_path / 'again'}"])
    written = [(tmp_path / name / "model.json").read_bytes() for name in ("out", "again")]
    assert written[0] == written[1]


def test_too_few_speakers_and_a_missing_manifest_are_configuration_errors(folder, tmp_path):
    from data_engine.training.emotion import read_examples

    with pytest.raises(ConfigError, match="0 clips"):
        read_examples(validate(EmotionSettings, settings(folder, tmp_path, sources=["no/body"]), "test"))
    with pytest.raises(ConfigError, match="manifest"):
        read_examples(validate(EmotionSettings, settings(tmp_path, tmp_path), "test"))


@pytest.fixture
def drawn():
    """Three emotions of five speakers in a plane of measures, one measure missing now and then."""
    rng = np.random.default_rng(5)
    emotions = np.tile(np.arange(3), 20)
    rows = rng.normal(0, 1, (60, 3, 4)) + 2.0 * np.eye(4)[emotions][:, None]
    rows[7, 1] = np.nan
    rows[9, 0, 2] = np.nan
    speakers = np.repeat([f"s{n}" for n in range(5)], 12)
    texts = np.array([f"t{n // 3 % 4}" for n in range(60)])
    return Examples(rows, emotions, speakers, texts, ("a", "b", "c"), ("w", "x", "y", "z"))


def test_a_held_out_speaker_decides_nothing_about_who_judges_them(drawn):
    held = drawn.speakers == "s2"
    lied = dataclasses.replace(drawn, emotions=np.where(held, 2 - drawn.emotions, drawn.emotions))
    honest, _ = held_out_speakers(drawn, [0.01, 0.1, 1.0])
    same, _ = held_out_speakers(lied, [0.01, 0.1, 1.0])
    np.testing.assert_array_equal(same[held], honest[held])
    assert np.abs(same[~held] - honest[~held]).max() > 0.05


def test_copies_train_and_only_the_clips_themselves_are_judged(drawn):
    spoiled = dataclasses.replace(drawn, rows=drawn.rows.copy())
    spoiled.rows[drawn.speakers == "s1", 1:] = 99.0
    plain, _ = held_out_speakers(drawn, [0.1])
    other, _ = held_out_speakers(spoiled, [0.1])
    held = drawn.speakers == "s1"
    np.testing.assert_array_equal(plain[held], other[held])
    assert not np.allclose(plain[~held], other[~held])


def test_conditions_are_judged_by_the_same_classifiers(drawn):
    tested = np.stack([drawn.rows[:, 0], drawn.rows[:, 1]])
    both, strengths = held_out_speakers(drawn, [0.1], tested)
    plain, _ = held_out_speakers(drawn, [0.1])
    np.testing.assert_array_equal(both[0], plain)
    assert both.shape == (2, 60, 3)
    assert strengths.tolist() == [0.1] * 60


def test_neither_speaker_nor_sentence_is_heard_before(drawn):
    strengths = np.full(60, 0.1)
    apart = held_out_speakers_and_texts(drawn, strengths)
    held = (drawn.speakers == "s0") & (drawn.texts == "t0")
    others = drawn.of((drawn.speakers != "s0") & (drawn.texts != "t0"))
    np.testing.assert_array_equal(apart[held], fitted(others, 0.1).posteriors(drawn.rows[held, 0]))


def test_unweighted_accuracy_is_the_mean_recall_of_the_emotions_there_are():
    table = confusion(np.array([0, 0, 0, 0, 1]), np.array([0, 0, 0, 2, 2]), 3)
    assert table.tolist() == [[3, 0, 1], [0, 0, 1], [0, 0, 0]]
    assert recalls(table).tolist() == [0.75, 0.0]
    assert unweighted_accuracy(table) == 0.375


def test_the_interval_comes_from_speakers_not_from_clips(drawn):
    right = drawn.emotions.copy()
    assert interval(drawn, right, 500, 1) == (1.0, 1.0)
    one_bad_speaker = np.where(drawn.speakers == "s0", (drawn.emotions + 1) % 3, drawn.emotions)
    low, high = interval(drawn, one_bad_speaker, 4000, 1)
    assert low == pytest.approx(0.4, abs=0.001), "in 5 % of draws this speaker comes three times or more"
    assert high == 1.0
