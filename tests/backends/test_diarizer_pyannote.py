"""Diarization `pyannote`: pipelines in pyannote.audio's own layout, heard through the library."""

import importlib.util
import os
import shutil
import sys

import numpy as np
import pytest
import yaml

from data_engine.backends.catalog import build_backend
from data_engine.backends.protocols import Backend
from data_engine.backends.protocols_listening import Diarization
from data_engine.core.errors import ConfigError, MissingExtraError
from tests.backends.tiny_pyannote import (
    DIMENSIONS,
    HIGH,
    LOW,
    RATE,
    dialogue,
    write_community,
    write_embedding,
    write_segmentation,
    write_three,
)

HAS_PYANNOTE = all(importlib.util.find_spec(name) for name in ("pyannote.core", "lightning", "torchaudio"))
needs_pyannote = pytest.mark.skipif(not HAS_PYANNOTE, reason="pyannote.audio is not installed (extra diarization)")
WAVE = dialogue()
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def built(folder, **options):
    return build_backend("diarization", "pyannote", {"model": str(folder), **options})


def opened(folder, **options):
    diarizer = built(folder, **options)
    diarizer.open()
    return diarizer


def spoken(found):
    """Who speaks when: seconds, in turns."""
    return [(turn.start / RATE, (turn.start + turn.num_samples) / RATE, turn.speaker) for turn in found.turns]


def loudest(found):
    """The speaker with most of the time."""
    return np.bincount([t.speaker for t in found.turns], [t.num_samples for t in found.turns]).argmax()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("pyannote") / "pipeline"
    made.mkdir()
    write_community(made, WAVE, segmentation_step=0.2)
    return made


@pytest.fixture(scope="module")
def diarizer(folder):
    return opened(folder)


@needs_pyannote
def test_two_voices_are_told_apart_with_their_overlap(diarizer):
    (found,) = diarizer.diarize([WAVE])
    assert isinstance(found, Diarization)
    times = np.arange(0, 5, 0.01)
    heard = np.zeros((len(times), 2), bool)
    for start, end, speaker in spoken(found):
        heard[(times >= start) & (times < end), speaker] = True
    said = np.stack([(times >= start) & (times < end) for start, end in (LOW, HIGH)], axis=1)
    assert (heard == said).mean() > 0.98
    assert heard.all(axis=1).sum() * 0.01 == pytest.approx(LOW[1] - HIGH[0], abs=0.1), "both speak at once"


@needs_pyannote
def test_it_keeps_the_contract_of_its_role(diarizer):
    assert isinstance(diarizer, Backend)
    assert diarizer.sample_rate == RATE
    waves = [WAVE, np.zeros(RATE, np.float32), WAVE[:100], np.zeros(0, np.float32), WAVE[RATE : 4 * RATE]]
    for wave, found in zip(waves, diarizer.diarize(waves), strict=True):
        speakers = [turn.speaker for turn in found.turns]
        assert found.embeddings.dtype == np.float32
        assert found.embeddings.shape == (len(set(speakers)), DIMENSIONS)
        assert list(dict.fromkeys(speakers)) == list(range(len(set(speakers)))), "numbered as they come"
        assert list(found.turns) == sorted(found.turns)
        assert all(t.start >= 0 and t.num_samples > 0 and t.start + t.num_samples <= len(wave) for t in found.turns)
        norms = np.linalg.norm(found.embeddings, axis=1)
        assert all(norm == pytest.approx(1, abs=1e-5) or norm == 0 for norm in norms)
    assert diarizer.diarize([]) == []


