"""A mixture is drawn on the command line and read by the loader and the export."""

import json

import pytest
import yaml
from typer.testing import CliRunner

from data_engine.cli import app
from data_engine.core.errors import ConfigError
from data_engine.export.catalog import export
from data_engine.export.mixture import MixtureConfig
from data_engine.io.mixtures import read_mixture_rows
from data_engine.io.storage import Storage
from data_engine.loader import ShardDataset
from pipelines.locate import shipped_configs
from tests.rows import example, segment, write_output


@pytest.fixture
def output(tmp_path):
    examples = [example(n, speed="normal" if n % 3 else "fast1", vq06_a=[1] * 25) for n in range(150)]
    segments = [segment(n, dnsmos_ovr=1 + n / 10) for n in range(20)]
    return write_output(tmp_path / "out", {"aqaa": [examples[:70], examples[70:]], "segments": [segments]})


def mixed(output, tmp_path, *options, **config):
    path = tmp_path / "half.yaml"
    quotas = {"speed": {"normal": 0.5, "fast1": 0.5}}
    path.write_text(yaml.safe_dump({"table": "aqaa", "size": {"rows": 40}, "quotas": quotas} | config))
    return CliRunner().invoke(app, ["mix", output, str(path), *options])


def ids_of(output, name):
    return set(read_mixture_rows(Storage(output), name)[0].column("record_id").to_pylist())


def test_the_command_says_what_was_asked_and_got(output, tmp_path):
    result = mixed(output, tmp_path)
    assert result.exit_code == 0, result.output
    cells = [line.split() for line in result.output.splitlines()]
    assert ["speed=fast1", "20", "20", "50"] in cells
    assert "mixture half: 40 rows of aqaa, 0.011 h" in result.output
    found = json.loads(mixed(output, tmp_path, "--json", "--name", "more", "--set", "size.rows=140").output)
    assert (found["name"], found["got"], found["quotas"]["speed"]["fast1"]["got"]) == ("more", 140, 50)
    assert found["short"] == ["speed=fast1: asked 70, got 50 of 50"]


def test_a_wrong_key_is_a_sentence_and_exit_code_2(output, tmp_path):
    result = mixed(output, tmp_path, sizes=3)
    assert result.exit_code == 2
    assert "unknown key 'sizes'" in result.output
    assert mixed(output, tmp_path, "--runner", "spark").exit_code == 2
    assert mixed(output, tmp_path, "--name", "../x").exit_code == 2


def test_the_loader_gives_out_the_rows_of_the_mixture_over_all_ranks(output, tmp_path):
    mixed(output, tmp_path)
    ranks = [
        ShardDataset(
            output, "aqaa", columns=["speed", "example_id"], mixture="half", shuffle=True, rank=r, world_size=3
        )
        for r in range(3)
    ]
    rows = [row["example_id"] for rank in ranks for row in rank]
    assert sorted(rows) == sorted(ids_of(output, "half"))
    narrow = ShardDataset(output, "aqaa", columns=["speed"], mixture="half", filters={"speed": "fast1"})
    assert [row for row in narrow] == [{"speed": "fast1"}] * 20  # noqa: C416


def test_a_loader_state_belongs_to_its_mixture(output, tmp_path):
    mixed(output, tmp_path)
    mixed(output, tmp_path, "--name", "other", "--set", "seed=1")
    whole, half, other = (ShardDataset(output, "aqaa", mixture=name) for name in (None, "half", "other"))
    prints = {dataset.state_dict()["fingerprint"] for dataset in (whole, half, other)}
    assert len(prints) == 3


def test_a_mixture_of_another_table_is_refused(output, tmp_path):
    mixed(output, tmp_path)
    with pytest.raises(ConfigError, match="one of the table 'aqaa', not of 'segments'"):
        ShardDataset(output, "segments", mixture="half")
    with pytest.raises(ConfigError, match="no mixture 'quarter'; it has half"):
        ShardDataset(output, "aqaa", mixture="quarter")


def test_an_export_writes_the_rows_of_the_mixture(output, tmp_path):
    mixed(output, tmp_path)
    result = CliRunner().invoke(app, ["export", output, str(tmp_path / "hf"), "--mixture", "half"])
    assert result.exit_code == 0, result.output
    assert "left out: 110 rows, not in the mixture" in result.output
    import pyarrow.parquet as pq

    written = [pq.read_table(path, columns=["example_id"]) for path in (tmp_path / "hf" / "data").rglob("*.parquet")]
    assert {i for table in written for i in table.column("example_id").to_pylist()} == ids_of(output, "half")
    with pytest.raises(ConfigError, match="'trl' takes no mixture"):
        export(output, str(tmp_path / "trl"), "trl", mixture="half")


def test_the_shipped_example_is_a_mixture():
    MixtureConfig.model_validate(yaml.safe_load((shipped_configs() / "mixtures" / "example.yaml").read_text()))


def test_quantiles_are_shown_with_the_rule_that_drops_the_lowest_tenth(output):
    asked = ["inspect", output, "segments", "--quantiles", "dnsmos_ovr"]
    result = CliRunner().invoke(app, asked)
    assert "lowest 10%: {column: dnsmos_ovr, min: 1.19970703125, reason: ...}" in result.output  # of 1.0, 1.1, 1.2 ...
    assert "drops 2 of 20 rows" in result.output
    kept = json.loads(CliRunner().invoke(app, [*asked, "--where", "decision=drop", "--json"]).output)
    assert kept == {"dnsmos_ovr": {"rows": 0, "missing": 0, "quantiles": []}}
