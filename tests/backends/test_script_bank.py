"""Checks of the written bank of dialogues in data_engine/assets/script_bank.

The YAML files are read as they are, with no code of the engine, so a mistake in the
bank is told apart from a mistake in the code that fills it.

Filling rule the bank is written for: ``{slot_name}`` (lower-case identifier) is replaced
by the chosen value everywhere in persona, texts and call arguments. Any other brace is
left alone, so the JSON of a tool turn is written plainly.
"""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest
import yaml

BANK = Path(__file__).resolve().parents[2] / "data_engine" / "assets" / "script_bank"

LANGUAGES = ("en", "zh")
STEP_EVAL_AXES = (
    "instruction_following",
    "voice_understanding",
    "logical_reasoning",
    "role_play",
    "creativity",
    "singing",
    "language_ability",
    "emotion_control",
    "gaming",
)
AXES = (*STEP_EVAL_AXES, "tool_call")
EMOTIONS = {"neutral", "happy", "sad", "angry", "surprised", "fearful", "coquettish", "calm"}
SPEEDS = {"slow2", "slow1", "normal", "fast1", "fast2"}
DIALECTS = {"en": {"us", "gb", "scotland", "rp", "caribbean"}, "zh": {"mandarin", "yue"}}
ALTERNATIVE_AXES = {
    "deaf_hack",
    "correctness",
    "relevance",
    "colloquial_length",
    "instruction_following",
    "safety",
}

FILE_KEYS = {"language", "axis", "templates"}
TEMPLATE_KEYS = {"name", "persona", "tools", "turns"}
TEMPLATE_OPTIONAL = {"rows", "choices"}
CONTROL_KEYS = {"emotion", "level", "speed", "dialect"}
TURN_KEYS = {
    "user": {"role", "text"} | CONTROL_KEYS,
    "assistant": {"role", "text", "alternatives"} | CONTROL_KEYS,
    "call": {"role", "text", "alternatives", "call"} | CONTROL_KEYS,
    "tool": {"role", "text"},
}

SLOT = re.compile(r"\{([a-z_][a-z0-9_]*)\}")
SPOKEN = {
    "en": re.compile(r"[A-Za-z' ,.!?-]+"),
    "zh": re.compile(r"[\u4e00-\u9fffA-Za-z ，。！？、]+"),
}
LIMITS = {  # words in English, characters without punctuation in Mandarin
    "en": {"user": (4, 20), "assistant": (5, 30), "alternative": (4, 80)},
    "zh": {"user": (6, 40), "assistant": (6, 40), "alternative": (6, 150)},
}
MIN_TEMPLATES = 6
MIN_FILLINGS = 20

FILES = sorted(BANK.glob("*/*.yaml"))


def load(path: Path) -> dict:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


DOCS = {f"{p.parent.name}/{p.stem}": load(p) for p in FILES}
CASES = [
    pytest.param(doc["language"], doc["axis"], t, id=f"{key}/{t['name']}")
    for key, doc in DOCS.items()
    for t in doc["templates"]
]
each_template = pytest.mark.parametrize(("language", "axis", "template"), CASES)


def fill(text: str, slots: dict) -> str:
    return SLOT.sub(lambda m: str(slots[m.group(1)]), text)


def fillings(template: dict) -> list[dict]:
    rows = template.get("rows") or [{}]
    choices = template.get("choices") or {}
    return [
        {**row, **dict(zip(choices, picks, strict=True))}
        for row in rows
        for picks in itertools.product(*choices.values())
    ]


def kind(turn: dict) -> str:
    return "call" if "call" in turn else turn["role"]


def spoken(template: dict) -> list[tuple[str, str]]:
    """(user | assistant | alternative, unfilled text) of all that is said aloud."""
    out = []
    for turn in template["turns"]:
        if kind(turn) in ("user", "assistant"):
            out.append((turn["role"], turn["text"]))
            out += [("alternative", alt["text"]) for alt in turn.get("alternatives", [])]
    return out


def strings(value: object) -> list[str]:
    if isinstance(value, dict):
        return [s for v in value.values() for s in strings(v)]
    if isinstance(value, list):
        return [s for v in value for s in strings(v)]
    return [value] if isinstance(value, str) else []


def length(language: str, text: str) -> int:
    if language == "en":
        return len(text.split())
    return len(re.sub(r"[，。！？、 ]", "", text))


