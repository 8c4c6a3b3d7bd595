"""The files of a codec: their hash, and the codebook of linguistic codes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_engine.core.errors import ConfigError
from data_engine.models.features import Floats
from data_engine.tokens.vocabulary import LINGUISTIC_CODES

_BLOCK = 1 << 20


def files_hash(files: Sequence[Path], *settings: str) -> str:
    """Returns SHA-256 over the names and contents of files, read without loading any model.

    Args:
        files: In a fixed order.
        settings: Whatever else decides the codes.

    Raises:
        ConfigError: A file is missing.
    """
    total = hashlib.sha256()
    for file in files:
        total.update(f"{file.name} {_file_hash(file)}\n".encode())
    for setting in settings:
        total.update(f"{setting}\n".encode())
    return total.hexdigest()


def _file_hash(file: Path) -> str:
    if not file.is_file():
        raise ConfigError(f"there is no file '{file}'; check the options of the back end")
    found = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(_BLOCK):
            found.update(block)
    return found.hexdigest()


def read_codebook(file: Path) -> Floats:
    """Returns the centroids of `linguistic_tokenizer.npy`, float32 [codes, states].

    Raises:
        ConfigError: The file is missing, is no plain array or has another shape.
    """
    try:
        centroids = np.load(file, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the linguistic codebook '{file}': {error}") from error
    if centroids.ndim != 2 or len(centroids) > LINGUISTIC_CODES:
        raise ConfigError(f"'{file}' has shape {centroids.shape}; a codebook has at most {LINGUISTIC_CODES} rows")
    return np.asarray(centroids, np.float32)
