"""configs/production/asr-*.yaml: complete configs that differ from configs/curate.yaml by the recognizer only."""

from pathlib import Path

import pytest

from data_engine.backends.catalog import build_backend
from pipelines.curate import CurateConfig
from pipelines.run import read_run_config

CONFIGS = Path(__file__).parents[2] / "configs"
PRODUCTION = sorted((CONFIGS / "production").glob("asr-*.yaml"))


@pytest.mark.parametrize("path", PRODUCTION, ids=lambda path: path.stem)
def test_a_production_config_names_a_recognizer_at_a_revision(path):
    asr = read_run_config(path, []).curate.transcribe.asr
    assert asr.name in ("funasr", "whisper")
    assert build_backend("asr", asr.name, asr.options).revision
    assert asr.options["model_revision"] not in (None, "main", "master")


@pytest.mark.parametrize("path", PRODUCTION, ids=lambda path: path.stem)
def test_nothing_but_the_recognizer_is_set(path):
    chosen = read_run_config(path, []).curate
    plain = CurateConfig(transcribe=chosen.transcribe, policy=chosen.policy)
    assert chosen == plain
    assert chosen.policy == read_run_config(CONFIGS / "curate.yaml", []).curate.policy


def test_there_is_one_for_each_model():
    assert [path.stem for path in PRODUCTION] == ["asr-funasr", "asr-sensevoice", "asr-whisper"]