@needs_pyannote
def test_nobody_speaks_in_silence_and_scraps(diarizer):
    for found in diarizer.diarize([np.zeros(2 * RATE, np.float32), WAVE[: RATE // 4], WAVE[:100]]):
        assert found.turns == ()
        assert found.embeddings.shape == (0, DIMENSIONS)


@needs_pyannote
def test_the_same_wave_is_heard_the_same_alone_and_in_any_order(folder, diarizer):
    other = WAVE[RATE // 2 :]
    together = diarizer.diarize([WAVE, other])
    alone = opened(folder).diarize([other]) + opened(folder).diarize([WAVE])
    for a, b in zip(together, reversed(alone), strict=True):
        assert a.turns == b.turns
        assert a.embeddings.tobytes() == b.embeddings.tobytes()


@needs_pyannote
def test_batch_sizes_change_speed_only(folder, diarizer):
    small = opened(folder, segmentation_batch_size=1, embedding_batch_size=3)
    assert small._pipeline.segmentation_batch_size == 1 != diarizer._pipeline.segmentation_batch_size
    assert small._pipeline.embedding_batch_size == 3
    (a,), (b,) = diarizer.diarize([WAVE]), small.diarize([WAVE])
    assert a.turns == b.turns
    np.testing.assert_allclose(a.embeddings, b.embeddings, atol=1e-5)


@needs_pyannote
def test_voices_of_one_back_end_are_comparable_between_waves(diarizer):
    both, first, last = diarizer.diarize([WAVE, WAVE[: int(2.1 * RATE)], WAVE[3 * RATE :]])
    low, high = (found.embeddings[loudest(found)] for found in (first, last))
    assert both.embeddings[0] @ low > 0.9 > 0.5 > both.embeddings[0] @ high
    assert both.embeddings[1] @ high > 0.9 > 0.5 > both.embeddings[1] @ low


@needs_pyannote
def test_the_number_of_speakers_asked_for_is_given(folder, tmp_path):
    def speakers(wave=WAVE, at=folder, **options):
        return opened(at, **options).diarize([wave])[0].embeddings.any(axis=1).sum()

    assert speakers(max_speakers=1) == 1
    assert speakers(WAVE[: int(2.5 * RATE)], num_speakers=9) <= 3, "so many are not heard in three windows"
    lumping = tmp_path / "lumping"
    write_three(lumping, str(folder / "segmentation"), str(folder / "embedding"), segmentation_step=0.2)
    config = yaml.safe_load((lumping / "config.yaml").read_text())
    config["params"]["clustering"]["threshold"] = 1.9
    (lumping / "config.yaml").write_text(yaml.safe_dump(config))
    assert speakers(at=lumping) == 1
    assert speakers(at=lumping, min_speakers=2) == speakers(at=lumping, num_speakers=2) == 2


@needs_pyannote
def test_it_finds_what_the_library_itself_finds(folder, diarizer):
    import torch
    from pyannote.audio import Pipeline

    pipeline = Pipeline.from_pretrained(folder)
    found = pipeline({"waveform": torch.from_numpy(WAVE)[None], "sample_rate": RATE}).speaker_diarization
    expected = sorted((round(s.start * RATE), round(s.end * RATE)) for s in found.itersegments())
    assert [(t.start, t.start + t.num_samples) for t in diarizer.diarize([WAVE])[0].turns] == expected


@needs_pyannote
def test_nothing_is_reported_to_anybody(diarizer):
    from pyannote.audio.telemetry import metrics

    assert os.environ["PYANNOTE_METRICS_ENABLED"] == "false"
    assert not metrics.is_metrics_enabled()


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """The layout of 3.1: models beside the config, WeSpeaker's ResNet34, no PLDA."""
    made = tmp_path_factory.mktemp("three")
    write_segmentation(made / "segmentation", WAVE)
    write_embedding(made / "embedding", wespeaker=True)
    write_three(made, "segmentation/pytorch_model.bin", "embedding", segmentation_step=0.5)
    return made


@needs_pyannote
def test_the_layout_of_3_1_needs_no_plda_from_elsewhere(three):
    found = opened(three, num_speakers=2).diarize([WAVE])[0]
    assert {turn.speaker for turn in found.turns} <= {0, 1}
    assert found.embeddings.shape[1] == 256
    ends = [end for _, end, _ in spoken(found)]
    assert found.turns[0].start / RATE == pytest.approx(LOW[0], abs=0.2)
    assert max(ends) == pytest.approx(HIGH[1], abs=0.2)


def cached(hub, name, folder):
    """Puts a folder into a cache of the hub."""
    place = hub / f"models--{name.replace('/', '--')}"
    shutil.copytree(folder, place / "snapshots" / COMMIT)


@needs_pyannote
def test_hub_ids_are_taken_from_the_cache(folder, three, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    cached(tmp_path / "hub", "somebody/community", folder)
    diarizer = opened("somebody/community", model_revision=COMMIT)
    assert diarizer.diarize([WAVE])[0].turns == opened(folder).diarize([WAVE])[0].turns

    cached(tmp_path / "hub", "somebody/segmentation", three / "segmentation")
    write_three(tmp_path / "three", "somebody/segmentation", str(three / "embedding"), segmentation_step=0.5)
    commits = {"somebody/segmentation": COMMIT}
    assert opened(tmp_path / "three", model_revisions=commits).diarize([WAVE[: 2 * RATE]])[0].turns
    with pytest.raises(ConfigError, match="somebody/segmentation.*model_revisions"):
        opened(tmp_path / "three")
    with pytest.raises(ConfigError, match="nobody/nothing.*HF_TOKEN"):
        opened("nobody/nothing", model_revision=COMMIT)


@needs_pyannote
def test_a_damaged_model_is_a_configuration_error(folder, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / "embedding" / "pytorch_model.bin").write_bytes(b"no checkpoint")
    with pytest.raises(ConfigError, match="cannot load"):
        opened(broken)


@pytest.fixture
def plain(tmp_path):
    """Files with the right names; the revision reads nothing else."""
    for name in ("segmentation/pytorch_model.bin", "embedding/pytorch_model.bin", "plda/plda.npz",
                 "plda/xvec_transform.npz"):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    models = {name: f"$model/{name}" for name in ("segmentation", "embedding", "plda")}
    config = {"pipeline": {"name": "pyannote.audio.pipelines.SpeakerDiarization", "params": models}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    return tmp_path


def test_the_revision_covers_every_file_and_loads_nothing(plain):
    seen = {built(plain).revision}
    for path in sorted(plain.rglob("*.*")):
        path.write_bytes(path.read_bytes() + b"\n# changed")
        seen.add(built(plain).revision)
    assert len(seen) == 6
    (plain / "plda" / "plda.npz").unlink()
    with pytest.raises(ConfigError, match="plda.npz"):
        _ = built(plain).revision


def test_a_hub_id_needs_a_revision():
    def revision(**options):
        return built("pyannote/speaker-diarization-community-1", **options).revision

    assert len({revision(model_revision=at) for at in ("v1", "v2", "v1")}) == 2
    assert revision(model_revision="v1", model_revisions={"a/b": "1"}) != revision(model_revision="v1")
    with pytest.raises(ConfigError, match="model_revision"):
        revision()
    with pytest.raises(ConfigError, match="'model'"):
        _ = build_backend("diarization", "pyannote", {}).revision


def test_a_config_of_something_else_is_refused(plain):
    (plain / "config.yaml").write_text("pipeline: {name: os.system}")
    with pytest.raises(ConfigError, match="SpeakerDiarization"):
        _ = built(plain).revision


@pytest.mark.parametrize(
    "counts", [{"num_speakers": 0}, {"min_speakers": 3, "max_speakers": 2}, {"num_speakers": 3, "max_speakers": 2}]
)
def test_numbers_of_speakers_that_cannot_be_are_refused(counts):
    with pytest.raises(ConfigError, match="speakers"):
        build_backend("diarization", "pyannote", {"model": "m", **counts})


def test_a_missing_library_says_how_to_install_it(plain, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyannote.audio", None)
    with pytest.raises(MissingExtraError, match=r"speech-data-engine\[diarization\]"):
        opened(plain)


@needs_pyannote
def test_a_device_that_is_not_there_is_a_configuration_error(folder):
    import torch

    if torch.cuda.is_available():
        assert opened(folder, device="cuda").diarize([WAVE])[0].turns
    else:
        with pytest.raises(ConfigError, match="cuda"):
            opened(folder, device="cuda")
