"""The dataset card of an export: what `datasets` needs to load it, and what a reader has to know before using it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import yaml

from data_engine import __version__
from data_engine.export.split_files import SPLITS

_HUB_LICENCES = {"cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "apache-2.0", "mit"}


@dataclass(slots=True)
class Facts:
    """What a card says about the rows; filled while they are written.

    Attributes:
        languages: Languages seen.
        licences: Licences of the source audio.
        tokenizers: Audio tokenizer hashes.
        text_tokenizers: Text tokenizer hashes.
        synthetic: Rows spoken by a machine.
        rows: Rows with that mark.
    """

    languages: set[str] = field(default_factory=set)
    licences: set[str] = field(default_factory=set)
    tokenizers: set[str] = field(default_factory=set)
    text_tokenizers: set[str] = field(default_factory=set)
    synthetic: int = 0
    rows: int = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Takes note of rows."""
        named = {
            "language": self.languages, "licence": self.licences, "tokenizer_hash": self.tokenizers,
            "text_tokenizer_hash": self.text_tokenizers,
        }  # fmt: skip
        for column, values in named.items():
            if column in batch.schema.names:
                values.update(v for v in pc.unique(batch.column(column)).to_pylist() if v)
        if "is_synthetic" in batch.schema.names:
            self.rows += batch.num_rows
            self.synthetic += pc.sum(batch.column("is_synthetic")).as_py() or 0


def dataset_card(
    title: str, folders: Mapping[str, str], rows: Mapping[str, int], facts: Facts, paragraphs: Sequence[str]
) -> str:
    """Returns README.md with the YAML head that `datasets.load_dataset(folder, set)` reads.

    Args:
        title: Heading.
        folders: Set -> its folder; the first is what `load_dataset(folder)` loads.
        rows: Rows by "set/split".
        facts: What was noted about the rows.
        paragraphs: What this export is, in Markdown.
    """
    head: dict[str, Any] = {
        "pretty_name": title,
        "license": _hub_licence(facts.licences),
        "language": sorted(facts.languages),
        "tags": ["speech", "audio-tokens", *(["synthetic"] if facts.synthetic else [])],
        "configs": [_config(name, folder, rows, number == 0) for number, (name, folder) in enumerate(folders.items())],
    }
    counts = [f"| {key.replace('/', ' | ')} | {count} |" for key, count in rows.items()]
    table = ["| set | split | rows |", "|---|---|---|", *counts]
    parts = [f"# {title}", *paragraphs, "\n".join(table), "\n".join(_facts(facts))]
    written = yaml.safe_dump(head, sort_keys=False, allow_unicode=True)
    return f"---\n{written}---\n\n" + "\n\n".join(parts) + "\n"


def _config(name: str, folder: str, rows: Mapping[str, int], default: bool) -> dict[str, Any]:
    splits = [split for split in SPLITS if rows.get(f"{name}/{split}")]
    files = [{"split": split, "path": f"{folder}/{split}-*.parquet"} for split in splits]
    return {"config_name": name, "data_files": files, **({"default": True} if default else {})}


def _hub_licence(licences: Iterable[str]) -> str:
    names = {name.lower() for name in licences}
    return names.pop() if len(names) == 1 and names <= _HUB_LICENCES else "other"


def _facts(facts: Facts) -> list[str]:
    spoken = "unknown"
    if facts.rows:
        spoken = f"{facts.synthetic} of {facts.rows} rows hold speech that a machine made (`is_synthetic`)"
    return [
        f"- Synthetic speech: {spoken}. Cloned voices belong to speakers whose consent the engine has on record; say "
        "that it is synthetic wherever it is played.",
        f"- Licences of the source audio: {_listed(facts.licences)}.",
        f"- Audio tokenizer: {_listed(facts.tokenizers)}. Text tokenizer: {_listed(facts.text_tokenizers)}. Ids mean "
        "nothing under any other tokenizer.",
        f"- Made with speech-data-engine {__version__}.",
    ]


def _listed(values: Iterable[str]) -> str:
    return ", ".join(f"`{value}`" for value in sorted(values)) or "none recorded"