def test_every_language_has_every_axis_and_nothing_else():
    assert set(DOCS) == {f"{lang}/{axis}" for lang in LANGUAGES for axis in AXES}
    assert not [p for p in BANK.rglob("*") if p.is_file() and p not in FILES]


@pytest.mark.parametrize("key", sorted(DOCS))
def test_file_header_and_size(key):
    doc = DOCS[key]
    assert set(doc) == FILE_KEYS
    assert f"{doc['language']}/{doc['axis']}" == key
    assert len(doc["templates"]) >= MIN_TEMPLATES
    names = [t["name"] for t in doc["templates"]]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", n) for n in names)


@each_template
def test_closed_keys_and_values(language, axis, template):
    assert TEMPLATE_KEYS <= set(template) <= TEMPLATE_KEYS | TEMPLATE_OPTIONAL
    assert template["persona"] is None or isinstance(template["persona"], str)
    assert (template["persona"] is not None) == (axis == "role_play")
    assert bool(template["tools"]) == (axis == "tool_call")
    for turn in template["turns"]:
        assert set(turn) == TURN_KEYS[kind(turn)]
        assert isinstance(turn["text"], str)
        if turn["role"] == "tool":
            continue
        assert turn["emotion"] in EMOTIONS
        assert type(turn["level"]) is int
        assert 1 <= turn["level"] <= 5
        assert turn["speed"] in SPEEDS
        assert turn["dialect"] is None or turn["dialect"] in DIALECTS[language]
        for alt in turn.get("alternatives", []):
            assert set(alt) == {"axis", "text"}
            assert alt["axis"] in ALTERNATIVE_AXES


@each_template
def test_turn_order(language, axis, template):
    allowed = {
        "user": {"call", "assistant"},
        "call": {"tool"},
        "tool": {"assistant"},
        "assistant": {"user"},
    }
    kinds = [kind(t) for t in template["turns"]]
    assert kinds[0] == "user"
    assert kinds[-1] == "assistant"
    assert all(b in allowed[a] for a, b in itertools.pairwise(kinds))
    assert 1 <= kinds.count("user") <= 3
    assert ("call" in kinds) == (axis == "tool_call")


@each_template
def test_slots_defined_and_used(language, axis, template):
    rows = template.get("rows", [])
    choices = template.get("choices", {})
    if rows:
        assert all(set(r) == set(rows[0]) for r in rows)
        assert len({tuple(r.values()) for r in rows}) == len(rows)
        assert not set(rows[0]) & set(choices)
    values = [v for r in rows for v in r.values()] + [v for vs in choices.values() for v in vs]
    assert all(isinstance(v, str) and v and v == v.strip() for v in values)
    assert not [v for v in values if "{" in v or "}" in v]
    assert all(len(set(vs)) == len(vs) for vs in choices.values())
    defined = (set(rows[0]) if rows else set()) | set(choices)
    texts = [template["persona"] or "", *strings(template["turns"])]
    used = {name for text in texts for name in SLOT.findall(text)}
    assert used == defined


@each_template
def test_enough_distinct_dialogues(language, axis, template):
    seen = set()
    for slots in fillings(template):
        said = [fill(t["text"], slots) for t in template["turns"] if t["role"] != "tool"]
        seen.add((fill(template["persona"] or "", slots), *said))
    assert len(seen) >= MIN_FILLINGS
    assert len(seen) == len(fillings(template))


@each_template
def test_spoken_texts_can_be_read_aloud(language, axis, template):
    for slots in fillings(template):
        for who, raw in spoken(template):
            text = fill(raw, slots)
            assert SPOKEN[language].fullmatch(text), text
            assert text == " ".join(text.split()), text
            assert re.search(r"[.!?。！？]$", text), text
            assert not re.search(r"[，。！？、,.!?]{2}", text), text
            low, high = LIMITS[language][who]
            assert low <= length(language, text) <= high, (who, length(language, text), text)


@pytest.mark.parametrize("template", [c.values[2] for c in CASES if c.values[0] == "en"])
def test_english_sentences_start_with_a_capital(template):
    for slots in fillings(template):
        for _, raw in spoken(template):
            text = fill(raw, slots)
            for sentence in re.split(r"(?<=[.!?]) ", text):
                assert sentence[0].isupper(), text


