"""What a scheduler sees: exit codes, `run.json`, `status --json`, metrics.prom, one section at a time."""

import json
import shutil

import numpy as np
import pytest
import soundfile

from data_engine.core.errors import ConfigError
from data_engine.io.storage import Storage
from data_engine.runners.books import PIPELINES
from data_engine.standing import KNOWN, SECTIONS, is_committed, standing
from tests.e2e.conftest import engine
from tests.telemetry.runs import parse_prometheus

pytestmark = [pytest.mark.xdist_group("sections"), pytest.mark.timeout(300)]


def state(planned, committed):
    return {"shards": {"planned": planned, "committed": committed, "dead": 0}}


def test_every_pipeline_belongs_to_a_section():
    assert [pipeline for names in KNOWN.values() for pipeline in names] == list(PIPELINES)


def test_a_section_is_committed_when_its_last_pipeline_is():
    everything = {name: state(2, 2) for name in SECTIONS["curate"]}
    assert is_committed(everything, ["curate"])
    assert not is_committed({"curate": state(2, 2)}, ["curate"]), "later pipelines have not begun"
    assert not is_committed({**everything, "voices": state(2, 1)}, ["curate"])
    assert not is_committed(everything, ["curate", "prefer"])
    assert is_committed({**everything, "prefer": state(0, 0)}, ["curate", "prefer"])


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A tone and a file that is not audio: nothing to transcribe, so this takes seconds."""
    folder = tmp_path_factory.mktemp("sections")
    (folder / "in").mkdir()
    tone = 0.3 * np.sin(2 * np.pi * 220 * np.arange(32_000) / 16_000)
    soundfile.write(folder / "in" / "tone.wav", tone, 16_000)
    (folder / "in" / "broken.wav").write_bytes(b"this is not audio")
    path = folder / "run.yaml"
    path.write_text("name: tones\noutput: out\nsource: {path: in}\ncurate: {}\nprefer: {}\n")
    return path


@pytest.fixture(scope="module")
def first_section(config, tmp_path_factory):
    """The folder of `run --only curate`, and how that ended."""
    folder = tmp_path_factory.mktemp("run") / "out"
    return folder, engine("run", config, "--output", folder, "--workers", 1, "--only", "curate", "--json")


def test_one_section_runs_and_the_run_is_not_complete(first_section):
    folder, finished = first_section
    assert finished.returncode == 0, finished.stderr
    run = json.loads(finished.stdout)
    assert run == json.loads((folder / "run.json").read_text())
    assert set(run["pipelines"]) == set(SECTIONS["curate"])
    assert run["state"] == "incomplete"


def test_status_says_with_its_exit_code_which_sections_are_done(first_section):
    folder, _ = first_section
    whole, curate, prefer = (
        engine("status", folder, "--json", *only) for only in ([], ["--only", "curate"], ["--only", "prefer"])
    )
    assert (whole.returncode, curate.returncode, prefer.returncode) == (1, 0, 1)
    assert set(json.loads(curate.stdout)) == set(SECTIONS["curate"])
    assert json.loads(prefer.stdout) == {}
    shards = json.loads(curate.stdout)["curate"]["shards"]
    assert shards == {"planned": 1, "committed": 1, "dead": 0}
    assert engine("status", folder, "--only", "curated").returncode == 2


def test_metrics_are_beside_run_json_and_say_the_same(first_section):
    folder, _ = first_section
    values, _ = parse_prometheus((folder / "metrics.prom").read_text())
    common = {("run", "tones"), ("output", str(folder))}
    assert values["speech_data_engine_run_complete", frozenset(common)] == 0
    for stats in json.loads((folder / "run.json").read_text())["pipelines"]["curate"]["stages"]:
        labels = frozenset({*common, ("pipeline", "curate"), ("stage", stats["stage"])})
        assert values["speech_data_engine_stage_rows_in_total", labels] == stats["rows_in"]
        assert values["speech_data_engine_stage_audio_out_seconds_total", labels] == stats["seconds_out"]
        for code, count in stats["reject_codes"].items():
            key = "speech_data_engine_stage_rows_rejected_total", labels | {("code", code)}
            assert values[key] == count
    assert any(("code", "NOT_AUDIO") in labels for _, labels in values)


def test_a_section_waits_for_those_it_reads_from(config, tmp_path):
    finished = engine("run", config, "--output", tmp_path / "out", "--only", "prefer")
    assert finished.returncode == 1, "not a bad configuration: trying again later is right"
    assert "reads what 'curate' makes" in finished.stderr
    assert not (tmp_path / "out").exists()


def test_the_last_section_makes_the_run_complete(first_section, config, tmp_path):
    folder = tmp_path / "out"
    shutil.copytree(first_section[0], folder)
    finished = engine("run", config, "--output", folder, "--only", "prefer", "--json")
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout)["state"] == "complete"
    assert engine("status", folder).returncode == 0


def test_a_section_that_the_config_lacks_is_a_configuration_error(config, tmp_path):
    for only in ("synthesize", "speak"):
        finished = engine("run", config, "--output", tmp_path / "out", "--only", only)
        assert finished.returncode == 2 and only in finished.stderr
    assert not (tmp_path / "out").exists()


def test_a_run_that_never_began_writes_no_metrics(config, tmp_path):
    finished = engine("run", config, "--output", tmp_path / "out", "--set", "curate.policy=none.yaml", "--json")
    assert (finished.returncode, finished.stdout) == (2, "")
    assert not (tmp_path / "out" / "metrics.prom").exists()


def test_a_folder_without_a_run_is_not_a_state(tmp_path):
    with pytest.raises(ConfigError, match="holds no run"):
        standing(Storage(str(tmp_path)), "curate")
