"""Runs of the command line, as its user would start it."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

CHECKOUT = Path(__file__).parents[2]
COMMAND = Path(sys.executable).parent / "data-engine"


def engine(*arguments, cwd=CHECKOUT, env=None, timeout=1200):
    """Runs `data-engine` and returns the finished process."""
    return subprocess.run(
        [str(COMMAND), *map(str, arguments)], capture_output=True, text=True, cwd=cwd, env=env, timeout=timeout
    )


def heed_ctrl_c():
    """For a child process: tests that run in the background of a shell inherit an ignored SIGINT."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def data_hashes(folder):
    """Returns table -> hashes of its committed parts: equal hashes mean equal bytes."""
    run = json.loads((Path(folder) / "run.json").read_text())
    found = {table: [part["sha256"] for part in parts] for table, parts in run["tables"].items()}
    return {**found, "rejects": sorted(run["rejects"])}


def write_clips(conversation, folder):
    """Writes what the fixture `clips` describes."""
    wave, rate = soundfile.read(conversation, dtype="int16")
    for name, start, stop in (("a", 6.5, 12.0), ("b", 11.0, 18.5), ("c", 18.0, 27.0)):
        soundfile.write(folder / f"{name}.wav", wave[int(start * rate) : int(stop * rate)], rate)
    (folder / "broken.wav").write_bytes(b"this is not audio at all, whatever its name says")
    (folder / "copy.wav").write_bytes((folder / "a.wav").read_bytes())


@pytest.fixture(scope="session")
def clips(conversation, tmp_path_factory):
    """Three pieces of the conversation, a file that is not audio, and an exact copy."""
    folder = tmp_path_factory.mktemp("clips")
    write_clips(conversation, folder)
    return folder


def write_small_config(clips, path):
    """Writes what the fixture `small_config` describes."""
    path.write_text(
        f"""
name: small
output: out/small
seed: 3
source:
  path: {clips}
  language: en
  licence: MIT
  consent_basis: test
  allowed_uses: [tts, clone]
curate:
  recordings_per_shard: 2
  policy: policies/dialogue.yaml
synthesize:
  briefs: {{count: 3, languages: {{en: 2, zh: 1}}, axes: [logical_reasoning, emotion_control, tool_call]}}
  dialogues_per_shard: 1
  verify: {{asr: {{name: pocketsphinx, options: {{decoder: {{maxhmmpf: 3000, maxwpf: 10}}}}}}}}
prefer: {{}}
""",
        encoding="utf-8",
    )


@pytest.fixture(scope="session")
def small_config(clips, tmp_path_factory):
    """A run of all three pipelines that takes seconds: five files, three dialogues."""
    path = tmp_path_factory.mktemp("config") / "small.yaml"
    write_small_config(clips, path)
    return path


@pytest.fixture(scope="session")
def small_run(small_config, tmp_path_factory):
    """The folder of an undisturbed run of `small_config` with two processes."""
    folder = tmp_path_factory.mktemp("small") / "out"
    finished = engine("run", small_config, "--output", folder, "--workers", 2)
    assert finished.returncode == 0, finished.stderr
    return folder


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory):
    """The folder of the demo, run as `make demo` runs it."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    finished = engine("run", "configs/demo.yaml", "--output", folder)
    assert finished.returncode == 0, finished.stderr
    return folder
