"""The script bank writes the same dialogue for the same brief, with every slot filled."""

from __future__ import annotations

import json
import re

import pytest

from data_engine.backends.llm_bank import BANK, ScriptBank, choose_slots, fill_template
from data_engine.backends.protocols import Brief
from data_engine.core.errors import ConfigError, RecordError

AXES = sorted(path.stem for path in (BANK / "en").glob("*.yaml"))
TEMPLATE = {
    "name": "trip",
    "persona": "You guide people to {city}.",
    "tools": [{"name": "book"}],
    "rows": [{"city": "Oslo", "river": "Akerselva"}, {"city": "Lyon", "river": "Rhone"}],
    "choices": {"day": ["Monday", "Friday"], "hour": [9, 10]},
    "turns": [
        {"role": "user", "text": "To {city} on {day}.", "emotion": "happy", "level": 3, "speed": "fast1"},
        {"role": "assistant", "text": "", "call": {"name": "book", "arguments": {"to": "{city}", "at": ["{hour}"]}}},
        {"role": "tool", "text": '{"ok": true, "day": "{day}"}'},
        {"role": "assistant", "text": "Enjoy the {river}.", "alternatives": [{"axis": "relevance", "text": "{day}?"}]},
    ],
}


def brief(axis="role_play", language="en", seed=1):
    return Brief("b", language, axis, seed)


def test_slots_are_filled_everywhere_and_rows_belong_together():
    script = fill_template(TEMPLATE, seed=5)
    slots = choose_slots(TEMPLATE, seed=5)
    assert (slots["city"], slots["river"]) in {("Oslo", "Akerselva"), ("Lyon", "Rhone")}
    assert script["persona"] == f"You guide people to {slots['city']}."
    user, call, tool, answer = script["turns"]
    assert user["text"] == f"To {slots['city']} on {slots['day']}."
    assert json.loads(call["call"]) == {"name": "book", "arguments": {"to": slots["city"], "at": [slots["hour"]]}}
    assert json.loads(tool["text"]) == {"ok": True, "day": slots["day"]}
    assert answer["alternatives"] == [{"axis": "relevance", "text": f"{slots['day']}?"}]


def test_controls_are_those_written_or_neutral():
    user, _, tool, answer = fill_template(TEMPLATE, seed=5)["turns"]
    assert (user["emotion"], user["level"], user["speed"], user["dialect"]) == ("happy", 3, "fast1", None)
    assert (answer["emotion"], answer["level"], answer["speed"]) == ("neutral", 1, "normal")
    assert tool["call"] is None


def test_seeds_reach_every_row_and_choice():
    seen = {tuple(sorted(choose_slots(TEMPLATE, seed).items())) for seed in range(200)}
    assert len(seen) == 2 * 2 * 2


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("axis", AXES)
def test_every_axis_is_written_without_open_slots(language, axis):
    scripts = ScriptBank().write([brief(axis, language, seed) for seed in range(30)])
    assert scripts == ScriptBank().write([brief(axis, language, seed) for seed in range(30)])
    assert len({json.dumps(script, sort_keys=True) for script in scripts}) > 5
    for script in scripts:
        assert not re.search(r"\{[a-z_]+\}", json.dumps(script, ensure_ascii=False))
        for turn in script["turns"]:
            json.loads(turn["text"] if turn["role"] == "tool" else turn["call"] or "null")


@pytest.mark.parametrize(("language", "axis"), [("tlh", "role_play"), ("en", "cooking"), ("..", "en"), ("en", "../en")])
def test_what_the_bank_does_not_have_is_a_reject(language, axis):
    with pytest.raises(RecordError) as caught:
        ScriptBank().write([brief(axis, language)])
    assert caught.value.code == "NO_SCRIPT"


def test_the_revision_follows_the_files(tmp_path):
    (tmp_path / "en").mkdir()
    file = tmp_path / "en" / "trip.yaml"
    file.write_text(json.dumps({"language": "en", "axis": "trip", "templates": [TEMPLATE]}))
    bank = ScriptBank(folder=str(tmp_path))
    before = bank.revision
    assert bank.write([brief("trip", seed=5)]) == [fill_template(TEMPLATE, seed=5)]
    file.write_text(file.read_text() + "\n")
    assert bank.revision != before


def test_a_folder_that_is_not_there_is_a_configuration_error(tmp_path):
    with pytest.raises(ConfigError, match="no folder"):
        ScriptBank(folder=str(tmp_path / "nowhere"))
