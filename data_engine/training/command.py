"""`data-engine train`: one command for every model this project trains."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

from data_engine.core.config import override, read_yaml, validate
from data_engine.core.errors import ConfigError, MissingExtraError

MODELS: dict[str, tuple[str, str]] = {
    "linguistic": ("data_engine.training.linguistic_release", "LinguisticSettings"),
    "semantic": ("data_engine.training.semantic", "SemanticSettings"),
    "decoder": ("data_engine.training.decoder", "DecoderSettings"),
    "vocoder": ("data_engine.training.vocoder", "VocoderSettings"),
    "neufa": ("data_engine.training.neufa", "NeufaSettings"),
    "speaker-lm": ("data_engine.training.speaker_lm", "SpeakerSettings"),
    "emotion": ("data_engine.training.emotion", "EmotionSettings"),
}
"""Model -> its module with `train`, and the name of its settings."""


def train_model(model: str, config: Path, sets: Sequence[str]) -> None:
    """Trains a model from scratch, or goes on from the checkpoint in its output folder.

    Args:
        model: A name of `MODELS`.
        config: YAML file.
        sets: Overrides `a.b=value`.

    Raises:
        ConfigError: No such model, or the configuration is wrong.
        MissingExtraError: A library of the extra `train` is not installed.
    """
    if model not in MODELS:
        raise ConfigError(f"there is no model '{model}' to train; known: {', '.join(MODELS)}")
    name, settings = MODELS[model]
    values = override(read_yaml(config), list(sets))
    try:
        module = importlib.import_module(name)
        module.train(validate(getattr(module, settings), values, str(config)))
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("data_engine"):
            raise
        raise MissingExtraError(error.name or "torch", "train", f"training the model '{model}'") from error
