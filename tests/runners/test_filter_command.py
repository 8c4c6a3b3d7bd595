"""filter: another policy decides about the segments of a finished run; readers see it, the run stays as it was."""

import hashlib
import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from typer.testing import CliRunner

from data_engine.cli import app
from data_engine.core.errors import StorageError
from data_engine.export.catalog import export
from data_engine.io.decisions import folder_in_force, read_decisions, result_names, write_decisions
from data_engine.io.shards import committed_parts, marker_name, read_batches, read_table
from data_engine.io.storage import Storage
from data_engine.loader import ShardDataset
from data_engine.report.totals import count_totals
from data_engine.runners.books import claim, mark_stale, read_run, write_run_file
from data_engine.runners.claims import FOLDER as CLAIMS
from data_engine.runners.claims import ClaimFile, Owner, this_process
from data_engine.runners.redecide import renew_decisions
from data_engine.runners.run import open_runner
from data_engine.stages.rules.policy import load_policy
from pipelines.run import RunConfig
from pipelines.run import run as run_pipelines
from tests.bench.fabricated import _commit, _noises, _segments, _voice, fabricate_output
from tests.runners.test_local import Silent

ROWS, PARTS = 150, 3
CLEAR = {"name": "clear", "version": 1, "rules": [
    {"column": "dnsmos_ovr", "min": 3.0, "missing": "drop", "reason": "LOW_QUALITY"},
    {"column": "snr_db", "min": 20.0, "reason": "TOO_NOISY"},
    {"column": "text", "missing": "drop", "reason": "NO_TEXT"},
]}  # fmt: skip
LOUD = {"name": "loud", "version": 1, "rules": [{"column": "snr_db", "min": 50.0, "reason": "TOO_NOISY"}]}


@pytest.fixture
def finished(tmp_path):
    """A finished run of 150 segments in three parts, with the plan that is in its book."""
    storage = Storage(str(tmp_path / "out"))
    plan = fabricate_output(storage, ROWS, PARTS)
    write_run_file(storage, {"name": "fabricated", "curate": {"policy": "policies/tts.yaml"}}, "complete")
    return storage, plan


@pytest.fixture
def policy(tmp_path):
    def write(content):
        path = tmp_path / f"{content['name']}.yaml"
        path.write_text(yaml.safe_dump(content))
        return str(path)

    return write


def call(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)])


