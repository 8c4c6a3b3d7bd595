"""Finds stages and back ends by name: built in, or from another distribution's entry points."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from data_engine.core.errors import ConfigError


def lookup(kind: str, name: str, builtin: Mapping[str, str], group: str) -> Any:
    """Returns the object registered as `name`.

    Args:
        kind: What it is, for the error sentence.
        name: Name in the config.
        builtin: Name -> "module:object".
        group: Entry-point group of third parties.

    Raises:
        ConfigError: Nobody registered the name.
    """
    if name in builtin:
        module, _, attribute = builtin[name].partition(":")
        return getattr(importlib.import_module(module), attribute)
    foreign = {point.name: point for point in entry_points(group=group)}
    if name in foreign:
        return foreign[name].load()
    known = ", ".join(sorted({*builtin, *foreign}))
    raise ConfigError(f"there is no {kind} '{name}'; known: {known}")
