"""Configuration: YAML -> pydantic, frozen, unknown keys refused; errors name the file, the key, the remedy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from data_engine.core.errors import ConfigError


class Settings(BaseModel):
    """Base of every configuration model."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class BackendChoice(Settings):
    """Which back end plays a role; in YAML a name, or {name: ..., options: {...}}."""

    name: str
    options: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


Model = TypeVar("Model", bound=BaseModel)


def speed_knob(default: Any, **constraints: Any) -> Any:
    """Declares a field that changes speed but not output: it is left out of signatures."""
    return Field(default, json_schema_extra={"speed_knob": True}, **constraints)


def role_of(field: Any) -> str | None:
    """Returns the role a BackendChoice field declares with `role(...)`."""
    extra = field.json_schema_extra
    return str(extra["role"]) if isinstance(extra, dict) and "role" in extra else None


def role(name: str, default: str | None) -> Any:
    """Declares a field that chooses the back end of a role, with its embedded default; None: nobody unless chosen."""
    return Field(BackendChoice(name=default) if default else None, json_schema_extra={"role": name})


def choices(config: BaseModel) -> dict[str, BackendChoice]:
    """Returns the chosen back end of each role of a stage's configuration, less the roles nobody plays."""
    chosen = {r: getattr(config, name) for name, field in type(config).model_fields.items() if (r := role_of(field))}
    return {name: choice for name, choice in chosen.items() if choice is not None}


def signature_config(config: BaseModel) -> dict[str, Any]:
    """Returns the configuration less speed knobs, nested ones too, in JSON types."""
    shown: dict[str, Any] = config.model_dump(mode="json")
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(field.json_schema_extra, dict) and "speed_knob" in field.json_schema_extra:
            del shown[name]
        elif isinstance(value, BaseModel):
            shown[name] = signature_config(value)
    return shown


def read_yaml(path: Path) -> dict[str, Any]:
    """Returns the mapping in a YAML file.

    Raises:
        ConfigError: The file is missing, not YAML, or not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read the config '{path}': {error.strerror}. Check the path.") from error
    try:
        loaded = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"'{path}' is not YAML: {str(error).replace(chr(10), ' ')}") from error
    if not isinstance(loaded, dict):
        raise ConfigError(f"'{path}' must hold a mapping of keys, not {type(loaded).__name__}")
    return loaded


def override(config: dict[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Returns `config` with `a.b=value` assignments applied; values are read as YAML.

    Raises:
        ConfigError: An assignment has no '=' or goes through something that is not a mapping.
    """
    result: dict[str, Any] = _copy(config)
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path:
            raise ConfigError(f"--set {assignment}: write it as key.subkey=value")
        target = result
        *parents, last = path.split(".")
        for key in parents:
            if target.get(key) is None:
                target[key] = {}
            target = target[key]
            if not isinstance(target, dict):
                raise ConfigError(f"--set {assignment}: '{key}' is not a mapping")
        target[last] = yaml.safe_load(text)
    return result


def _copy(value: Any) -> Any:
    return {k: _copy(v) for k, v in value.items()} if isinstance(value, dict) else value


def validate(model: type[Model], values: Mapping[str, Any], where: str) -> Model:
    """Returns the validated, frozen configuration.

    Raises:
        ConfigError: Naming the file, each wrong key and what was expected.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError("; ".join(_sentence(where, e, model) for e in error.errors())) from None


def _sentence(where: str, error: Any, model: type[BaseModel]) -> str:
    key = ".".join(str(part) for part in error["loc"]) or "(top level)"
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key '{key}'; known keys there: {', '.join(_known(model, error['loc']))}"
    if error["type"] == "missing":
        return f"{where}: key '{key}' is missing"
    return f"{where}: key '{key}': {error['msg']}, got {error['input']!r}"


def _known(model: Any, location: Sequence[Any]) -> list[str]:
    """Returns the keys a model knows at the parent of `location`, following nested models."""
    for part in location[:-1]:
        field = getattr(model, "model_fields", {}).get(part)
        inner = [field.annotation, *getattr(field.annotation, "__args__", ())] if field else []
        model = next((a for a in inner if isinstance(a, type) and issubclass(a, BaseModel)), model)
    return sorted(getattr(model, "model_fields", {}))
