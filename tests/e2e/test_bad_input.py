"""Bad input: one clear sentence that says what to do, the right exit code, no traceback, nothing lost."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.e2e.conftest import CHECKOUT, COMMAND, data_hashes, engine, heed_ctrl_c

pytestmark = [pytest.mark.xdist_group("small"), pytest.mark.timeout(1500)]


def refused(finished, code, *words):
    text = finished.stderr
    assert finished.returncode == code, text
    assert "Traceback" not in text
    assert text.count("error:") == 1
    for word in words:
        assert word in " ".join(text.split())


def test_an_unknown_key_is_named_with_its_file(small_config, tmp_path):
    refused(
        engine("run", small_config, "--output", tmp_path, "--set", "curate.segment.treshold=1"),
        2, "small.yaml", "curate.segment.treshold", "known keys there", "threshold",
    )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_a_missing_config_is_named():
    refused(engine("run", "nowhere.yaml"), 2, "cannot read the config 'nowhere.yaml'")


def test_a_missing_source_is_named(small_config, tmp_path):
    finished = engine("run", small_config, "--output", tmp_path, "--set", "source.path=/no/such/folder")
    refused(finished, 2, "/no/such/folder")


def test_an_unknown_back_end_lists_the_known_ones(small_config, tmp_path):
    finished = engine("run", small_config, "--output", tmp_path, "--set", "curate.transcribe.asr=parrot")
    refused(finished, 2, "asr.pocketsphinx")


def test_a_folder_of_another_configuration_is_refused_and_untouched(small_config, small_run):
    before = data_hashes(small_run)
    refused(
        engine("run", small_config, "--output", small_run, "--set", "curate.cut.max_seconds=9"),
        2, "another configuration", "max_seconds", "--overwrite",
    )  # fmt: skip
    assert data_hashes(small_run) == before


def test_a_folder_without_a_run_is_named(tmp_path):
    refused(engine("status", tmp_path), 2, str(tmp_path), "holds no run")


def test_an_unknown_table_or_column_lists_the_known_ones(small_run):
    refused(engine("inspect", small_run, "segmets"), 2, "segments")
    refused(engine("inspect", small_run, "segments", "--columns", "txt"), 2, "'txt'", "text")


@pytest.fixture
def copy_of_run(small_run, tmp_path):
    shutil.copytree(small_run, tmp_path / "copy")
    return tmp_path / "copy"


def test_a_part_of_another_schema_version_is_found(copy_of_run):
    marker = next(copy_of_run.glob("segments/part-*.json"))
    marker.write_text(json.dumps({**json.loads(marker.read_text()), "schema": "segment.v2"}))
    finished = engine("validate", copy_of_run)
    assert finished.returncode == 1
    assert "segment.v1" in finished.stderr and "segment.v2" in finished.stderr
    assert "Traceback" not in finished.stderr


def test_a_damaged_part_is_found_and_a_half_written_shard_is_made_again(copy_of_run, small_config, small_run):
    part = next(p for p in copy_of_run.glob("segments/part-*.arrow"))
    part.write_bytes(part.read_bytes()[:-200])
    finished = engine("validate", copy_of_run)
    assert finished.returncode == 1
    assert "hash differs" in finished.stderr
    for marker in copy_of_run.glob("rejects/decide.decide/part-*.json"):
        marker.write_text('{"half": ')
    assert engine("run", small_config, "--output", copy_of_run).returncode == 0
    assert data_hashes(copy_of_run) == data_hashes(small_run)
    assert engine("validate", copy_of_run).returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_full_disk_is_one_sentence_and_the_run_goes_on_after_it(small_config, small_run, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    try:
        refused(engine("run", small_config, "--output", disk / "out"), 1, "no space left")
        subprocess.run(["mount", "-o", "remount,size=200m", disk], check=True)
        assert engine("run", small_config, "--output", disk / "out").returncode == 0
        assert data_hashes(disk / "out") == data_hashes(small_run)
    finally:
        subprocess.run(["umount", disk], check=True)


def test_ctrl_c_stops_with_a_sentence_and_the_run_can_go_on(small_config, small_run, tmp_path):
    command = [str(COMMAND), "run", str(small_config), "--output", str(tmp_path / "out"), "--workers", "1"]
    process = subprocess.Popen(
        command, cwd=CHECKOUT, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=heed_ctrl_c
    )
    for _ in range(200):
        if list((tmp_path / "out").glob("rejects/decide.decide/part-*.json")):
            break
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in text
    assert "run the same command again" in " ".join(text.split())
    assert engine("run", small_config, "--output", tmp_path / "out").returncode == 0
    assert data_hashes(tmp_path / "out") == data_hashes(small_run)


def test_starting_up_imports_no_heavy_library():
    script = "import sys, data_engine, data_engine.cli; print(' '.join(m for m in sys.modules if '.' not in m))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"numpy", "pyarrow", "torch", "pydantic", "av", "soundfile", "onnxruntime", "scipy", "sklearn", "yaml"}
    assert not heavy & set(loaded)
