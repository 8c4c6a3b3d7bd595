"""A bad configuration fails before any work, naming the file, the key and what was expected."""

import pytest

from data_engine.core.config import (
    BackendChoice,
    Settings,
    choices,
    override,
    read_yaml,
    role,
    signature_config,
    speed_knob,
    validate,
)
from data_engine.core.errors import ConfigError


class Inner(Settings):
    threshold: float = 0.5


class Outer(Settings):
    name: str
    inner: Inner = Inner()
    asr: BackendChoice = role("asr", "pocketsphinx")
    batch: int = speed_knob(8, ge=1)


def test_unknown_keys_are_named_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"run\.yaml: unknown key 'inner\.treshold'; known keys there: threshold"):
        validate(Outer, {"name": "a", "inner": {"treshold": 1}}, "run.yaml")


def test_missing_and_wrong_values_are_named():
    with pytest.raises(ConfigError, match="key 'name' is missing"):
        validate(Outer, {}, "run.yaml")
    with pytest.raises(ConfigError, match="key 'batch': .*greater than or equal to 1, got 0"):
        validate(Outer, {"name": "a", "batch": 0}, "run.yaml")


def test_a_back_end_is_a_name_or_a_name_with_options():
    assert validate(Outer, {"name": "a", "asr": "other"}, "f").asr == BackendChoice(name="other")
    chosen = validate(Outer, {"name": "a", "asr": {"name": "x", "options": {"beam": 3}}}, "f")
    assert choices(chosen) == {"asr": BackendChoice(name="x", options={"beam": 3})}


def test_speed_knobs_are_not_part_of_the_signature():
    assert "batch" not in signature_config(Outer(name="a"))
    assert signature_config(Outer(name="a", batch=3)) == signature_config(Outer(name="a"))
    assert signature_config(Outer(name="b")) != signature_config(Outer(name="a"))


def test_overrides_reach_nested_keys_and_read_yaml_values():
    config = {"inner": {"threshold": 1}, "list": None}
    assert override(config, ["inner.threshold=0.25", "list.a=[1, 2]", "new=null"]) == {
        "inner": {"threshold": 0.25},
        "list": {"a": [1, 2]},
        "new": None,
    }
    assert config == {"inner": {"threshold": 1}, "list": None}


@pytest.mark.parametrize("assignment", ["novalue", "=1", "inner.threshold.deeper=1"])
def test_a_bad_override_is_quoted(assignment):
    with pytest.raises(ConfigError, match="--set"):
        override({"inner": {"threshold": 1}}, [assignment])


def test_a_file_that_is_missing_or_not_yaml_or_not_a_mapping_is_named(tmp_path):
    with pytest.raises(ConfigError, match="cannot read the config"):
        read_yaml(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1")
    with pytest.raises(ConfigError, match="is not YAML"):
        read_yaml(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(ConfigError, match="mapping"):
        read_yaml(tmp_path / "list.yaml")


class Optional(Settings):
    asr: BackendChoice = role("asr", "pocketsphinx")
    emotion: BackendChoice | None = role("emotion", None)


def test_nobody_plays_an_optional_role_until_somebody_is_chosen():
    assert choices(Optional()) == {"asr": BackendChoice(name="pocketsphinx")}
    chosen = validate(Optional, {"emotion": "prosody"}, "run.yaml")
    assert choices(chosen)["emotion"] == BackendChoice(name="prosody")
    assert signature_config(Optional())["emotion"] is None
    assert signature_config(chosen)["emotion"] == {"name": "prosody", "options": {}}
