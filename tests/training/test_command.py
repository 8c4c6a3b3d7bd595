"""`data-engine train`: every model by one command, mistakes in one sentence."""

import importlib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from data_engine.cli import app
from data_engine.core.config import read_yaml, validate
from data_engine.training.command import MODELS

CONFIGS = Path(__file__).parents[2] / "configs" / "training"


def train(*arguments):
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


def test_an_unknown_model_lists_the_known_ones():
    outcome = train("singer", "--config", CONFIGS / "vocoder.yaml")
    assert outcome.exit_code == 2
    assert ", ".join(MODELS) in " ".join(outcome.output.split())


@pytest.mark.parametrize("model", MODELS)
def test_every_model_has_a_config_that_is_valid(model):
    pytest.importorskip("torch")
    module, settings = MODELS[model]
    path = CONFIGS / f"{model}.yaml"
    loaded = importlib.import_module(module)
    validate(getattr(loaded, settings), read_yaml(path), str(path))
    assert callable(loaded.train)


def test_a_wrong_key_names_the_file_and_the_key():
    pytest.importorskip("torch")
    outcome = train("vocoder", "--config", CONFIGS / "vocoder.yaml", "--set", "loop.minuets=3")
    assert outcome.exit_code == 2
    assert "minuets" in outcome.output
    assert "vocoder.yaml" in outcome.output