def filtered(storage, *options):
    result = call("filter", storage.uri, "--json", *options)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def contents(storage, *without):
    """Name -> hash of every file of the folder."""
    root = Path(storage.path(""))
    files = [path for path in root.rglob("*") if path.is_file()]
    found = {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return {name: value for name, value in found.items() if not name.startswith(without)}


def decisions(storage):
    return read_table(storage.uri, "segments", ["segment_id", "policy", "decision", "reasons"]).to_pylist()


def expected(storage):
    """What CLEAR says of each segment, as one would say it by hand."""
    rows = read_table(storage.uri, "segments", ["segment_id", "dnsmos_ovr", "snr_db"]).to_pylist()
    broken = [["LOW_QUALITY"] * (r["dnsmos_ovr"] < 3) + ["TOO_NOISY"] * (r["snr_db"] < 20) for r in rows]
    return [
        {"segment_id": row["segment_id"], "policy": "clear.1", "decision": "drop" if why else "keep", "reasons": why}
        for row, why in zip(rows, broken, strict=True)
    ]


def test_every_segment_is_decided_anew_and_nothing_the_run_wrote_changes(finished, policy):
    storage, _ = finished
    before, own = contents(storage, "run.json"), decisions(storage)
    found = filtered(storage, "--policy", policy(CLEAR))
    assert decisions(storage) == expected(storage)
    assert contents(storage, "run.json", "decisions/") == before
    changed = [(a["decision"], b["decision"]) for a, b in zip(own, expected(storage), strict=True)]
    kept = sum(row["decision"] == "keep" for row in expected(storage))
    assert (found["rows"], found["kept"], found["dropped"]) == (ROWS, kept, ROWS - kept)
    assert found["seconds_kept"] == pytest.approx(kept * 0.25)
    assert found["changed"] == {"to_keep": 0, "to_drop": changed.count(("keep", "drop")), "from_none": 0}
    alone = sum(row["reasons"] == ["TOO_NOISY"] for row in expected(storage))
    assert found["reasons"]["TOO_NOISY"]["alone"] == alone
    assert found["reasons"]["NO_TEXT"] == {"rows": 0, "alone": 0}


def test_every_reader_sees_the_new_decision(finished, policy, tmp_path):
    storage, _ = finished
    filtered(storage, "--policy", policy(CLEAR))
    kept = {row["segment_id"] for row in expected(storage) if row["decision"] == "keep"}
    shown = call("inspect", storage.uri, "segments", "--where", "decision=keep", "--rows", ROWS, "--json")
    assert {json.loads(line)["segment_id"] for line in shown.stdout.splitlines()} == kept
    rows = ShardDataset(storage.uri, "segments", columns=["segment_id"], filters={"decision": "keep"}, shuffle=True)
    assert {row["segment_id"] for row in rows} == kept
    assert sum(export(storage.uri, str(tmp_path / "hf"), "huggingface").rows.values()) == len(kept) + PARTS  # voices
    assert count_totals(storage, read_run(storage))["segments"]["by"]["decision"]["keep"][0] == len(kept)
    assert f"{len(kept)} of {ROWS} kept" in call("status", storage.uri).stdout
    counted = call("inspect", storage.uri, "segments", "--quantiles", "snr_db", "--where", "decision=keep", "--json")
    assert json.loads(counted.stdout)["snr_db"]["rows"] == len(kept)
    assert call("report", storage.uri).exit_code == 0
    assert "clear.1" in (Path(storage.path("report/index.html"))).read_text()
    valid = call("validate", storage.uri)
    assert valid.exit_code == 0, valid.output


def test_a_dry_run_counts_and_writes_nothing(finished, policy):
    storage, _ = finished
    before = contents(storage)
    counted = filtered(storage, "--policy", policy(CLEAR), "--dry-run")
    assert contents(storage) == before
    written = filtered(storage, "--policy", policy(CLEAR))
    assert {**counted, "dry_run": False} == written
    told = call("filter", storage.uri, "--policy", policy(LOUD), "--dry-run").stdout
    assert "against 'clear.1'" in told
    assert "nothing was written" in told


def test_results_stand_side_by_side_and_the_runs_own_decision_comes_back(finished, policy):
    storage, _ = finished
    own = decisions(storage)
    filtered(storage, "--policy", policy(CLEAR))
    filtered(storage, "--policy", policy(LOUD), "--name", "for-music")
    assert {row["policy"] for row in decisions(storage)} == {"loud.1"}
    assert filtered(storage, "--use", "clear.1")["in_force"] == "clear.1"
    assert decisions(storage) == expected(storage)
    by_name = {
        name: [row["policy"] for row in ShardDataset(storage.uri, "segments", columns=["policy"], decisions=name)]
        for name in (None, "for-music", "run")
    }
    assert {name: set(found) for name, found in by_name.items()} == {
        None: {"clear.1"}, "for-music": {"loud.1"}, "run": {"test"},
    }  # fmt: skip
    filtered(storage, "--use", "run")
    assert decisions(storage) == own
    assert "decisions" not in json.dumps(storage.read_json("run.json"))
    assert [result["name"] for result in filtered(storage)["results"]] == ["clear.1", "for-music"]


def test_one_name_means_one_set_of_rules(finished, policy):
    storage, _ = finished
    filtered(storage, "--policy", policy(CLEAR))
    again = filtered(storage, "--policy", policy(CLEAR))
    assert again["changed"] == {"to_keep": 0, "to_drop": 0, "from_none": 0}
    stricter = call("filter", storage.uri, "--policy", policy(CLEAR | {"rules": CLEAR["rules"][:1]}))
    assert (stricter.exit_code, "another version" in stricter.output) == (2, True)
    assert decisions(storage) == expected(storage)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--use", "nobody"], "has no filter result 'nobody'; it has run"),
        (["--dry-run"], "--policy"),
        (["--policy", "absent.yaml"], "absent.yaml"),
        (["--policy", "policies/asr.yaml", "--name", "run"], "no name for a filter result"),
        (["--policy", "policies/asr.yaml", "--runner", "spark"], "spark"),
    ],
)
def test_a_wrong_call_is_a_sentence_and_exit_code_2(finished, options, words):
    result = call("filter", finished[0].uri, *options)
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())