@each_template
def test_alternatives_differ_from_the_text(language, axis, template):
    last = template["turns"][-1]
    assert 1 <= len(last["alternatives"]) <= 3
    for turn in template["turns"]:
        alts = turn.get("alternatives", [])
        if kind(turn) == "call":
            assert alts == []
        for slots in fillings(template):
            texts = [fill(turn["text"], slots), *(fill(a["text"], slots) for a in alts)]
            bare = [re.sub(r"\W", "", t).lower() for t in texts]
            assert len(set(bare)) == len(bare), texts
            for alt, filled in zip(alts, texts[1:], strict=True):
                if alt["axis"] == "colloquial_length":
                    assert length(language, filled) >= 1.5 * length(language, texts[0])


@each_template
def test_tool_calls(language, axis, template):
    tools = {}
    for spec in template["tools"]:
        assert set(spec) == {"name", "description", "parameters"}
        assert spec["parameters"]["type"] == "object"
        assert set(spec["parameters"]["required"]) <= set(spec["parameters"]["properties"])
        for prop in spec["parameters"]["properties"].values():
            assert prop["type"] == "string"
            assert prop["description"]
        tools[spec["name"]] = spec["parameters"]
    assert len(tools) == len(template["tools"])
    called = set()
    for turn in template["turns"]:
        if kind(turn) == "call":
            assert turn["text"] == ""
            assert set(turn["call"]) == {"name", "arguments"}
            parameters = tools[turn["call"]["name"]]
            called.add(turn["call"]["name"])
            arguments = turn["call"]["arguments"]
            assert set(parameters["required"]) <= set(arguments) <= set(parameters["properties"])
            assert all(isinstance(v, str) for v in arguments.values())
        elif turn["role"] == "tool":
            for slots in fillings(template):
                assert isinstance(json.loads(fill(turn["text"], slots)), dict)
    assert called == set(tools)


@pytest.mark.parametrize("language", LANGUAGES)
def test_coverage_of_controls_and_alternative_axes(language):
    templates = [t for d in DOCS.values() if d["language"] == language for t in d["templates"]]
    turns = [t for tpl in templates for t in tpl["turns"] if kind(t) in ("user", "assistant")]
    for role in ("user", "assistant"):
        mine = [t for t in turns if t["role"] == role]
        assert {t["emotion"] for t in mine} == EMOTIONS
        assert {t["level"] for t in mine} == {1, 2, 3, 4, 5}
    replies = [t for t in turns if t["role"] == "assistant"]
    assert {t["speed"] for t in replies} == SPEEDS
    assert {t["speed"] for t in turns if t["role"] == "user"} == SPEEDS
    assert {t["dialect"] for t in replies} - {None} == DIALECTS[language]
    axes = {}
    for tpl in templates:
        for alt in tpl["turns"][-1]["alternatives"]:
            axes[alt["axis"]] = axes.get(alt["axis"], 0) + 1
    assert set(axes) == ALTERNATIVE_AXES
    assert min(axes.values()) >= 4, axes
    users = [sum(t["role"] == "user" for t in tpl["turns"]) for tpl in templates]
    assert set(users) == {1, 2, 3}


@pytest.mark.parametrize("language", LANGUAGES)
def test_voice_understanding_users_speak_with_a_marked_voice(language):
    for template in DOCS[f"{language}/voice_understanding"]["templates"]:
        first = template["turns"][0]
        assert first["emotion"] != "neutral", template["name"]
        assert any(a["axis"] == "deaf_hack" for t in template["turns"] for a in t.get("alternatives", []))


# ---------------------------------------------------------------- facts that can be recomputed

EN_NUMBERS = {
    w: i
    for i, w in enumerate(
        [
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
            "thirteen",
            "fourteen",
            "fifteen",
            "sixteen",
            "seventeen",
            "eighteen",
            "nineteen",
        ]
    )
}
EN_NUMBERS |= {
    w: 10 * i
    for i, w in enumerate(["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"], start=2)
}


