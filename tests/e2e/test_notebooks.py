"""The notebooks run from top to bottom on the demo's output."""

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import CHECKOUT

pytestmark = [pytest.mark.xdist_group("demo"), pytest.mark.timeout(1500)]
NOTEBOOKS = sorted((CHECKOUT / "notebooks").glob("*.ipynb"))


def test_there_are_notebooks():
    assert len(NOTEBOOKS) >= 2


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, demo_run, monkeypatch):
    monkeypatch.setenv("DATA_ENGINE_OUTPUT", str(demo_run))
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    names: dict[str, object] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{path.name}:{cell['id']}", "exec"), names)
