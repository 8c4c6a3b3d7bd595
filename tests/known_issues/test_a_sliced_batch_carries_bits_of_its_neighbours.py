"""Arrow IPC writes the buffers under a slice, so rows before and after it changed the bytes of a part.

Found by the property test of parts: 65 rows written at once and one by one had different hashes. Parts are copied
with `take` before they are written.
"""

from data_engine.core.schema import load_schema
from data_engine.io.shards import PartWriter
from data_engine.io.storage import Storage


def test_a_part_of_a_slice_has_the_bytes_of_a_part_of_the_same_rows(tmp_path):
    schema = load_schema("candidate").pick("text", "selected", "score", "dialect")
    rows = [
        {
            "candidate_id": f"c{i}", "text": "t" * (i % 7), "selected": None if i % 3 else i % 2 == 0,
            "score": None if i % 5 else i / 7, "dialect": "x" if i % 2 else None,
        }
        for i in range(30)
    ]  # fmt: skip
    storage = Storage(str(tmp_path))
    hashes = []
    for batch in (schema.batch(rows).slice(3, 20), schema.batch(rows[3:23])):
        with storage.scratch() as folder:
            writer = PartWriter(schema, folder)
            writer.write(batch)
            hashes.append(writer.commit(storage, "t", 0, {})["sha256"])
    assert hashes[0] == hashes[1]
