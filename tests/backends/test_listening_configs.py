"""configs/production/{diarization,separation,quality}-*.yaml: complete, and differing from curate.yaml by one thing."""

from pathlib import Path

import pytest

from data_engine.backends.catalog import build_backend
from pipelines.curate import CurateConfig
from pipelines.run import read_run_config

CONFIGS = Path(__file__).parents[2] / "configs"
CHOSEN = {
    "diarization-pyannote": ("diarize", "diarization"),
    "separation-hdemucs": ("separate", "separation"),
    "quality-squim": ("annotate", "squim"),
}
COMPLETE = {**CHOSEN, "quality-dnsmos-torch": ("annotate", "quality")}
"""And those whose weights the package carries."""


def curated(name):
    return read_run_config(CONFIGS / "production" / f"{name}.yaml", []).curate


@pytest.mark.parametrize(("name", "place"), CHOSEN.items())
def test_a_production_config_names_a_model_at_a_revision(name, place):
    section, role = place
    choice = getattr(getattr(curated(name), section), role)
    backend = build_backend(role, choice.name, choice.options)
    assert backend.revision
    assert choice.options.get("model_revision", "a bundle") not in (None, "main", "master")
    assert choice.options["offline"] is False, "the first run downloads"


@pytest.mark.parametrize(("name", "place"), COMPLETE.items())
def test_nothing_but_the_model_is_set(name, place):
    section, role = place
    chosen = curated(name)
    plain = CurateConfig(policy=chosen.policy)
    assert chosen == plain.model_copy(update={section: getattr(chosen, section)})
    assert chosen.policy == read_run_config(CONFIGS / "curate.yaml", []).curate.policy
    before = getattr(plain, section)
    if before is not None:
        changed = {key for key, value in getattr(chosen, section) if value != getattr(before, key)}
        assert changed <= {role, "link_distance"}


def test_separation_comes_before_everything_that_hears_a_segment(tmp_path):
    from data_engine.io.storage import Storage
    from pipelines.curate import plan_curate

    run = read_run_config(CONFIGS / "production" / "separation-hdemucs.yaml", [])
    (tmp_path / "a.wav").write_bytes(b"")
    source = run.source.model_copy(update={"path": str(tmp_path)})
    plan = plan_curate(run.curate, source, tmp_path, Storage(str(tmp_path / "out")), 0)
    stages = [step.stage for group in plan.groups for step in group.steps]
    assert stages.index("extract") + 1 == stages.index("separate") == stages.index("transcribe") - 1
    assert "separate" not in [
        step.stage
        for group in plan_curate(CurateConfig(), source, tmp_path, Storage(str(tmp_path / "other")), 0).groups
        for step in group.steps
    ]
