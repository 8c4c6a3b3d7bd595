"""Imports point down only: cli -> pipelines -> runners -> stages -> backends/tokens/io -> core."""

import ast
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
LEVELS = {
    "data_engine.core": 0,
    "data_engine.io": 1, "data_engine.tokens": 1, "data_engine.models": 1,
    "data_engine.backends": 2,
    "data_engine.stages": 3,
    "data_engine.runners": 4,
    "data_engine.loader": 4, "data_engine.report": 4, "data_engine.export": 4, "data_engine.validation": 4,
    "data_engine.telemetry": 4, "data_engine.standing": 4,
    "data_engine.tables": 4, "data_engine.progress": 4, "data_engine.doctor": 4, "data_engine.training": 4,
    "data_engine.quantiles": 4,
    "pipelines": 5,
    "data_engine.cli": 6, "data_engine.console": 6,
}  # fmt: skip
COMMANDS = {
    "data_engine.models.codebook_corpus", "data_engine.models.kmeans_codebooks", "data_engine.models.text_bpe",
}  # fmt: skip
"""Training commands are programs of their own: they may use back ends to make their corpus and to check the result."""


def level(module):
    """The level of the longest known prefix; data_engine itself holds nothing but the version."""
    prefixes = [p for p in LEVELS if module == p or module.startswith(p + ".")]
    return LEVELS[max(prefixes, key=len)] if prefixes else None


def modules():
    for folder in ("data_engine", "pipelines"):
        for path in sorted((CHECKOUT / folder).rglob("*.py")):
            yield ".".join(path.relative_to(CHECKOUT).with_suffix("").parts).removesuffix(".__init__"), path


def imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize(("module", "path"), modules(), ids=lambda value: value if isinstance(value, str) else "")
def test_a_module_imports_its_own_level_or_below(module, path):
    own = level(module)
    if own is None or module in COMMANDS:
        return
    upward = [name for name in imported(path) if (above := level(name)) is not None and above > own]
    assert upward == []


@pytest.mark.parametrize(("module", "path"), modules(), ids=lambda value: value if isinstance(value, str) else "")
def test_a_module_stays_small_and_its_functions_too(module, path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            described = node.body[0].end_lineno if ast.get_docstring(node) else node.lineno
            assert node.end_lineno - described <= 40, f"{node.name} is too long"
