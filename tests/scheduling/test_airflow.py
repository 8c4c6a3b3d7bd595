"""The DAG in a real Airflow, in an environment of its own: `make test-airflow`."""

import json
import os
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import soundfile

CHECKOUT = Path(__file__).parents[2]
ENGINE = os.environ.get("DATA_ENGINE_COMMAND", str(Path(sys.executable).parent / "data-engine"))
AIRFLOW = Path(os.environ.get("AIRFLOW_COMMAND", CHECKOUT / ".venv-airflow" / "bin" / "airflow"))
DAG_FILE = CHECKOUT / "pipelines" / "airflow_dag.py"

needs_airflow = pytest.mark.skipif(not AIRFLOW.is_file(), reason="there is no .venv-airflow; run `make test-airflow`")
pytestmark = [pytest.mark.xdist_group("airflow"), pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def dag_module():
    spec = spec_from_file_location("airflow_dag", DAG_FILE)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_without_airflow_the_file_is_read_and_builds_nothing(dag_module):
    assert not hasattr(dag_module, "dag")
    assert "airflow" not in sys.modules


def printed(planned, committed, *dead):
    shards = {"planned": planned, "committed": committed, "dead": len(dead)}
    return json.dumps({"curate": {"shards": shards, "dead": list(dead)}})


def test_a_sensor_waits_for_shards_that_may_come_and_not_for_dead_ones(dag_module):
    assert dag_module.is_committed(0, printed(3, 3)) is True
    assert dag_module.is_committed(1, printed(3, 2)) is False
    with pytest.raises(dag_module.DeadShardsError, match=r"curate shard 2: killed.*replay"):
        dag_module.is_committed(1, printed(3, 2, {"shard": 2, "reason": "killed"}))
    with pytest.raises(dag_module.DeadShardsError, match="exit code 2"):
        dag_module.is_committed(2, "")


def test_what_a_dag_run_may_set_is_one_word_of_the_command(dag_module):
    odd = "s3://bucket/a b; rm -rf /"
    words = dag_module.command_words("ssh host data-engine", "curate", odd)
    assert words == [
        "ssh",
        "host",
        "data-engine",
        "status",
        "--only",
        "curate",
        "--json",
        "--",
        "s3://bucket/a b; rm -rf /",
    ]


@pytest.fixture(scope="module")
def airflow(tmp_path_factory):
    """Returns a function that runs Airflow on a SQLite of its own, with variables of the DAG."""
    home = tmp_path_factory.mktemp("airflow")
    (home / "dags").mkdir()
    (home / "dags" / "airflow_dag.py").symlink_to(DAG_FILE)
    (home / "dags" / "three_lines.py").write_text(
        'from airflow_dag import build_dag\n\nonce = build_dag("once", ("curate",), schedule="0 2 * * *", retries=0)\n'
    )
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "OTEL_", "PYTEST"))}
    plain |= {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": f"{home}/dags",
        "AIRFLOW_VAR_SPEECH_DATA_ENGINE_COMMAND": ENGINE,
    }

    def call(*arguments, **variables):
        env = plain | {f"AIRFLOW_VAR_SPEECH_DATA_ENGINE_{name.upper()}": str(v) for name, v in variables.items()}
        command = [str(AIRFLOW), *arguments]
        return subprocess.run(command, env=env, cwd=home, capture_output=True, text=True, timeout=3000, check=False)

    migrated = call("db", "migrate")
    assert migrated.returncode == 0, migrated.stderr
    return call


@pytest.fixture(scope="module")
def config(conversation, tmp_path_factory):
    """All three pipelines on twelve seconds; DATA_ENGINE_CONFIG=configs/demo.yaml takes the demo instead."""
    if "DATA_ENGINE_CONFIG" in os.environ:
        return Path(os.environ["DATA_ENGINE_CONFIG"]).absolute()
    folder = tmp_path_factory.mktemp("config")
    wave, rate = soundfile.read(conversation, dtype="int16")
    soundfile.write(folder / "a.wav", wave[int(6.5 * rate) : int(18.5 * rate)], rate)
    path = folder / "small.yaml"
    path.write_text(
        """
name: small
output: out/small
source: {path: a.wav, language: en, licence: MIT, consent_basis: test, allowed_uses: [tts, clone]}
curate: {policy: policies/dialogue.yaml}
synthesize:
  briefs: {count: 1, axes: [logical_reasoning]}
  cast: {user_takes: 1, assistant_takes: 2, alternative_takes: 1}
prefer: {}
""",
        encoding="utf-8",
    )
    return path


def answer(finished):
    """Returns the JSON that a command of Airflow prints after its warnings."""
    return json.loads(finished.stdout.splitlines()[-1])


@needs_airflow
def test_airflow_loads_the_dag_and_a_file_of_three_lines(airflow):
    assert airflow("dags", "reserialize").returncode == 0
    assert answer(airflow("dags", "list-import-errors", "-o", "json")) == []
    found = {dag["dag_id"]: Path(dag["fileloc"]).name for dag in answer(airflow("dags", "list", "-o", "json"))}
    assert found == {"speech_data_engine": "airflow_dag.py", "once": "three_lines.py"}


@needs_airflow
def test_every_section_runs_and_every_marker_is_seen(airflow, config, tmp_path):
    output = tmp_path / "out"
    finished = airflow("dags", "test", "speech_data_engine", config=config, output=output)
    assert finished.returncode == 0, finished.stdout[-8000:] + finished.stderr[-4000:]
    status = subprocess.run([ENGINE, "status", output, "--json"], capture_output=True, text=True, check=False)
    assert status.returncode == 0, status.stdout + status.stderr
    assert {"curate", "synthesize", "prefer"} <= set(json.loads(status.stdout))
    assert json.loads((output / "run.json").read_text())["state"] == "complete"
    tasks = {f"{section}{kind}" for section in ("curate", "synthesize", "prefer") for kind in ("", "_committed")}
    assert finished.stdout.count("[DAG TEST] starting task_id=") == len(tasks)
    assert all(f"[DAG TEST] end task task_id={task} " in finished.stdout for task in tasks)


@needs_airflow
def test_a_bad_configuration_fails_at_once_and_is_not_tried_again(airflow, config, tmp_path):
    broken = tmp_path / "broken.yaml"
    broken.write_text(config.read_text().replace("curate:", "curare:", 1))
    finished = airflow("dags", "test", "speech_data_engine", config=broken, output=tmp_path / "out")
    assert finished.returncode == 1
    assert "curare" in finished.stdout and "The configuration is wrong" in finished.stdout
    assert finished.stdout.count("[DAG TEST] starting task_id=") == 1
    assert "up_for_retry" not in finished.stdout
    assert not (tmp_path / "out").exists()


@needs_airflow
def test_dead_shards_fail_with_what_to_do(airflow, config, tmp_path):
    stub = tmp_path / "data-engine"
    stub.write_text("#!/bin/sh\necho '1 shards are dead' >&2\nexit 1\n")
    stub.chmod(0o755)
    finished = airflow("dags", "test", "once", command=stub, config=config, output=tmp_path / "out")
    assert finished.returncode == 1
    assert "1 shards are dead" in finished.stdout
    assert "data-engine replay" in finished.stdout
    assert finished.stdout.count("[DAG TEST] starting task_id=") == 1
