"""configs/production/emotion-*.yaml: complete configs, like configs/curate.yaml but for the emotion model."""

from pathlib import Path

import pytest

from data_engine.backends.catalog import build_backend
from data_engine.stages.catalog import build_stage, stage_signature_parts
from pipelines.compose import gpus_of
from pipelines.curate import CurateConfig
from pipelines.run import read_run_config

CONFIGS = Path(__file__).parents[2] / "configs"
PRODUCTION = sorted((CONFIGS / "production").glob("emotion-*.yaml"))


@pytest.mark.parametrize("path", PRODUCTION, ids=lambda path: path.stem)
def test_a_production_config_names_an_emotion_model_at_a_revision_and_nothing_else(path):
    chosen = read_run_config(path, []).curate
    emotion = chosen.annotate.emotion
    assert build_backend("emotion", emotion.name, emotion.options).revision
    assert emotion.options["model_revision"] not in (None, "main", "master")
    assert chosen == CurateConfig(annotate={"emotion": emotion}, policy=chosen.policy)
    assert chosen.policy == read_run_config(CONFIGS / "curate.yaml", []).curate.policy


@pytest.mark.parametrize("path", PRODUCTION, ids=lambda path: path.stem)
def test_the_model_is_part_of_what_identifies_the_output(path):
    plain, chosen = (read_run_config(config, []).curate.annotate for config in (CONFIGS / "curate.yaml", path))
    assert "emotion" not in stage_signature_parts("annotate", plain.model_dump())[1]
    assert "emotion" in stage_signature_parts("annotate", chosen.model_dump())[1]
    assert {"emotion", "emotion_confidence"} <= set(build_stage("annotate", chosen.model_dump()).spec.produces.names)


def test_a_gpu_is_asked_for_as_soon_as_the_model_is_to_use_one():
    path = CONFIGS / "production" / "emotion-emotion2vec.yaml"
    key = "curate.annotate.emotion.options.device=cuda"
    assert gpus_of(read_run_config(path, [key]).curate.annotate) == 1.0
    assert gpus_of(read_run_config(path, []).curate.annotate) == 0.0


def test_there_is_one():
    assert [path.stem for path in PRODUCTION] == ["emotion-emotion2vec"]
