"""Columns were picked by their position in today's schema, so parts from before a column was added could not be read.

A nullable column is a compatible change of a schema: rows of older parts have null in it, wherever it stands.
"""

import pyarrow as pa
import pytest

from data_engine.io.columns import read_columns
from data_engine.io.storage import Storage
from data_engine.loader import ShardDataset
from tests.rows import segment, write_output


@pytest.fixture
def output(tmp_path):
    address = write_output(tmp_path, {"segments": [[segment(0), segment(1)]]})
    (path,) = tmp_path.glob("segments/*.arrow")
    rows = pa.ipc.open_file(path).read_all()
    older = rows.drop_columns(["duplicate_of", "phones"])
    with pa.ipc.new_file(path, older.schema) as file:
        file.write_table(older)
    return address


@pytest.mark.parametrize("columns", [["segment_id", "duplicate_of"], ["segment_id", "phones", "dnsmos_ovr"]])
def test_rows_from_before_a_column_have_null_in_it(output, columns):
    expected = dict.fromkeys(columns[1:]) | {"segment_id": segment(1)["segment_id"]}
    assert list(ShardDataset(output, "segments", columns=columns))[1] == expected


def test_columns_are_read_by_name(output):
    (path,) = (name for name in Storage(output).list("segments") if name.endswith(".arrow"))
    rows = read_columns(Storage(output), f"segments/{path}", "segments", ["duplicate_of", "segment_id"])
    assert rows.to_pydict() == {"duplicate_of": [None, None], "segment_id": [segment(n)["segment_id"] for n in (0, 1)]}
