"""Speakers of different recordings that are one person become one voice of a run, with any number of processes."""

import json

import pytest
import soundfile

from data_engine.io.shards import read_table
from pipelines.run import read_run_config, run
from tests.e2e.conftest import data_hashes, engine

pytestmark = [pytest.mark.timeout(600)]

TURNS = {"a1": (14.5, 17.9), "a2": (21.9, 27.8), "b1": (10.6, 14.6), "b2": (18.6, 21.4)}
"""Two speakers of the conversation, each in two recordings; the second of b is said by somebody else's licence."""


class Silent:
    def planned(self, plan, committed):
        pass

    def shard_done(self, plan, report):
        pass


@pytest.fixture(scope="module")
def config(conversation, tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    wave, rate = soundfile.read(conversation, dtype="int16")
    lines = []
    for name, (start, end) in TURNS.items():
        soundfile.write(folder / f"{name}.wav", wave[round(start * rate) : round(end * rate)], rate)
        licence = "CC0-1.0" if name == "b2" else "MIT"
        lines.append({"path": f"{name}.wav", "licence": licence, "consent_basis": "test", "allowed_uses": ["clone"]})
    (folder / "all.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "keep.yaml").write_text("name: keep\nversion: 1\nrules: []\n")
    path = folder / "people.yaml"
    path.write_text(f"""
name: people
output: out/people
source: {{path: {folder}/all.jsonl}}
report: false
curate:
  policy: keep.yaml
  recordings_per_shard: 1
  voices: {{min_seconds: 2.0, target_seconds: 4.0}}
""")
    return path


def finished(config, output, workers, *changes):
    asked = [f"output={output}", f"runner.workers={workers}", *changes]
    outcome = run(read_run_config(config, asked), config.parent, Silent())
    assert outcome.run["state"] == "complete"
    return {row["recording_id"]: row for row in read_table(str(output), "voices").to_pylist()}


def test_people_are_merged_but_not_across_consent_records(config, tmp_path):
    voices = finished(config, tmp_path / "one", 1)
    recordings = read_table(str(tmp_path / "one"), "recordings", ["recording_id", "uri"]).to_pylist()
    file = {row["recording_id"]: row["uri"].rsplit("/", 1)[-1].removesuffix(".wav") for row in recordings}
    merged = {file[name]: [file[s.split(":")[0]] for s in row["merged_speakers"]] for name, row in voices.items()}
    assert sorted(merged) in (["a1", "b1", "b2"], ["a2", "b1", "b2"])
    kept = "a1" if "a1" in merged else "a2"
    assert merged == {kept: ["a2" if kept == "a1" else "a1"], "b1": [], "b2": []}
    (person,) = read_table(str(tmp_path / "one"), "speakers").to_pylist()
    assert person["similarity"] >= 0.88
    assert engine("validate", tmp_path / "one").returncode == 0
    finished(config, tmp_path / "two", 2)
    assert data_hashes(tmp_path / "two") == data_hashes(tmp_path / "one")
