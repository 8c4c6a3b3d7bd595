"""The voices of an output folder by id: what a voice is like, for stages that compare with it or quote it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from data_engine.io.shards import read_table

VoiceLibrary = Mapping[str, Mapping[str, Any]]
LoadVoices = Callable[[str, Sequence[str]], VoiceLibrary]


def read_voices(root: str, columns: Sequence[str]) -> VoiceLibrary:
    """Returns voice id -> the columns of its `voice.v1` row.

    Args:
        root: Output folder with the table `voices`; any fsspec URI.
        columns: Columns to read, so that a large library need not bring its audio.
    """
    table = read_table(root, "voices", ["voice_id", *(name for name in columns if name != "voice_id")])
    return {row["voice_id"]: row for row in table.to_pylist()}
