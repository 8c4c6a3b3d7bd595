"""The evaluation of the small speech models, on fabricated codes with known answers and on absent inputs."""

import json

import numpy as np
import pytest

from data_engine.backends.protocols import CodeStreams
from data_engine.core.config import validate
from data_engine.tokens.layout import interleave_codes, vocoder_ids
from data_engine.training import scoring
from data_engine.training.evaluation import table
from data_engine.training.evaluation.__main__ import evaluate
from data_engine.training.evaluation.code_models import VIEWS, groups_of
from data_engine.training.evaluation.figures import Found, Target, bootstrap, mean_of, ratio_of
from data_engine.training.evaluation.probes import Frames, explained, phone_hits
from data_engine.training.evaluation.rows import ROWS
from data_engine.training.evaluation.settings import EvaluationSettings
from data_engine.training.evaluation.tokenizers import perplexity, phone_information
from data_engine.training.evaluation.utterances import evenly
from data_engine.training.evaluation.words import count_words


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution(rng):
    values = rng.normal(3.0, 2.0, 400)
    value, low, high = bootstrap(mean_of(values), 400, seed=1, resamples=4000)
    assert value == pytest.approx(values.mean())
    assert (low, high) == pytest.approx((value - 1.96 * values.std() / 20, value + 1.96 * values.std() / 20), abs=0.02)


def test_equal_utterances_leave_no_doubt_and_a_seed_gives_the_same_interval(rng):
    assert bootstrap(ratio_of(np.full(60, 2), np.full(60, 8)), 60, seed=1) == (0.25, 0.25, 0.25)
    wrong = rng.integers(0, 9, 60)
    statistic = ratio_of(wrong, np.full(60, 10))
    assert bootstrap(statistic, 60, seed=7) == bootstrap(statistic, 60, seed=7) != bootstrap(statistic, 60, seed=8)


def test_a_rate_weighs_utterances_by_their_length_not_by_their_number():
    assert ratio_of([1, 0], [1, 9])(np.ones(2)) == pytest.approx(0.1)


def test_codes_that_are_phones_tell_all_and_shuffled_ones_nothing(rng):
    phones, owners = rng.integers(0, 40, 20_000), np.repeat(np.arange(100), 200)
    ones = np.ones(100)
    assert phone_information(phones, phones, owners)(ones) == pytest.approx(1)
    assert phone_information(phones, 3 * phones + 1, owners)(ones) == pytest.approx(1)
    assert phone_information(phones, rng.permutation(phones), owners)(ones) < 0.03


def test_figures_of_all_utterances_are_those_of_training(rng):
    phones, codes, owners = rng.integers(0, 9, 5000), rng.integers(0, 300, 5000), np.repeat(np.arange(50), 100)
    ones = np.ones(50)
    assert perplexity(codes, owners, 1024)(ones) == pytest.approx(scoring.perplexity(codes))
    assert phone_information(phones, codes, owners)(ones) == pytest.approx(scoring.phone_information(phones, codes))


def test_a_resampled_figure_is_that_of_the_utterances_drawn(rng):
    codes, owners = rng.integers(0, 300, 5000), np.repeat(np.arange(50), 100)
    twice_the_first = np.concatenate([codes[:100], codes[:100]])
    assert perplexity(codes, owners, 1024)(np.eye(50)[0] * 2) == pytest.approx(scoring.perplexity(twice_the_first))


