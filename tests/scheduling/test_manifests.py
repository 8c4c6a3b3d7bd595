"""What schedulers are given: the Kubernetes Job, the container file, the commands of the DAG."""

import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

from data_engine import __version__
from data_engine.cli import app
from data_engine.standing import SECTIONS
from pipelines import airflow_dag
from pipelines.run import RunConfig

CHECKOUT = Path(__file__).parents[2]
CONTAINERS = CHECKOUT / "configs" / "containers"


def parsed(arguments):
    """Returns command and parameters as the command line reads them; an option it does not know is an error."""
    group = typer.main.get_command(app)
    with group.make_context("data-engine", list(arguments)) as context:
        name, command, rest = group.resolve_command(context, [*context._protected_args, *context.args])
        with command.make_context(name, rest, parent=context) as inner:
            return name, inner.params


@pytest.fixture(scope="module")
def job():
    return yaml.safe_load((CHECKOUT / "configs" / "kubernetes" / "job.yaml").read_text())


@pytest.fixture(scope="module")
def engine_container(job):
    (container,) = job["spec"]["template"]["spec"]["containers"]
    return container


def test_the_job_starts_a_command_that_the_engine_accepts(engine_container):
    name, values = parsed(engine_container["args"])
    assert name == "run"
    assert values["output"].startswith("s3://")
    assert values["workers"] == int(engine_container["resources"]["requests"]["cpu"])
    mounts = {mount["mountPath"] for mount in engine_container["volumeMounts"]}
    assert str(values["config"].parent) in mounts


def test_a_bad_configuration_fails_the_job_and_everything_else_is_tried_again(job, engine_container):
    rules = job["spec"]["podFailurePolicy"]["rules"]
    by_action = {rule["action"]: rule for rule in rules}
    assert by_action["FailJob"]["onExitCodes"] == {
        "containerName": engine_container["name"],
        "operator": "In",
        "values": [2],
    }
    assert by_action["Ignore"]["onPodConditions"][0]["type"] == "DisruptionTarget"
    assert rules.index(by_action["Ignore"]) < rules.index(by_action["Count"])
    assert 2 in by_action["Count"]["onExitCodes"]["values"] and job["spec"]["backoffLimit"] > 0
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"


def test_credentials_come_from_a_secret_and_scratch_is_a_volume(job, engine_container):
    assert all("secretRef" in source for source in engine_container["envFrom"])
    assert not any("KEY" in variable["name"] for variable in engine_container["env"])
    env = {variable["name"]: variable.get("value") for variable in engine_container["env"]}
    scratch = next(mount["name"] for mount in engine_container["volumeMounts"] if mount["mountPath"] == env["TMPDIR"])
    volumes = {volume["name"]: volume for volume in job["spec"]["template"]["spec"]["volumes"]}
    assert "emptyDir" in volumes[scratch]
    assert {mount["name"] for mount in engine_container["volumeMounts"]} == set(volumes)
    assert engine_container["image"].endswith(f":{__version__}")


@pytest.fixture(scope="module")
def dockerfile():
    return (CONTAINERS / "Dockerfile").read_text()


def test_every_path_that_is_copied_exists(dockerfile):
    copied = [path for line in re.findall(r"^COPY (?!--from)(.+)$", dockerfile, re.M) for path in line.split()[:-1]]
    assert {"pyproject.toml", "data_engine", "constraints.txt"} <= set(copied)
    assert [path for path in copied if not (CHECKOUT / path).exists()] == []


def test_everything_the_wheel_is_made_of_is_copied(dockerfile):
    text = (CHECKOUT / "pyproject.toml").read_text()
    folders = ["data_engine", "pipelines", "schemas", "configs", "README.md", "LICENSE"]
    assert all(f'"{folder}' in text or f"\n{folder} = " in text for folder in folders[:4])
    assert all(re.search(rf"^COPY .*\b{re.escape(folder)}\b", dockerfile, re.M) for folder in folders)


def test_libraries_are_pinned_and_the_process_is_not_root(dockerfile):
    assert "--constraint constraints.txt" in dockerfile
    users = re.findall(r"^USER (\S+)$", dockerfile, re.M)
    assert users and users[-1] not in ("root", "0")


def test_beam_workers_have_the_boot_program_of_the_pinned_beam(dockerfile):
    pinned = re.search(r"^apache-beam==(\S+)$", (CHECKOUT / "constraints.txt").read_text(), re.M)[1]
    python = re.search(r"^ARG PYTHON=(\S+)$", dockerfile, re.M)[1]
    assert f"COPY --from=apache/beam_python{python}_sdk:{pinned} /opt/apache/beam /opt/apache/beam" in dockerfile


def test_commands_of_the_dag_are_ones_the_engine_accepts():
    name, values = parsed(shlex.split(airflow_dag.RUN)[1:])
    assert (name, values["only"], values["output"], str(values["config"])) == ("run", "$SECTION", "$OUTPUT", "$CONFIG")
    name, values = parsed(airflow_dag.command_words("data-engine", "curate", "s3://bucket/out")[1:])
    assert (name, values["only"], values["folder"]) == ("status", "curate", "s3://bucket/out")


def test_the_dag_knows_the_sections_of_a_config():
    assert tuple(SECTIONS) == airflow_dag.SECTIONS
    assert set(SECTIONS) <= set(RunConfig.model_fields)
