"""Finds configuration files: beside the config that names them, else among those that ship with the engine."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import data_engine
from data_engine.core.errors import ConfigError


def shipped_configs() -> Path:
    """Returns the folder of shipped configs: inside the wheel, or of the checkout."""
    inside = Path(data_engine.__file__).parent / "configs"
    return inside if inside.is_dir() else Path(data_engine.__file__).parents[1] / "configs"


def find_config(name: str, base: Path) -> Path:
    """Returns the path of the configuration file `name`.

    Raises:
        ConfigError: It is in neither place.
    """
    for folder in (base, shipped_configs()):
        if (folder / name).is_file():
            return folder / name
    raise ConfigError(f"there is no file '{name}' in '{base}' or '{shipped_configs()}'")


def output_uri(output: str) -> str:
    """Returns the address of an output folder; a local path made absolute, so that every worker means the same."""
    return output if "://" in output else str(Path(output).absolute())


def resolve_package(path: str) -> str:
    """Returns the path of a file inside an installed wheel for `package:NAME/PATH`, other paths unchanged.

    The package is found without importing it.

    Raises:
        ConfigError: The package is not installed or has no such file.
    """
    if not path.startswith("package:"):
        return path
    name, _, inside = path.removeprefix("package:").partition("/")
    spec = find_spec(name)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(folder) / inside).is_file():
            return str(Path(folder) / inside)
    raise ConfigError(f"there is no file '{inside}' in the package '{name}'; install it: make setup")
