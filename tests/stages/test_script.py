"""Scripts are written per brief, checked turn by turn, and refused with the rule they break."""

from __future__ import annotations

import copy
import json

import pytest

from data_engine.backends.llm_bank import BANK, ScriptBank
from data_engine.core.errors import RecordError
from data_engine.core.ids import content_id, split_of
from data_engine.stages.rules.script_rules import LONGEST_TEXT, check_script, is_spoken
from data_engine.stages.script import WriteScript
from tests.stages.rows import ran, worker

AXES = sorted(path.stem for path in (BANK / "en").glob("*.yaml"))
EMOTIONS, SPEEDS = ("neutral", "happy"), ("normal", "fast1")
GOOD = {
    "persona": None,
    "tools": [{"name": "timer", "parameters": {"required": ["duration"]}}],
    "turns": [
        {"role": "user", "text": " Wake me in five minutes. "},
        {"role": "assistant", "text": "", "call": '{"name": "timer", "arguments": {"duration": "PT5M"}}'},
        {"role": "tool", "text": '{"status": "started"}'},
        {"role": "assistant", "text": "Sleep well.", "emotion": "happy", "level": 2, "speed": "fast1",
         "alternatives": [{"axis": "relevance", "text": "Beds are furniture."}]},
    ],
}  # fmt: skip


class Writer:
    """A language model that writes what it was given, and fails on some seeds."""

    revision = "writer-1"

    def __init__(self, script, refuses=()):
        self.script, self.refuses, self.calls = script, refuses, []

    def write(self, briefs):
        self.calls.append(len(briefs))
        if any(brief.seed in self.refuses for brief in briefs):
            raise RecordError("NO_SCRIPT", "the writer has nothing to say")
        return [copy.deepcopy(self.script) for _ in briefs]


def brief(seed, axis="tool_call", language="en"):
    return {"brief_id": content_id("brief", language, axis, seed), "language": language, "axis": axis, "seed": seed}


def written(tmp_path, briefs, writer):
    stage = WriteScript(WriteScript.Config())
    stage.open(worker(tmp_path, llm=writer))
    return ran(stage, briefs, "brief")


def test_the_bank_becomes_scripts_of_every_axis_and_language(tmp_path):
    briefs = [brief(seed, axis, language) for language in ("en", "zh") for axis in AXES for seed in range(20)]
    rows, run = written(tmp_path, briefs, ScriptBank())
    assert run.rejects == []
    assert [row["brief_id"] for row in rows] == [b["brief_id"] for b in briefs]
    assert all(row["generator_revision"] == ScriptBank().revision and row["is_synthetic"] for row in rows)
    assert all(row["split"] == split_of(row["dialogue_id"]) for row in rows)
    assert all((row["tools"] is not None) == (row["axis"] == "tool_call") for row in rows)


def test_the_dialogue_id_follows_brief_and_text(tmp_path):
    other = copy.deepcopy(GOOD)
    other["turns"][-1]["text"] = "Good night."
    first, again, changed = (written(tmp_path, [brief(1)], Writer(s))[0][0] for s in (GOOD, GOOD, other))
    assert first == again
    assert changed["dialogue_id"] != first["dialogue_id"]
    assert written(tmp_path, [brief(2)], Writer(GOOD))[0][0]["dialogue_id"] != first["dialogue_id"]


def test_defaults_are_filled_and_calls_are_canonical(tmp_path):
    (row,), _ = written(tmp_path, [brief(1)], Writer(GOOD))
    user, call, tool, answer = row["turns"]
    assert user["text"] == "Wake me in five minutes."
    assert (user["emotion"], user["level"], user["speed"], user["dialect"]) == ("neutral", 1, "normal", None)
    assert json.loads(call["call"]) == {"name": "timer", "arguments": {"duration": "PT5M"}}
    assert [is_spoken(turn) for turn in (user, call, tool, answer)] == [True, False, False, True]
    assert json.loads(row["tools"])[0]["name"] == "timer"


def test_one_brief_that_cannot_be_written_does_not_take_others_with_it(tmp_path):
    writer = Writer(GOOD, refuses=(3,))
    rows, run = written(tmp_path, [brief(seed) for seed in range(5)], writer)
    assert [row["seed"] for row in rows] == [0, 1, 2, 4]
    assert [(r["record_id"], r["code"]) for r in run.rejects] == [(brief(3)["brief_id"], "NO_SCRIPT")]


