"""Export to a folder that Hugging Face `datasets` loads: one set per table, audio columns as its `Audio` feature.

Only pyarrow is needed to write it.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from data_engine.core.errors import ConfigError
from data_engine.core.schema import load_schema
from data_engine.export.card import Facts, dataset_card
from data_engine.export.catalog import ExportReport
from data_engine.export.split_files import SplitFiles, by_split, scratch, with_features
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
    source: Storage, target: Storage, split: str | None, tables: tuple[str, ...] = TABLES, dropped: bool = False
) -> ExportReport:
    """Writes the tables of an output folder as one `datasets` folder.

    Args:
        source: Output folder.
        target: Folder to write.
        split: Only this split; none: all. Voices have no split and count as "train".
        tables: Tables to write, as far as the folder has them.
        dropped: Write segments, too, that the filter policy dropped.

    Raises:
        ConfigError: The folder has none of the tables.
    """
    report, facts = ExportReport("huggingface", target.uri), Facts()
    for table in tables:
        _write_table(source, target, table, split, dropped, report, facts)
    if not report.files:
        raise ConfigError(f"'{source.uri}' has no rows of {', '.join(tables)}" + (f" in {split}" if split else ""))
    folders = {table: f"data/{table}" for table in tables if any(key.startswith(f"{table}/") for key in report.rows)}
    card = dataset_card("Speech data engine tables", folders, report.rows, facts, [_ABOUT])
    target.write("README.md", card.encode())
    report.files.append("README.md")
    return report


def _write_table(
    source: Storage, target: Storage, table: str, split: str | None, dropped: bool, report: ExportReport, facts: Facts
) -> None:
    schema = load_schema(TABLE_SCHEMAS[table])
    with scratch(target) as local:
        files = SplitFiles(target, f"data/{table}", local)
        for part in listed_parts(source, table):
            for batch in read_batches(source, part):
                kept = batch if dropped else _kept(batch)
                for name, rows in by_split(kept, split):
                    facts.add(rows)
                    files.write(name, with_features(rows, schema))
                if left_out := batch.num_rows - kept.num_rows:
                    report.left_out["dropped"] = report.left_out.get("dropped", 0) + left_out
        report.files += files.close()
    report.rows |= {f"{table}/{name}": count for name, count in files.rows.items()}


def _kept(batch: pa.RecordBatch) -> pa.RecordBatch:
    if "decision" not in batch.schema.names:
        return batch
    return batch.filter(pc.fill_null(pc.not_equal(batch.column("decision"), "drop"), True))
