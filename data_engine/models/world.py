"""Loads the WORLD vocoder from the wheel `pyworld`.

The wheel's `__init__` needs pkg_resources, which setuptools dropped in version 81, only to tell its version; so
the compiled module inside it is loaded by itself.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from importlib.machinery import PathFinder
from typing import Any

from data_engine.core.errors import MissingExtraError


@cache
def load_world(purpose: str) -> Any:
    """Returns pyworld's compiled module: dio, harvest, stonemask, cheaptrick, d4c, synthesize.

    Args:
        purpose: What needs it, for the error sentence.

    Raises:
        MissingExtraError: pyworld is not installed.
    """
    package = importlib.util.find_spec("pyworld")
    folders = list(package.submodule_search_locations or ()) if package else []
    spec = PathFinder.find_spec("pyworld", folders)
    if spec is None or spec.loader is None:
        raise MissingExtraError("pyworld", "embedded", purpose)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