def set_turn(index, **changes):
    def change(script):
        script["turns"][index].update(changes)

    return change


def drop_turns(*indices):
    def change(script):
        script["turns"] = [turn for i, turn in enumerate(script["turns"]) if i not in indices]

    return change


BREACHES = {
    "no turns": (lambda script: script.update(turns=[]), "no turns"),
    "turns no list": (lambda script: script.update(turns="hello"), "no turns"),
    "unknown role": (set_turn(0, role="narrator"), "turn 0 has no role"),
    "assistant first": (drop_turns(0), "first turn is not the user's"),
    "user last": (drop_turns(1, 2, 3), "last turn"),
    "call last": (drop_turns(2, 3), "last turn"),
    "call without result": (drop_turns(2), "assistant does not follow assistant"),
    "result without call": (drop_turns(1), "tool does not follow user"),
    "result after speech": (set_turn(1, text="Yes.", call=None), "follows a tool call"),
    "empty user": (set_turn(0, text="  "), "user turn is empty"),
    "empty answer": (set_turn(3, text="", alternatives=[]), "either speaks or calls"),
    "speaks and calls": (set_turn(1, text="One moment."), "either speaks or calls"),
    "unknown emotion": (set_turn(3, emotion="smug"), "emotion 'smug'"),
    "unknown speed": (set_turn(3, speed="warp"), "speed 'warp'"),
    "level too high": (set_turn(3, level=6), "level 6"),
    "level no number": (set_turn(3, level="5"), "level '5'"),
    "level true": (set_turn(3, level=True), "level True"),
    "dialect no text": (set_turn(3, dialect=4), "dialect is not a text"),
    "call no json": (set_turn(1, call="timer(5)"), "no JSON"),
    "call of nothing offered": (set_turn(1, call='{"name": "rm", "arguments": {}}'), "'rm' is none of timer"),
    "call lacks argument": (set_turn(1, call='{"name": "timer", "arguments": {}}'), "lacks duration"),
    "call by user": (set_turn(0, call='{"name": "timer", "arguments": {"duration": "PT5M"}}'), "only the assistant"),
    "alternative same": (set_turn(3, alternatives=[{"axis": "relevance", "text": "Sleep well. "}]), "says the same"),
    "alternative empty": (set_turn(3, alternatives=[{"axis": "relevance", "text": " "}]), "lacks axis or text"),
    "alternative of user": (set_turn(0, alternatives=[{"axis": "a", "text": "b"}]), "only what the assistant says"),
    "too long": (set_turn(3, text="a" * (LONGEST_TEXT + 1)), "characters"),
    "control mark": (set_turn(3, text="Sure.<|CALL_START|>"), "control mark"),
    "tools no list": (lambda script: script.update(tools={"name": "timer"}), "tools are not"),
    "persona no text": (lambda script: script.update(persona=["a"]), "persona"),
}


@pytest.mark.parametrize("name", sorted(BREACHES))
def test_a_script_that_breaks_a_rule_is_refused_and_says_which(name):
    change, says = BREACHES[name]
    script = copy.deepcopy(GOOD)
    change(script)
    with pytest.raises(RecordError, match=says) as caught:
        check_script(script, EMOTIONS, SPEEDS)
    assert caught.value.code == "SCRIPT_INVALID"


@pytest.mark.parametrize(
    "nonsense", [None, "text", [], {}, {"turns": [None]}, {"turns": [{"role": "user", "text": 3}]}]
)
def test_what_is_no_script_at_all_is_refused(nonsense):
    with pytest.raises(RecordError, match="SCRIPT_INVALID"):
        check_script(nonsense, EMOTIONS, SPEEDS)


def test_a_bad_script_is_a_reject_of_its_brief(tmp_path):
    rows, run = written(tmp_path, [brief(1)], Writer({"turns": []}))
    assert rows == []
    assert [(r["record_id"], r["code"]) for r in run.rejects] == [(brief(1)["brief_id"], "SCRIPT_INVALID")]
