"""Diarization pipelines in pyannote.audio's layout: a config.yaml that names models, each brought to the local disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_engine.core.config import read_yaml
from data_engine.core.errors import ConfigError, MissingExtraError

CONFIG = "config.yaml"
PARTS = ("segmentation", "embedding", "plda")
PIPELINES = ("SpeakerDiarization", "pyannote.audio.pipelines.SpeakerDiarization",
             "pyannote.audio.pipelines.speaker_diarization.SpeakerDiarization")  # fmt: skip
_WEIGHTS = "pytorch_model.bin"
_PLDA = ("plda.npz", "xvec_transform.npz")
_OF_THE_PIPELINE = "$model/"
_HUB_FILES = [f"*{name}" for name in (CONFIG, _WEIGHTS, *_PLDA)]


@dataclass(frozen=True, slots=True)
class Part:
    """A model of a pipeline: a folder or file on this disk, or a hub id at a revision."""

    path: Path | None
    hub: str = ""
    revision: str = ""
    subfolder: str = ""

    @property
    def address(self) -> str:
        """Where it is on the hub."""
        return f"hf:{self.hub}@{self.revision}/{self.subfolder}"

    def files(self, name: str) -> list[Path]:
        """Returns the files of a local part that decide what it computes."""
        assert self.path is not None
        if self.path.is_file():
            return [self.path]
        return [self.path / file for file in (_PLDA if name == "plda" else (_WEIGHTS,))]


def read_pipeline(folder: Path) -> dict[str, Any]:
    """Returns the parsed config.yaml of a pipeline's folder.

    Raises:
        ConfigError: There is none, or it is not of a diarization.
    """
    config = read_yaml(folder / CONFIG)
    pipeline = config.get("pipeline")
    if not isinstance(pipeline, dict) or pipeline.get("name") not in PIPELINES:
        raise ConfigError(f"'{folder / CONFIG}' describes no pipeline {PIPELINES[1]}")
    return config


def parts_of(config: Mapping[str, Any], folder: Path, revisions: Mapping[str, str]) -> dict[str, Part]:
    """Returns the models that a pipeline names.

    Args:
        config: As `read_pipeline` returns it.
        folder: Where it was read; `$model/...` and relative paths start there.
        revisions: Hub id -> commit, of models that lie in repositories of their own.

    Raises:
        ConfigError: A model is nowhere, or a hub id has no revision.
    """
    named = config["pipeline"].get("params") or {}
    return {name: _part(named[name], folder, revisions) for name in PARTS if named.get(name) is not None}


def _part(value: Any, folder: Path, revisions: Mapping[str, str]) -> Part:
    said: Mapping[str, Any] = value if isinstance(value, Mapping) else {"checkpoint": str(value)}
    name, subfolder = str(said.get("checkpoint", "")), str(said.get("subfolder") or "")
    if name.startswith(_OF_THE_PIPELINE):
        inside, _, revision = name.removeprefix(_OF_THE_PIPELINE).partition("@")
        if revision:
            raise ConfigError(f"'{folder / CONFIG}': '{name}' is of another revision than the pipeline itself")
        return Part(folder / inside)
    local = folder / name / subfolder  # an absolute path stays one
    if local.exists():
        return Part(local)
    hub, _, revision = name.partition("@")
    revision = revision or str(said.get("revision") or "") or revisions.get(hub, "")
    if not revision:
        raise ConfigError(
            f"'{folder / CONFIG}' names the model '{name}', which is not in that folder. If it is a hub id, give the "
            f"option 'model_revisions' its commit or tag: {{{hub}: ...}}"
        )
    return Part(None, hub, revision, subfolder)


def localised(config: Mapping[str, Any], parts: Mapping[str, Part], offline: bool) -> dict[str, Any]:
    """Returns a config with a local path for each model, without what would load other code or look elsewhere.

    Raises:
        MissingExtraError: huggingface_hub is not installed.
        ConfigError: A model cannot be had.
    """
    params = dict(config["pipeline"].get("params") or {})
    for name, part in parts.items():
        path = part.path or snapshot(part.hub, part.revision, offline) / part.subfolder
        params[name] = {"checkpoint": str(path)}
    kept = {key: value for key, value in config.items() if key in ("version", "dependencies", "freeze", "params")}
    return {**kept, "pipeline": {"name": PIPELINES[1], "params": {**params, "legacy": False}}}


def snapshot(name: str, revision: str, offline: bool) -> Path:
    """Returns the local folder of a hub id; a gated one needs a token, which only the environment holds (HF_TOKEN).

    Raises:
        MissingExtraError: huggingface_hub is not installed.
        ConfigError: It cannot be had.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise MissingExtraError("huggingface_hub", "diarization", f"the hub id '{name}'") from error
    try:
        place: dict[str, Any] = {"revision": revision, "local_files_only": offline, "allow_patterns": _HUB_FILES}
        return Path(snapshot_download(name, **place))
    except Exception as error:  # the hub and its cache raise their own
        remedy = "set offline: false to download it; " if offline else ""
        raise ConfigError(
            f"cannot get '{name}' at '{revision}' from the hub: {error}. {remedy}"
            f"for a gated model accept its conditions there and set HF_TOKEN"
        ) from error
