"""What must be equal on two machines for a task to give the same bytes: versions, code of the stages, models.

A runner on many machines sends the fingerprint of the machine that planned along with each task; a worker that would
compute something else ends the run instead of mixing its output in.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import platform
from collections.abc import Mapping
from pathlib import Path

import data_engine
from data_engine.core.errors import ConfigError
from data_engine.core.plan import Plan, Stretch
from data_engine.core.registry import lookup
from data_engine.core.schema import schema_folder
from data_engine.stages.catalog import ENTRY_POINTS, STAGES, stage_signature_parts


def fingerprint(plan: Plan, stretch: Stretch) -> dict[str, str]:
    """Returns what this machine would run a stretch with: name of the thing -> version or digest.

    Raises:
        ConfigError: A stage or a back end is not installed here.
    """
    facts = {
        "Python": ".".join(platform.python_version_tuple()[:2]),
        "version of speech-data-engine": data_engine.__version__,
        "code of speech-data-engine": engine_code(),
    }
    for group in plan.groups[stretch.first : stretch.stop]:
        for step in group.steps:
            stage = lookup("stage", step.stage, STAGES, ENTRY_POINTS)
            facts[f"code of stage '{step.stage}'"] = _digest([Path(inspect.getfile(stage))])
            _, revisions = stage_signature_parts(step.stage, step.config)
            facts |= {f"model '{role}' of stage '{step.stage}'": revision for role, revision in revisions.items()}
    return facts


def check_fingerprint(expected: Mapping[str, str], found: Mapping[str, str], where: str) -> None:
    """Refuses a machine that differs.

    Args:
        expected: Where the plan was made.
        found: Here.
        where: Name of this machine, for the sentence.

    Raises:
        ConfigError: Names the first thing that differs.
    """
    for name, value in expected.items():
        if found.get(name) != value:
            raise ConfigError(
                f"worker {where} would not give the same output: {name} is {found.get(name, 'unknown')} there and "
                f"{value} where the run was started. Install the same versions on all machines and restart the workers"
            )


@functools.cache
def engine_code() -> str:
    """Returns a digest of the engine's modules and schemas as they were when this process first asked."""
    root = Path(data_engine.__file__).parent
    return _digest([*sorted(root.rglob("*.py")), *sorted(schema_folder().glob("*.json"))])


def _digest(files: list[Path]) -> str:
    found = hashlib.sha256()
    for path in files:
        found.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()[:12]
