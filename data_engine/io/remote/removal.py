"""Removes files and folders of remote stores, and makes sure that they are gone."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from data_engine.core.errors import StorageError
from data_engine.io.remote.filesystems import Remote

_KEYS_AT_ONCE = 1000
_ROUNDS = 4


def remove_tree(remote: Remote, path: str) -> None:
    """Removes a file or folder if it is there.

    Raises:
        StorageError: It is still there after several attempts: bulk removals may leave some and not say so.
        TransientStorageError: The store kept failing.
    """
    for _ in range(_ROUNDS):
        try:
            remote.ask(path, lambda fs: fs.info(path))
        except (FileNotFoundError, NotADirectoryError):
            return
        with suppress(FileNotFoundError):  # somebody else removed some of it: the next look tells
            if remote.is_object_store:
                _remove_objects(remote, path)
            else:
                remote.ask(path, lambda fs: _remove_folder(fs, path))
    raise StorageError(f"'{path}' is still there after {_ROUNDS} removals; remove it by hand")


def _remove_objects(remote: Remote, path: str) -> None:
    # an object that stands for the folder itself, as consoles make it, is found by nobody
    found = sorted(remote.ask(path, lambda fs: fs.find(path))) or [f"{path}/"]
    for start in range(0, len(found), _KEYS_AT_ONCE):
        some = found[start : start + _KEYS_AT_ONCE]
        remote.ask(path, partial(_remove_some, paths=some))


def _remove_some(fs: Any, paths: Sequence[str]) -> None:
    if any(glob.has_magic(path) or path.endswith("/") for path in paths):  # rm takes no name literally
        for path in paths:
            fs.rm_file(path)
    else:
        fs.rm(list(paths))


def _remove_folder(fs: Any, path: str) -> None:
    found = fs.find(path, withdirs=True, detail=True)
    for inner in sorted(found, reverse=True):  # what is in a folder goes before it
        fs.rmdir(inner) if found[inner]["type"] == "directory" else fs.rm_file(inner)