def test_a_policy_may_not_read_what_a_policy_writes(finished, policy):
    rule = {"column": "decision", "equals": "keep", "reason": "OTHER"}
    result = call("filter", finished[0].uri, "--policy", policy({"name": "odd", "version": 1, "rules": [rule]}))
    assert (result.exit_code, "what a policy writes" in " ".join(result.output.split())) == (2, True)


def test_a_run_that_is_not_finished_is_refused_and_so_is_a_folder_without_one(finished, policy, tmp_path):
    storage, _ = finished
    storage.remove_file(marker_name("rejects/curate.decide", 1))
    result = call("filter", storage.uri, "--policy", policy(CLEAR))
    assert (result.exit_code, "2 of 3 shards" in result.output) == (1, True)
    assert call("filter", tmp_path / "empty", "--policy", policy(CLEAR)).exit_code == 2
    assert not (tmp_path / "empty").exists()


def test_while_a_run_writes_into_the_folder_filter_is_refused_and_changes_nothing(finished, policy):
    storage, _ = finished
    claims = storage.list(CLAIMS)
    host, parent = this_process().host, os.getppid()
    start = Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[19]
    busy = ClaimFile(Owner(host, parent, start), "curate", "signature", ticket=1, held=True)
    storage.write_json(f"{CLAIMS}/{parent}-x.json", asdict(busy))
    result = call("filter", storage.uri, "--policy", policy(CLEAR))
    assert (result.exit_code, "is being written by another run" in " ".join(result.output.split())) == (1, True)
    assert storage.list("decisions") == []
    storage.remove_file(f"{CLAIMS}/{parent}-x.json")
    filtered(storage, "--policy", policy(CLEAR))
    assert storage.list(CLAIMS) == claims