def number(language: str, text: str) -> int:
    """Value of a number word, read independently of how the bank was written."""
    total, part = 0, 0
    if language == "en":
        for word in text.replace("-", " ").split():
            if word == "hundred":
                total, part = total + 100 * part, 0
            elif word != "and":
                part += EN_NUMBERS[word]
        return total + part
    digits = {c: i for i, c in enumerate("零一二三四五六七八九")} | {"两": 2}
    for char in text:
        if char in "十百":
            total, part = total + {"十": 10, "百": 100}[char] * (part or 1), 0
        else:
            part = digits[char]
    return total + part


def rows_of(language: str, axis: str, name: str) -> list[dict]:
    (template,) = [t for t in DOCS[f"{language}/{axis}"]["templates"] if t["name"] == name]
    return template["rows"]


NAMES = {
    "arrival": {"en": "train_arrival", "zh": "huoche_daoda"},
    "sum": {"en": "shopping_sum", "zh": "gouwu_zonghe"},
    "share": {"en": "fair_share", "zh": "ping_jun_fen"},
    "pattern": {"en": "number_pattern", "zh": "zhao_guilv"},
    "weekday": {"en": "weekday_offset", "zh": "xingqi_tuisuan"},
    "units": {"en": "unit_conversion", "zh": "danwei_huansuan"},
}
WEEK = {
    "en": ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"],
    "zh": list("一二三四五六日"),
}
FACTORS = {
    ("hours", "minutes"): 60,
    ("feet", "inches"): 12,
    ("weeks", "days"): 7,
    ("minutes", "seconds"): 60,
    ("公斤", "斤"): 2,
    ("小时", "分钟"): 60,
    ("公里", "里"): 2,
    ("分米", "厘米"): 10,
    ("分钟", "秒"): 60,
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_arithmetic_of_the_rows(language):
    def n(text: str) -> int:
        return number(language, text)

    for r in rows_of(language, "logical_reasoning", NAMES["arrival"][language]):
        assert n(r["dep"]) + n(r["dur"]) == n(r["arr"]) <= 12
        assert n(r["wrong"]) != n(r["arr"])
    for r in rows_of(language, "logical_reasoning", NAMES["sum"][language]):
        assert n(r["p"]) + n(r["q"]) == n(r["total"]) != n(r["wrong"])
    for r in rows_of(language, "logical_reasoning", NAMES["share"][language]):
        assert n(r["n"]) * n(r["each"]) == n(r["total"]) == n(r["more"]) * n(r["half"])
        assert n(r["more"]) == 2 * n(r["n"])
        assert n(r["wrong"]) != n(r["half"])
    for r in rows_of(language, "logical_reasoning", NAMES["pattern"][language]):
        seq = [n(w) for w in re.split(r", |、", r["seq"])]
        step = n(r["step"])
        assert [b - a for a, b in itertools.pairwise([*seq, n(r["nxt"])])] == [step] * len(seq)
        assert n(r["wrong"]) != n(r["nxt"])
    week = WEEK[language]
    for r in rows_of(language, "logical_reasoning", NAMES["weekday"][language]):
        assert week[(week.index(r["day"]) + n(r["n"])) % 7] == r["ans"] != r["wrong"]
    for r in rows_of(language, "tool_call", NAMES["units"][language]):
        value = int(r["vd"])
        assert n(r["v"]) == value
        assert n(r["r"]) == int(r["rd"]) == value * FACTORS[r["src"], r["dst"]] != n(r["bad"])


def test_word_chains_chain():
    for r in rows_of("en", "gaming", "word_chain"):
        assert r["w"][-1] == r["last"].lower() == r["nxt"][0] != r["bad"][0]
    for r in rows_of("zh", "gaming", "cheng_yu_jielong"):
        assert r["w"][-1] == r["last"] == r["nxt"][0] != r["bad"][0]


@pytest.mark.parametrize("language", LANGUAGES)
def test_counting_and_guessing_rows(language):
    name = {"en": "count_up_down", "zh": "shu_shu"}[language]
    for r in rows_of(language, "instruction_following", name):
        up = [number(language, w) for w in re.split(r", |、", r["up"])]
        down = [number(language, w) for w in re.split(r", |、", r["down"])]
        assert up == list(range(number(language, r["first"]), number(language, r["last"]) + 1))
        assert down == up[::-1]
    name = {"en": "number_guess", "zh": "cai_shuzi"}[language]
    for r in rows_of(language, "gaming", name):
        low, mid, high = (number(language, r[k]) for k in ("low", "n", "high"))
        assert low < mid < high
