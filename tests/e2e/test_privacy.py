"""With `privacy.action: bleep` nothing a run publishes holds what was taken out, declared transcripts included."""

import json

import pytest
import soundfile

from data_engine.io.shards import read_table
from tests.e2e.conftest import engine

pytestmark = pytest.mark.timeout(600)
SECRET = "four one five five five five two six seven one"


def test_a_bleeped_run_publishes_nothing_of_what_was_found(conversation, tmp_path):
    wave, rate = soundfile.read(conversation)
    soundfile.write(tmp_path / "a.wav", wave[22 * rate : round(27.8 * rate)], rate)
    line = {"uri": "a.wav", "language": "en", "speaker": "s", "text": f"my number is {SECRET}", "note": SECRET}
    (tmp_path / "m.jsonl").write_text(json.dumps(line) + "\n")
    config = {
        "name": "private", "output": "out", "source": {"path": "m.jsonl", "allowed_uses": ["asr"]},
        "curate": {"policy": "policies/asr.yaml", "privacy": {"action": "bleep"}},
    }  # fmt: skip
    (tmp_path / "c.yaml").write_text(json.dumps(config))
    out = tmp_path / "out"
    finished = engine("run", tmp_path / "c.yaml", "--output", out)
    assert finished.returncode == 0, finished.stderr
    (row,) = read_table(str(out), "segments", ["text", "pii", "num_samples"]).to_pylist()
    assert row["text"] == "[PHONE]"
    assert [(e["kind"], e["action"], e["num_samples"]) for e in row["pii"]] == [("PHONE", "bleep", row["num_samples"])]
    published = [read_table(str(out), name).to_pylist() for name in ("recordings", "segments", "voices")]
    plain = [path.read_text() for path in out.rglob("*") if path.suffix in (".json", ".html", ".prom")]
    assert SECRET not in json.dumps(published, default=str) + "".join(plain) + finished.stderr
    assert (published[0][0]["text"], published[0][0]["attributes"]) == (None, None)