def recommitted(storage, plan, shard):
    """Commits other segments as a shard, as a replay would after a fix."""
    segments = list(_segments(shard + 100, ROWS // PARTS, _noises()))
    tables = {"segments": ("segment", segments), "voices": ("voice", [_voice(segments[0])])}
    _commit(storage, plan, shard, "decide", tables)


def test_segments_made_anew_are_never_read_with_decisions_about_others(finished, policy):
    storage, plan = finished
    filtered(storage, "--policy", policy(CLEAR))
    recommitted(storage, plan, 1)
    with pytest.raises(StorageError, match="committed after the decisions"):
        decisions(storage)
    assert read_table(storage.uri, "segments", ["text"]).num_rows == ROWS  # who asks for no decision needs none
    with open_runner("local", 1, {}) as runner:
        renew_decisions(runner, storage)
    assert decisions(storage) == expected(storage)


def carried_out(storage, monkeypatch):
    """Runs a config again whose pipelines have nothing left to do."""
    monkeypatch.setattr("pipelines.run.plans", lambda *_: iter(()))
    config = RunConfig.model_validate({"name": "again", "output": storage.uri, "prefer": {}})
    return run_pipelines(config, Path.cwd(), Silent()).run


def test_running_again_keeps_the_result_in_force_and_decides_about_what_is_new(finished, policy, monkeypatch):
    storage, plan = finished
    filtered(storage, "--policy", policy(CLEAR))
    recommitted(storage, plan, 2)
    run = carried_out(storage, monkeypatch)
    assert run["pipelines"]["curate"]["decisions"]["name"] == "clear.1"
    assert decisions(storage) == expected(storage)


def test_another_configuration_sets_results_aside_and_a_replay_does_not(finished, policy):
    storage, plan = finished
    filtered(storage, "--policy", policy(CLEAR))
    mark_stale(storage, "curate")
    analyse, decide = plan.groups
    steps = tuple(replace(step, signature=f"{step.signature}2") for step in decide.steps)
    other = replace(plan, groups=(analyse, replace(decide, steps=steps)))
    claim(storage, other, {"curate": {}}, overwrite=False).release()
    assert folder_in_force(storage), "the same configuration over changed input"
    claim(storage, plan, {"curate": {"policy": "strict.yaml"}}, overwrite=True).release()
    assert folder_in_force(storage) is None
    assert result_names(storage) == ["clear.1"]


def test_a_result_is_in_force_only_when_it_is_whole(finished, policy, monkeypatch):
    storage, _ = finished
    own = decisions(storage)
    monkeypatch.setattr(
        "data_engine.runners.redecide.write_result", lambda *_: (_ for _ in ()).throw(StorageError("full"))
    )
    assert call("filter", storage.uri, "--policy", policy(CLEAR)).exit_code == 1
    assert decisions(storage) == own
    assert result_names(storage) == []


def test_validate_finds_decisions_that_are_not_those_of_the_policy(finished, policy):
    storage, _ = finished
    folder = filtered(storage, "--policy", policy(CLEAR))["folder"]
    part = committed_parts(storage, "segments")[0].name
    rows = read_decisions(storage, folder, part)
    kept = pa.array(["keep"] * rows.num_rows)
    write_decisions(storage, folder, part, rows.set_column(2, rows.schema.field(2), kept))
    result = call("validate", storage.uri)
    assert (result.exit_code, "not decided as its policy says" in result.output) == (1, True)
    Path(storage.path(f"{folder}/{part.rpartition('/')[2]}")).write_bytes(b"cut off")
    assert "is damaged" in " ".join(call("validate", storage.uri).output.split())


def test_a_loader_state_belongs_to_the_decisions_it_reads_and_to_no_others(finished, policy):
    storage, _ = finished

    def prints():
        read = (["text"], {}), (["decision"], {}), (["text"], {"decision": "keep"})
        sets = (ShardDataset(storage.uri, "segments", columns=c, filters=f) for c, f in read)
        return [dataset.state_dict()["fingerprint"] for dataset in sets]

    before = prints()
    filtered(storage, "--policy", policy(CLEAR))
    assert [a == b for a, b in zip(before, prints(), strict=True)] == [True, False, False]


def test_decisions_are_joined_row_for_row_across_record_batches(tmp_path, policy):
    storage = Storage(str(tmp_path / "long"))
    fabricate_output(storage, 150, 1)  # three record batches in one part
    filtered(storage, "--policy", policy(CLEAR))
    part = committed_parts(storage, "segments")[0]
    batches = list(read_batches(storage, part, ["segment_id", "decision"]))
    assert [batch.num_rows for batch in batches] == [64, 64, 22]
    wanted = {row["segment_id"]: row["decision"] for row in expected(storage)}
    assert [row for batch in batches for row in batch.to_pylist()] == [
        {"segment_id": name, "decision": decision} for name, decision in wanted.items()
    ]
    rows = ShardDataset(storage.uri, "segments", columns=["segment_id", "decision"])
    assert {row["segment_id"]: row["decision"] for row in rows} == wanted


@pytest.mark.parametrize("use", ["asr", "tts", "dialogue"])
def test_each_shipped_policy_decides_about_a_run(finished, use):
    found = filtered(finished[0], "--policy", f"policies/{use}.yaml")
    rules = load_policy(Path(__file__).parents[2] / "configs" / "policies" / f"{use}.yaml").rules
    assert list(found["reasons"]) == list(dict.fromkeys(rule.reason for rule in rules))
    assert found["rows"] == ROWS
