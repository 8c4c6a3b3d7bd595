"""Schemas are data: every file is well formed, and a batch is checked against it once."""

import json

import pyarrow as pa
import pytest

from data_engine.core.errors import ContractError
from data_engine.core.schema import known_schemas, load_schema, parse_type, schema_folder


@pytest.mark.parametrize("schema", known_schemas(), ids=str)
def test_every_schema_says_what_each_column_means(schema):
    document = json.loads((schema_folder() / f"{schema}.json").read_text(encoding="utf-8"))
    assert list(document) == ["name", "version", "description", "id", "parent", "fields"]
    assert len(set(schema.names)) == len(schema.names)
    assert schema.id in schema.names
    assert schema.parent is None or schema.parent in schema.names
    assert all(len(field.description) > 3 for field in schema.fields)
    assert not next(f for f in schema.fields if f.name == schema.id).nullable
    arrow = schema.arrow()
    assert arrow.metadata[b"schema"].decode() == schema.name
    assert set(json.loads(arrow.metadata[b"huggingface"])["info"]["features"]) == set(schema.names)


def test_types_nest():
    kind = parse_type("list<struct<a: int32, b: list<struct<c: string, d: float32>>>>")
    inner = pa.list_(pa.struct([("c", pa.string()), ("d", pa.float32())]))
    assert kind == pa.list_(pa.struct([("a", pa.int32()), ("b", inner)]))


@pytest.mark.parametrize("text", ["integer", "list<>", "struct<a: thing>", ""])
def test_an_unknown_type_is_named(text):
    with pytest.raises(ContractError):
        parse_type(text)


def test_an_unknown_schema_lists_the_known_ones():
    with pytest.raises(ContractError, match=r"no schema 'segments\.v1'; known schemas: .*segment\.v1"):
        load_schema("segments")
    with pytest.raises(ContractError, match=r"segment\.v9"):
        load_schema("segment", 9)


def test_a_batch_is_checked_for_columns_types_and_nulls():
    schema = load_schema("brief")
    good = schema.batch([{"brief_id": "a", "language": "en", "axis": "x", "seed": 1}])
    schema.check(good, "here")
    with pytest.raises(ContractError, match="here: column 'seed' of brief.v1 is missing"):
        schema.check(good.select(["brief_id", "language", "axis"]), "here")
    with pytest.raises(ContractError, match="'seed' is string"):
        schema.check(good.set_column(3, "seed", pa.array(["1"])), "here")
    with pytest.raises(ContractError, match="'seed' of brief.v1 has 1 nulls"):
        schema.check(good.set_column(3, "seed", pa.array([None], pa.int64())), "here")


def test_pick_keeps_the_id_and_the_order():
    assert load_schema("segment").pick("text", "audio").names == ("segment_id", "audio", "text")
    with pytest.raises(ContractError, match="'txet'"):
        load_schema("segment").pick("txet")
