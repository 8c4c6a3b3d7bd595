"""An Airflow 3 DAG: one task per section of a config, and between them sensors that look at the commit markers.

Put this file (or a link to it) into Airflow's folder of DAGs. It needs nothing of the engine there: the tasks start the
`data-engine` command of the engine's own environment, which three Airflow Variables describe (or the environment
variables AIRFLOW_VAR_..., in capitals):

    speech_data_engine_command   how to start the engine, e.g. /opt/engine/bin/data-engine; default: data-engine
    speech_data_engine_config    the config, a path on the worker; the parameter `config` of a DAG run overrides it
    speech_data_engine_output    its output folder, path or URI; the parameter `output` of a DAG run overrides it

For a schedule, another set of sections or several DAGs write a file of three lines beside it:

    from airflow_dag import build_dag
    nightly = build_dag("calls_nightly", ("curate",), schedule="0 2 * * *")
"""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

SECTIONS = ("curate", "synthesize", "prefer")
RUN = '$COMMAND run --output "$OUTPUT" --only "$SECTION" -- "$CONFIG"'
"""COMMAND is split into words, so it may be `ssh host data-engine`; what a DAG run may set is never evaluated."""
BAD_CONFIGURATION = 2
ADVICE = {
    1: "Some shards are dead, or the output cannot be written: the log above says why. Mend the cause and clear this "
    "task, or use `data-engine replay` for what was rejected; committed shards are kept.",
    BAD_CONFIGURATION: "The configuration is wrong: the log above names the key. Trying again would not help.",
    130: "The run was stopped. Clear this task to go on; committed shards are kept.",
}
"""Exit code of `data-engine run` -> what to do."""


class DeadShardsError(RuntimeError):
    """Shards will not come without somebody's help, so waiting for them is in vain."""


def command_words(command: str, section: str, output: str) -> list[str]:
    """Returns the command that prints the state of a section of a run."""
    return [*shlex.split(command), "status", "--only", section, "--json", "--", output]


def is_committed(exit_code: int, printed: str) -> bool:
    """Returns whether every shard is committed, from the exit code and output of `data-engine status --json`.

    Raises:
        DeadShardsError: Some shards are dead, or the folder holds no run.
    """
    if exit_code == 0:
        return True
    if exit_code != 1:
        raise DeadShardsError(f"`data-engine status` ended with exit code {exit_code}; see its message above")
    pipelines: Mapping[str, Any] = json.loads(printed)
    reports = [(name, report) for name, state in pipelines.items() for report in state["dead"]]
    dead = [f"{name} shard {report['shard']}: {report['reason']}" for name, report in reports]
    if dead:
        raise DeadShardsError(f"{len(dead)} shards are dead: {'; '.join(dead[:3])}. {ADVICE[1]}")
    return False


def markers_are_there(command: str, section: str, output: str) -> bool:
    """Looks at the commit markers of a section once; what a sensor of the DAG calls."""
    from airflow.sdk.exceptions import AirflowFailException

    words = command_words(command, section, output)
    finished = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603
    try:
        return is_committed(finished.returncode, finished.stdout)
    except DeadShardsError as error:
        raise AirflowFailException(str(error)) from error


def build_dag(dag_id: str, sections: Sequence[str] = SECTIONS, schedule: Any = None, retries: int = 2) -> Any:
    """Returns a DAG: section, its sensor, next section, ...

    Args:
        dag_id: Name of the DAG.
        sections: Sections of the config, in order.
        schedule: Cron line, preset or asset; none: by hand or through the API.
        retries: How often a task that failed is tried again, first after five minutes, then later and later. Not when
            its configuration is wrong.
    """
    from datetime import datetime, timedelta, timezone

    from airflow.sdk import DAG, Param

    defaults = {"retries": retries, "retry_delay": timedelta(minutes=5), "retry_exponential_backoff": True}
    params = {
        name: Param("", type="string", description=f"empty: the Variable speech_data_engine_{name}")
        for name in ("config", "output")
    }
    start = datetime(2026, 1, 1, tzinfo=timezone.utc)  # noqa: UP017  (Airflow's Python may be 3.10)
    with DAG(
        dag_id, schedule=schedule, start_date=start, catchup=False, max_active_runs=1, params=params,
        default_args=defaults, tags=["speech-data-engine"], doc_md=__doc__,
        auto_register=False,  # a file that imports this one owns its own DAG only
    ) as dag:  # fmt: skip
        before = None
        for section in sections:
            task, sensor = _task(section), _sensor(section)
            if before is not None:
                before >> task
            task >> sensor
            before = sensor
    return dag


COMMAND = "{{ var.value.get('speech_data_engine_command', 'data-engine') }}"
CONFIG = "{{ params.config or var.value.speech_data_engine_config }}"
OUTPUT = "{{ params.output or var.value.speech_data_engine_output }}"


def _task(section: str) -> Any:
    """Returns the task that runs a section; exit code 2 fails it at once, whatever its retries."""
    from airflow.providers.standard.operators.bash import BashOperator
    from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

    class EngineOperator(BashOperator):  # type: ignore[misc]  # Airflow's own way to give an operator another end
        """A BashOperator that knows the exit codes of the engine."""

        def execute(self, context: Any) -> Any:
            try:
                return super().execute(context)
            except AirflowSkipException as error:
                raise AirflowFailException(ADVICE[BAD_CONFIGURATION]) from error
            except AirflowException as error:
                codes = [code for code in ADVICE if str(error).endswith(f" {code}.")]
                raise AirflowException(f"{error} {ADVICE[codes[0]] if codes else ''}") from error

    env = {"COMMAND": COMMAND, "CONFIG": CONFIG, "OUTPUT": OUTPUT, "SECTION": section}
    return EngineOperator(
        task_id=section, bash_command=RUN, env=env, append_env=True, do_xcom_push=False,
        skip_on_exit_code=BAD_CONFIGURATION,
    )  # fmt: skip


def _sensor(section: str) -> Any:
    """Returns the sensor that waits for the markers without holding a slot of a worker."""
    from airflow.providers.standard.sensors.python import PythonSensor

    return PythonSensor(
        task_id=f"{section}_committed",
        python_callable=markers_are_there,
        op_args=[COMMAND, section, OUTPUT],
        mode="reschedule",
        poke_interval=60,
        timeout=24 * 3600,
    )


if find_spec("airflow") is not None:
    dag = build_dag("speech_data_engine")