def frames(codes, phones, values, size=64):
    owners = np.repeat(np.arange(10), len(codes) // 10)
    return Frames(codes, phones, values, values, values, owners, size)


def test_a_phone_probe_reads_codes_that_are_phones_on_utterances_it_has_not_seen(rng):
    phones = rng.integers(0, 40, 4000)
    given = frames(phones, phones, np.zeros(4000))
    test = given.owners < 3
    right, total = phone_hits(given, test, 10)
    assert (right[:3] == 400).all() and (total[:3] == 400).all() and not total[3:].any()
    blind = frames(rng.permutation(phones), phones, np.zeros(4000))
    assert phone_hits(blind, test, 10)[0].sum() < 0.1 * 1200


def test_a_prosody_probe_explains_what_codes_hold_and_no_more(rng):
    codes = rng.integers(0, 64, 8000)
    pitch = codes / 10 + rng.normal(0, 0.01, 8000)
    pitch[::7] = np.nan  # unvoiced
    given = frames(codes, codes, pitch)
    weights = np.zeros(10)
    weights[:3] = 1
    assert explained(given, pitch, given.owners < 3)(weights) > 0.99
    assert abs(explained(given, rng.permutation(pitch), given.owners < 3)(weights)) < 0.1


def test_views_of_groups_are_the_interleave_and_the_single_streams(rng):
    vq02, vq06 = rng.integers(0, 1024, 21), rng.integers(0, 4096, 31)
    groups = groups_of(CodeStreams(vq02.astype(np.uint16), vq06.astype(np.uint16)))
    assert groups.shape == (10, 5)
    assert (VIEWS["interleaved"][0](groups) == vocoder_ids(interleave_codes(vq02, vq06).ids)).all()
    assert (VIEWS["vq02"][0](groups) == vq02[:20]).all()
    assert (VIEWS["vq06"][0](groups) == vq06[:30]).all()


def test_words_are_counted_without_case_and_points():
    counts = count_words(["The cat, it sat.", "no"], ["the cat sat", "no no no"])
    assert counts.wrong.tolist() == [1, 2] and counts.total.tolist() == [4, 1]
    assert counts.rate == pytest.approx(0.6)


def test_even_choice_spreads_over_all_candidates():
    assert evenly(np.arange(100, 200), 3).tolist() == [100, 149, 199]
    assert evenly(np.arange(2), 5).tolist() == [0, 1]


@pytest.mark.parametrize(("value", "verdict"), [(0.05, "asked"), (0.12, "floor"), (0.2, "missed")])
def test_the_table_says_which_bar_a_figure_reaches(value, verdict):
    entries = table.entries("linguistic", {"teachers": Found(value, value - 0.01, value + 0.01, 60)}, "hash")
    text = table.markdown(entries, ["linguistic"])
    interval = f"{100 * value - 1:.1f} % to {100 * value + 1:.1f} %"
    assert f"| {100 * value:.1f} % | {interval} | 60 | <= 15.0 % | <= 8.0 % | {verdict} |" in text
    assert "real speech, held-out adults | not measured: nothing was found |" in text


def test_a_bound_itself_is_met():
    assert Target(">=", 0.84).met(0.84, 0.84) and Target("<=", 0.15).met(0.15, 0.15)


def test_figures_of_other_tokenizers_go_and_a_reason_replaces_no_figure():
    old = table.entries("speed", {"tokenize": Found(0.01), "decode": Found(0.1)}, "a")
    later = table.entries("speed", "no decoder", "a")
    assert table.merged(old, later, "a") == old
    assert table.merged(old, table.entries("speed", "no decoder", "b"), "b") == table.entries(
        "speed", "no decoder", "b"
    )


@pytest.fixture
def nothing(tmp_path):
    absent = str(tmp_path / "absent")
    names = ("codec", "floats", "funasr", "semantic_checkpoint", "cache", "corpus", "demo", "answers")
    values = dict.fromkeys(names, absent) | {"output": str(tmp_path / "out"), "probes": {"parts": {"flite": 4}}}
    return validate(EvaluationSettings, values, "test")


def test_absent_inputs_give_reasons_and_never_a_number(nothing):
    pytest.importorskip("torch")
    results = evaluate(nothing, list(ROWS))
    assert len(results) == sum(len(row.measures) for row in ROWS.values())
    assert all(set(entry) == {"measure", "not_measured"} for entry in results.values())
    lines = (nothing.output / "table.md").read_text(encoding="utf-8").splitlines()[2:]
    assert len(lines) == len(results) and all("| not measured: " in line for line in lines)
    assert json.loads((nothing.output / "results.json").read_text(encoding="utf-8"))["figures"] == results


def test_figures_of_the_speaker_lm_are_read_from_its_own_evaluation(nothing, tmp_path):
    stored = {"value": 0.31, "low": 0.2, "high": 0.4, "utterances": 64, "details": {}, "tokenizer_hash": None}
    path = tmp_path / "answers.json"
    path.write_text(json.dumps({"spoken_answers": stored, "text_to_speech": stored | {"tokenizer_hash": "other"}}))
    results = evaluate(nothing.model_copy(update={"answers": path}), ["answers", "speaker-lm"])
    assert results["answers.gain"]["value"] == 0.31 and results["answers.gain"]["floor_met"]
    assert "other tokenizers" in results["speaker-lm.wer"]["not_measured"]


def test_a_language_model_learns_a_stream_that_repeats():
    pytest.importorskip("torch")
    from data_engine.training.evaluation.small_networks import bits_of_windows, train_language_model

    groups = np.tile(np.array([[1, 2, 1024 + 3, 1024 + 4, 1024 + 5]]), (80, 1))
    view, size = VIEWS["vq02"]
    model = train_language_model(groups, view, size, 8, 3e-3, 1)
    cost = bits_of_windows(model, np.stack([view(groups[:40])]))
    assert cost.shape == (1,) and cost[0] / 80 < 7  # of ten bits
