"""Casting gives each role one voice per dialogue and each spoken turn its takes."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from data_engine.core.config import signature_config
from data_engine.core.ids import content_id
from data_engine.core.schema import load_schema
from data_engine.stages.cast import Cast
from data_engine.stages.rules.consent import TableReference
from tests.stages.rows import ran, worker

CONTROLS = {"emotion": "neutral", "level": 1, "dialect": None, "speed": "normal"}


class Synthesizer:
    """Only its revision matters here."""

    def __init__(self, revision="tts-1"):
        self.revision = revision


def turn(role, text, call=None, alternatives=(), **controls):
    alternatives = [{"axis": axis, "text": other} for axis, other in alternatives]
    return {"role": role, "text": text, "call": call, "alternatives": alternatives, **CONTROLS, **controls}


TURNS = [
    turn("user", "Set a timer.", emotion="happy", level=3),
    turn("assistant", "", call='{"name": "timer", "arguments": {}}'),
    turn("tool", '{"ok": true}'),
    turn("assistant", "It is set.", alternatives=[("relevance", "Clocks tick."), ("safety", "No.")], dialect="gb"),
]


def script(number=0, language="en", turns=TURNS):
    return {
        "dialogue_id": content_id("d", number), "brief_id": content_id("b", number), "language": language,
        "axis": "tool_call", "split": "train", "persona": "You are a clock.", "tools": '[{"name": "timer"}]',
        "turns": turns, "generator": "bank", "generator_revision": "bank-1", "seed": number, "is_synthetic": True,
    }  # fmt: skip


def voice(speaker, language="en", consent="contract", uses=("clone",)):
    return {
        "language": language, "speaker_id": speaker, "licence": "CC0-1.0", "consent_basis": consent,
        "allowed_uses": list(uses),
    }  # fmt: skip


VOICES = {f"v{n}": voice(f"s{n}") for n in range(4)}


def cast(tmp_path, scripts, voices=VOICES, tts=None, **config):
    config = {"voices": {"uri": "somewhere" if voices else "", "digest": "d"}, **config}
    stage = Cast(Cast.Config(**config), lambda uri, columns: voices)
    stage.open(worker(tmp_path, tts=tts or Synthesizer()))
    return ran(stage, scripts, "script")


def test_takes_are_counted_by_role_and_variant(tmp_path):
    rows, _ = cast(tmp_path, [script()])
    counts = Counter((row["turn"], row["role"], row["variant"], row["variant_axis"]) for row in rows)
    assert counts == {
        (0, "user", 0, None): 2,
        (3, "assistant", 0, None): 4,
        (3, "assistant", 1, "relevance"): 2,
        (3, "assistant", 2, "safety"): 2,
    }
    assert {row["text"] for row in rows if row["variant"] == 2} == {"No."}


def test_controls_of_the_turn_go_to_all_its_variants(tmp_path):
    rows, _ = cast(tmp_path, [script()], assistant_takes=1, user_takes=1, alternative_takes=1)
    assert [(r["emotion"], r["level"], r["dialect"]) for r in rows] == [
        ("happy", 3, None), ("neutral", 1, "gb"), ("neutral", 1, "gb"), ("neutral", 1, "gb"),
    ]  # fmt: skip


def test_each_role_keeps_one_voice_and_the_two_differ(tmp_path):
    rows, _ = cast(tmp_path, [script(n) for n in range(30)])
    pairs = set()
    for dialogue in {row["dialogue_id"] for row in rows}:
        spoken = {(r["role"], r["voice_id"]) for r in rows if r["dialogue_id"] == dialogue}
        assert len(spoken) == 2
        pair = dict(spoken)
        assert pair["user"] != pair["assistant"]
        pairs.add(tuple(pair.values()))
    assert len(pairs) > 5


def test_two_prompts_of_one_speaker_do_not_talk_to_each_other(tmp_path):
    voices = {"a1": voice("a"), "a2": voice("a"), "b": voice("b")}
    rows, _ = cast(tmp_path, [script(n) for n in range(20)], voices)
    for dialogue in {row["dialogue_id"] for row in rows}:
        speakers = {voices[r["voice_id"]]["speaker_id"] for r in rows if r["dialogue_id"] == dialogue}
        assert speakers == {"a", "b"}


def test_voices_of_the_language_come_first(tmp_path):
    voices = {"e1": voice("e1"), "e2": voice("e2"), "z1": voice("z1", "zh"), "z2": voice("z2", "zh")}
    rows, _ = cast(tmp_path, [script(n, "zh") for n in range(10)], voices)
    assert {row["voice_id"] for row in rows} == {"z1", "z2"}


def test_one_voice_speaks_both_parts(tmp_path):
    rows, _ = cast(tmp_path, [script()], {"only": voice("s")})
    assert {row["voice_id"] for row in rows} == {"only"}


def test_voices_that_may_be_cloned_are_chosen_while_there_is_one(tmp_path):
    voices = {"yes": voice("a"), "no": voice("b", consent=None), "asr": voice("c", uses=("asr",))}
    scripts = [script(n) for n in range(20)]
    assert {r["voice_id"] for r in cast(tmp_path, scripts, voices)[0]} == {"yes"}
    assert {r["voice_id"] for r in cast(tmp_path, scripts, voices, voices_from="all")[0]} == set(voices)


def test_without_any_consent_rows_go_on_to_be_refused_where_all_see_it(tmp_path):
    voices = {"no": voice("b", consent=None), "asr": voice("c", uses=("asr",))}
    rows, run = cast(tmp_path, [script(n) for n in range(10)], voices)
    assert {row["voice_id"] for row in rows} == set(voices)
    assert run.rejects == []
    assert {(row["consent_basis"], tuple(row["allowed_uses"])) for row in rows} == {
        (None, ("clone",)), ("contract", ("asr",)),
    }  # fmt: skip


def test_without_voices_the_dialogue_is_the_reject(tmp_path):
    rows, run = cast(tmp_path, [script(1), script(2)], {})
    assert rows == []
    assert [(r["record_id"], r["code"]) for r in run.rejects] == [
        (content_id("d", 1), "NO_VOICE"), (content_id("d", 2), "NO_VOICE"),
    ]  # fmt: skip


def test_a_dialogue_nobody_speaks_is_a_reject(tmp_path):
    silent = [turn("assistant", "", call="{}"), turn("tool", "{}")]
    rows, run = cast(tmp_path, [script(0), script(1, turns=silent)])
    assert {row["dialogue_id"] for row in rows} == {content_id("d", 0)}
    assert [r["code"] for r in run.rejects] == ["NO_CHILDREN"]


def test_ids_are_content(tmp_path):
    rows, _ = cast(tmp_path, [script()])
    assert rows == cast(tmp_path, [script()])[0]
    assert len({row["candidate_id"] for row in rows}) == len({row["seed"] for row in rows}) == len(rows)
    newer, _ = cast(tmp_path, [script()], tts=Synthesizer("tts-2"))
    assert not {row["candidate_id"] for row in rows} & {row["candidate_id"] for row in newer}


def test_the_script_travels_with_its_candidates(tmp_path):
    row = cast(tmp_path, [script()])[0][0]
    context = json.loads(row["context"])
    assert context["persona"] == "You are a clock."
    assert context["tools"] == [{"name": "timer"}]
    assert [t["role"] for t in context["turns"]] == ["user", "assistant", "tool", "assistant"]
    assert json.loads(context["turns"][1]["call"])["name"] == "timer"
    assert all("alternatives" not in t for t in context["turns"])
    assert (context["generator"], context["generator_revision"], context["seed"]) == ("bank", "bank-1", 0)


@pytest.mark.parametrize(("given", "uri"), [("runs/a", "runs/a"), (None, ""), ({"uri": "x", "digest": "y"}, "x")])
def test_voices_are_named_by_folder_or_by_reference(given, uri):
    assert TableReference.model_validate(given).uri == uri


def test_the_same_voices_elsewhere_are_the_same_setting():
    def signed(**voices):
        return signature_config(Cast.Config(voices=voices))

    assert signed(uri="a", digest="same") == signed(uri="b", digest="same")
    assert signed(uri="a", digest="same") != signed(uri="a", digest="other")
    assert signed(uri="a") != signed(uri="b")


def test_produces_are_columns_of_candidates_without_sound(tmp_path):
    names = set(Cast(Cast.Config()).spec.produces.names)
    assert names <= set(load_schema("candidate").names)
    assert not names & {"audio", "generator", "is_synthetic"}
