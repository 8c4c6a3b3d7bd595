"""Pairs: text pairs train masked DPO, audio pairs never enter that set; a margin is measured or by construction."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_engine.stages.assemble import Assemble
from data_engine.stages.pair import Pair
from data_engine.stages.rules.dialogue import audio_run
from data_engine.tokens.interleave import split_interleaved
from data_engine.tokens.vocabulary import SpecialTokens, is_audio
from tests.stages.rows import LetterTokenizer, candidate, column, context, decided, ran, worker

TOKENIZER = LetterTokenizer()
SPECIAL = SpecialTokens.from_mapping(TOKENIZER.specials())
WORSE = {"text": "stones are heavy", "variant_axis": "relevance"}


def paired(rows, tmp_path, batch_rows=None, **config):
    stage = Pair(Pair.Config(**config))
    stage.open(worker(tmp_path, text_tokenizer=TOKENIZER))
    return ran(stage, rows, "candidate", batch_rows)


def exchange(*others):
    return [decided(candidate(0)), decided(candidate(1)), *others]


def said(ids):
    return TOKENIZER.decode(split_interleaved(np.array(ids, np.int32), SPECIAL)[0].tolist())


def test_the_answer_is_preferred_to_each_worse_alternative(tmp_path):
    others = [decided(candidate(1, variant=k, **WORSE | {"text": f"worse {k}"})) for k in (1, 2)]
    pairs, run = paired(exchange(*others), tmp_path)
    assert column(pairs, "kind") == ["text", "text"]
    assert column(pairs, "masked") == [True, True]
    assert column(pairs, "axis") == ["relevance", "relevance"]
    assert [said(pair["chosen_ids"]) for pair in pairs] == ["very well thank you"] * 2
    assert [said(pair["rejected_ids"]) for pair in pairs] == ["worse 1", "worse 2"]
    assert column(pairs, "margin") == [10.0, 10.0]
    assert {pair["scorer"] for pair in pairs} == {"script.1"}
    assert run.stats.metrics == {"dialogues": 1, "pairs_text": 2}


def test_in_a_text_pair_only_text_carries_loss(tmp_path):
    (pair,), _ = paired(exchange(decided(candidate(1, variant=1, **WORSE))), tmp_path)
    for side in ("chosen", "rejected"):
        assert pair[f"mask_{side}"] == (~is_audio(np.array(pair[f"{side}_ids"]))).astype(int).tolist()
    assert pair["prompt_text"] == "<|BOT|>human\nhow are you<|EOT|><|BOT|>assistant\n"
    assert pair["parents"] == ["d-0-0-0", "d-1-0-0", "d-1-1-0"]


def test_prompt_and_answer_are_those_of_the_example(tmp_path):
    rows = exchange(decided(candidate(1, variant=1, **WORSE)))
    stage = Assemble(Assemble.Config())
    stage.open(worker(tmp_path, text_tokenizer=TOKENIZER))
    (example,), _ = ran(stage, rows, "candidate")
    (pair,), _ = paired(rows, tmp_path)
    assert pair["prompt_ids"] + pair["chosen_ids"] == example["input_ids"]


@pytest.mark.parametrize(
    ("measure", "axis"),
    [
        ({"word_error_rate": 0.8}, "word_error_rate"),
        ({"rate_ratio": 1.6}, "tag_obedience"),
        ({"pitch_ratio": 0.6}, "tag_obedience"),
        ({"speaker_similarity": 0.3}, "speaker_match"),
        ({"dnsmos_ovr": 1.2, "longest_silence": 1.5}, "naturalness"),
    ],
)
def test_an_audio_pair_is_about_what_the_takes_differ_in_most(tmp_path, measure, axis):
    worst = decided(candidate(1, take=1, **measure), score=0.5)
    (pair,), _ = paired(exchange(worst), tmp_path)
    assert (pair["kind"], pair["masked"], pair["axis"], pair["scorer"]) == ("audio", False, axis, "composite.1")
    assert pair["margin"] == pytest.approx(4.0)
    assert pair["chosen_text"] == pair["rejected_text"]
    assert said(pair["chosen_ids"]) == said(pair["rejected_ids"])
    audio = split_interleaved(np.array(pair["rejected_ids"], np.int32), SPECIAL)[1]
    assert audio.tolist() == audio_run(worst).tolist()
    assert json.loads(pair["rejected_scores"])["score"] == 0.5


def test_the_worst_take_is_the_rejected_one_even_when_it_failed_a_gate(tmp_path):
    takes = [
        decided(candidate(1, take=1, word_error_rate=0.3), score=0.8),
        decided(candidate(1, take=2, word_error_rate=0.9), score=0.4, decision="drop"),
    ]
    (pair,), run = paired(exchange(*takes), tmp_path)
    assert pair["parents"][-1] == "d-1-0-2"
    assert run.stats.unused_reasons == {"not_selected": 1}


@pytest.mark.parametrize(
    "worse",
    [
        pytest.param({"score": 0.87, "word_error_rate": 0.3}, id="margin too small"),
        pytest.param({"score": 0.5, "word_error_rate": 0.9, "dnsmos_ovr": 4.9}, id="wins clearly on quality"),
        pytest.param({"score": 0.5, "num_groups": 0, "word_error_rate": 0.9}, id="no tokens"),
    ],
)
def test_an_unclear_audio_contrast_makes_no_pair(tmp_path, worse):
    score = worse.pop("score")
    pairs, run = paired(exchange(decided(candidate(1, take=1, **worse), score=score)), tmp_path)
    assert pairs == []
    assert run.stats.unused_reasons == {"no_pair": 2, "not_selected": 1}


def test_an_alternative_that_says_the_same_is_rejected(tmp_path):
    same = decided(candidate(1, variant=1, text=" very well  thank you"))
    pairs, run = paired(exchange(same), tmp_path)
    assert pairs == []
    assert [(r["record_id"], r["code"]) for r in run.rejects] == [("d-1-1-0", "SAME_TEXT")]


def test_a_pair_whose_lengths_differ_too_much_is_left_out(tmp_path):
    long = decided(candidate(1, variant=1, **WORSE | {"text": "stones are heavy " * 20}))
    pairs, run = paired(exchange(long), tmp_path, max_length_difference=50)
    assert pairs == []
    assert run.stats.unused_reasons == {"length_difference": 1, "no_pair": 2}


def test_codes_of_two_tokenizers_never_meet_in_a_pair(tmp_path):
    other = decided(candidate(1, variant=1, **WORSE, tokenizer_hash="codec-b"))
    pairs, run = paired(exchange(other), tmp_path)
    assert pairs == []
    assert [(r["record_id"], r["code"]) for r in run.rejects] == [("d-1-1-0", "TOKENIZER_MISMATCH")]


def test_kinds_can_be_made_alone(tmp_path):
    rows = exchange(
        decided(candidate(1, take=1, word_error_rate=0.8), score=0.5), decided(candidate(1, variant=1, **WORSE))
    )
    assert [column(paired(rows, tmp_path, kinds=[k])[0], "kind") for k in ("text", "audio")] == [["text"], ["audio"]]
    assert column(paired(rows, tmp_path)[0], "kind") == ["text", "audio"]


def test_a_dialogue_without_a_usable_script_is_rejected(tmp_path):
    _, run = paired([decided(candidate(turn, context=None)) for turn in range(2)], tmp_path)
    assert {r["code"] for r in run.rejects} == {"SCRIPT_INVALID"}


takes = st.dictionaries(
    st.tuples(st.integers(0, 1), st.integers(0, 3), st.integers(0, 2), st.integers(0, 2)),
    st.tuples(st.sampled_from(["selected", "kept", "dropped"]), st.floats(0, 1, width=32), st.floats(0, 1, width=32)),
    max_size=30,
)


@given(takes, st.sampled_from([1, 4, 100]))
@settings(deadline=None, max_examples=40)
def test_every_candidate_is_a_parent_a_reject_or_unused(tmp_path_factory, states, batch_rows):
    text = context([{"role": r, "text": "x"} for r in ["user", "assistant"] * 2])
    rows = []
    for (dialogue, turn, variant, take), (state, score, wer) in sorted(states.items()):
        flags = {"decision": "drop" if state == "dropped" else "keep", "selected": state == "selected" and take == 0}
        words = "x" if variant == 0 else f"y {variant % 2}"
        row = candidate(turn, take, variant, f"d{dialogue}", context=text, text=words, word_error_rate=wer)
        rows.append(decided(row, score, **flags))
    pairs, run = paired(rows, tmp_path_factory.mktemp("p"), batch_rows)
    parents = {name for pair in pairs for name in pair["parents"]}
    rejected = {reject["record_id"] for reject in run.rejects}
    assert not parents & rejected
    assert len(parents) + len(rejected) + run.stats.unused == len(rows)
    for pair in pairs:
        assert pair["masked"] == (pair["kind"] == "text") == (pair["chosen_text"] != pair["rejected_text"])
        assert 0 < pair["margin"] <= 10
