"""A source with transcripts of its own: `align` gives their words times, and privacy takes out no more than them."""

import json

import pytest
import soundfile

from data_engine.backends.espeak_library import SAMPLE_RATE, Utterance, shared_library
from data_engine.core.errors import ConfigError
from data_engine.io.shards import read_table
from data_engine.io.sources import SourceConfig
from data_engine.io.storage import Storage
from pipelines.curate import CurateConfig, plan_curate
from tests.e2e.conftest import engine

pytestmark = pytest.mark.timeout(600)
TEXT = "please write down my number, it is four one five five five five two six seven one, and call me tomorrow"


@pytest.fixture
def source(tmp_path):
    spoken = shared_library().say(Utterance(TEXT, "en-us", "m3", rate=150))
    soundfile.write(tmp_path / "a.wav", spoken.samples, SAMPLE_RATE)
    line = {"uri": "a.wav", "language": "en", "speaker": "s", "text": TEXT}
    (tmp_path / "m.jsonl").write_text(json.dumps(line) + "\n")
    return tmp_path


def steps(source, **config):
    where = SourceConfig(path=str(source / "m.jsonl"))
    plan = plan_curate(CurateConfig(**config), where, source, Storage(str(source / "plan")), 0)
    return {step.stage: step for group in plan.groups for step in group.steps}


def test_nothing_changes_unless_it_is_asked_for(source):
    plain, asked = steps(source), steps(source, align={})
    assert "align" not in plain
    assert list(asked).index("transcribe") + 1 == list(asked).index("align") == list(asked).index("privacy") - 1
    assert plain["transcribe"].signature == asked["transcribe"].signature
    assert asked["privacy"].config["with_phones"]
    assert not plain["privacy"].config["with_phones"]
    with pytest.raises(ConfigError, match="no aligner back end"):
        steps(source, align={"aligner": "nobody"})


def test_only_the_words_that_are_personal_are_bleeped(source):
    config = {
        "name": "aligned", "output": "out", "source": {"path": "m.jsonl", "allowed_uses": ["asr"]},
        "curate": {"policy": "policies/asr.yaml", "privacy": {"action": "bleep"}, "align": {}},
    }  # fmt: skip
    (source / "c.yaml").write_text(json.dumps(config))
    finished = engine("run", source / "c.yaml", "--output", source / "out")
    assert finished.returncode == 0, finished.stderr
    columns = ["text", "words", "phones", "pii", "num_samples", "align_confidence"]
    (row,) = read_table(str(source / "out"), "segments", columns).to_pylist()
    assert row["text"].startswith("please write down my number, it is [PHONE]")
    assert [word["text"] for word in row["words"]][5:8] == ["it", "is", "[PHONE]"]
    (found,) = row["pii"]
    assert 0.2 < found["num_samples"] / row["num_samples"] < 0.8
    assert row["align_confidence"] > 0.3
    assert not any(
        found["start"] < phone["start"] + phone["num_samples"]
        and phone["start"] < found["start"] + found["num_samples"]
        for phone in row["phones"]
    )
