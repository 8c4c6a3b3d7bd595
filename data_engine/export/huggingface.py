"""Export to a folder that Hugging Face `datasets` loads: one set per table, audio columns as its `Audio` feature.

Only pyarrow is needed to write it.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from data_engine.core.errors import ConfigError
from data_engine.core.schema import Schema, load_schema
from data_engine.export.card import Facts, dataset_card
from data_engine.export.catalog import ExportReport
from data_engine.export.split_files import SplitFiles, by_split, scratch, with_features
from data_engine.io.decisions import TABLE
from data_engine.io.mixtures import Mixture, read_mixture
from data_engine.io.outputs import listed_parts
from data_engine.io.shards import TABLE_SCHEMAS, read_batches
from data_engine.io.storage import Storage

TABLES = ("segments", "aqaa", "voices", "preferences")
_ABOUT = """\
Tables of a speech data engine run. Load one with

```python
from datasets import load_dataset
segments = load_dataset("THIS_FOLDER", "segments", split="train")
```

`audio` columns are 16-bit FLAC under the `Audio` feature. Text pairs and audio pairs share the set `preferences`: only
rows with `masked` true may enter masked DPO."""


def export_huggingface(
    source: Storage,
    target: Storage,
    split: str | None,
    tables: tuple[str, ...] = TABLES,
    dropped: bool = False,
    mixture: str | None = None,
    decisions: str | None = None,
) -> ExportReport:
    """Writes the tables of an output folder as one `datasets` folder.

    Args:
        source: Output folder.
        target: Folder to write.
        split: Only this split; none: all. Voices have no split and count as "train".
        tables: Tables to write, as far as the folder has them.
        dropped: Write segments, too, that the filter policy dropped.
        mixture: Write the rows of this mixture, and nothing else.
        decisions: Filter result that says which segments are dropped; none: the one in force.

    Raises:
        ConfigError: The folder has none of the tables, or no such mixture or filter result.
    """
    report, facts = ExportReport("huggingface", target.uri), Facts()
    chosen = read_mixture(source, mixture) if mixture else None
    tables = (chosen.table,) if chosen else tables
    for table in tables:
        _write_table(source, target, table, split, _Choice(dropped, chosen, decisions), report, facts)
    if not report.files:
        raise ConfigError(f"'{source.uri}' has no rows of {', '.join(tables)}" + (f" in {split}" if split else ""))
    folders = {table: f"data/{table}" for table in tables if any(key.startswith(f"{table}/") for key in report.rows)}
    card = dataset_card("Speech data engine tables", folders, report.rows, facts, [_ABOUT])
    target.write("README.md", card.encode())
    report.files.append("README.md")
    return report


def _write_table(
    source: Storage, target: Storage, table: str, split: str | None, choice: _Choice, report: ExportReport, facts: Facts
) -> None:
    schema = load_schema(TABLE_SCHEMAS[table])
    with scratch(target) as local:
        files = SplitFiles(target, f"data/{table}", local)
        for part in listed_parts(source, table, choice.decisions if table == TABLE else None):
            for batch in read_batches(source, part):
                kept = choice.of(batch, schema)
                for name, rows in by_split(kept, split):
                    facts.add(rows)
                    files.write(name, with_features(rows, schema))
                if left_out := batch.num_rows - kept.num_rows:
                    report.left_out[choice.reason] = report.left_out.get(choice.reason, 0) + left_out
        report.files += files.close()
    report.rows |= {f"{table}/{name}": count for name, count in files.rows.items()}


@dataclass(frozen=True, slots=True)
class _Choice:
    """Which rows are written: those of a mixture, or those that the filter policy did not drop."""

    dropped: bool
    mixture: Mixture | None
    decisions: str | None

    @property
    def reason(self) -> str:
        """Why the others are not."""
        return "not in the mixture" if self.mixture else "dropped"

    def of(self, batch: pa.RecordBatch, schema: Schema) -> pa.RecordBatch:
        """Returns the rows that are written."""
        if self.mixture:
            return batch.filter(pa.array(self.mixture.contains(batch.column(schema.id))))
        if self.dropped or "decision" not in batch.schema.names:
            return batch
        return batch.filter(pc.fill_null(pc.not_equal(batch.column("decision"), "drop"), True))
