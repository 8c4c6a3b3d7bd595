"""Every registered stage keeps the contract: a spec that matches its docstring, settings that are refused."""

import inspect
import re

import pytest

from data_engine.core.config import Settings, choices
from data_engine.core.errors import ConfigError
from data_engine.core.registry import lookup
from data_engine.core.schema import load_schema
from data_engine.core.stage import FoldStage, Stage, StageSpec
from data_engine.stages.catalog import STAGES, build_stage, stage_signature_parts

REJECT_CODES = next(f for f in load_schema("reject").fields if f.name == "code").values
MINIMAL = {
    "separate": {"separation": {"name": "hdemucs", "options": {"model": "HDEMUCS_HIGH_MUSDB_PLUS"}}},
    "filter": {"policy": {"name": "none", "version": 1, "rules": []}},
    "teach": {"part": {"kind": "closed"}, "lists": ".", "speechocean": ".", "recordings": "."},
}


def stage_class(name):
    return lookup("stage", name, STAGES, "none")


def listed(stage, heading):
    """The names a docstring lists after a heading, up to the next blank line or heading."""
    text = inspect.getdoc(stage)
    match = re.search(rf"^{heading}:\s*(.*?)(?=^\s*$|^[A-Z][a-z]+:|\Z)", text, re.MULTILINE | re.DOTALL)
    assert match, f"the docstring of {stage.__name__} has no '{heading}:' section"
    return {word.strip(" .`*") for word in re.split(r"[,\n]", match[1]) if word.strip(" .`*")}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_is_built_from_settings_and_says_what_it_is(name):
    stage = build_stage(name, MINIMAL.get(name, {}))
    assert isinstance(stage, Stage)
    assert isinstance(stage.spec, StageSpec)
    assert stage.spec.name == name
    assert issubclass(stage_class(name).Config, Settings)
    assert isinstance(stage, FoldStage) == (stage.spec.shape == "fold")
    if stage.spec.shape == "map":
        assert stage.spec.consumes.id == stage.spec.produces.id
    else:
        assert stage.spec.parents in stage.spec.produces.names


@pytest.mark.parametrize("name", STAGES)
def test_the_docstring_of_a_stage_lists_what_its_spec_says(name):
    stage = build_stage(name, MINIMAL.get(name, {}))
    ids = {stage.spec.consumes.id, stage.spec.produces.id}
    for heading, schema in (("Consumes", stage.spec.consumes), ("Produces", stage.spec.produces)):
        found = listed(type(stage), heading)
        whole = {str(schema), f"all of {schema}", f"all columns of {schema}"}
        if found & whole and len(schema.fields) == len(load_schema(schema.name).fields):
            continue
        assert found - ids == set(schema.names) - ids
    rejects = listed(type(stage), "Rejects") - {"none", "nothing"}
    assert rejects <= set(REJECT_CODES)


@pytest.mark.parametrize("name", STAGES)
def test_an_unknown_setting_is_refused_by_name(name):
    with pytest.raises(ConfigError, match="no_such_key"):
        build_stage(name, {**MINIMAL.get(name, {}), "no_such_key": 1})


@pytest.mark.parametrize("name", STAGES)
def test_a_signature_needs_no_model_and_names_the_revision_of_each(name):
    config, revisions = stage_signature_parts(name, MINIMAL.get(name, {}))
    chosen = choices(stage_class(name).Config.model_validate(MINIMAL.get(name, {})))
    assert set(revisions) == set(chosen)
    assert all(isinstance(revision, str) and revision for revision in revisions.values())
    assert isinstance(config, dict)
