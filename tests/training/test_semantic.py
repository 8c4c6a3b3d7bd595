"""The training of the semantic tokenizer with its self-supervised pre-training."""

import csv

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from data_engine.models.semantic_tokenizer import SemanticEncoder  # noqa: E402
from data_engine.training.batches import Batches, BatchSettings  # noqa: E402
from data_engine.training.loop import LoopSettings  # noqa: E402
from data_engine.training.semantic import GRID, SemanticSettings, pretrain_encoder, train  # noqa: E402
from data_engine.training.speech.waves import load  # noqa: E402
from data_engine.training.ssql import PretrainSettings  # noqa: E402

LOOP = LoopSettings(steps=2, log_steps=1, warmup=1, evaluate_minutes=9, save_minutes=9)
BATCHES = BatchSettings(seconds=4, weights={"espeak": 1.0})


def settings(cache, output, **pretrain):
    return SemanticSettings(
        cache=cache, output=output, batches=BATCHES, loop=LOOP, tests=["espeak"], test_utterances=2,
        pretrain=PretrainSettings(**pretrain),
    )  # fmt: skip


def losses(folder):
    with (folder / "losses.csv").open() as file:
        return list(csv.DictReader(file))


def test_ssql_runs_once_and_the_training_goes_on_from_its_encoder(cache, tmp_path):
    config = settings(cache, tmp_path, steps=3, width=32)
    config = config.model_copy(update={"loop": LOOP.model_copy(update={"rate": 0.0})})
    for _ in range(2):
        train(config)
        logged = losses(tmp_path / "ssql")
        assert [row["step"] for row in logged] == ["1", "2", "3"]
        assert all(-0.5 <= float(row[name]) <= 0.5 for row in logged for name in ("plain", "ssql"))
        assert len(losses(tmp_path)) == 2
    assert (tmp_path / "speech_tokenizer_v1.onnx").is_file()
    saved, trained = (torch.load(folder / "state.pt")["model"] for folder in (tmp_path / "ssql", tmp_path))
    assert torch.equal(trained["encoder.first.weight"], saved["embedder.encoder.encoder.first.weight"])
    assert not torch.equal(trained["encoder.first.weight"], saved["follower.encoder.encoder.first.weight"])


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_views_become_alike_and_the_encoder_keeps_what_was_learned(cache, tmp_path, momentum):
    torch.manual_seed(0)
    encoder = SemanticEncoder(32, 64)
    before = encoder.first.weight.clone()
    batches = Batches(load(cache, ["espeak"]), BATCHES, GRID, 1)
    pretrain_encoder(encoder, batches, settings(cache, tmp_path, steps=30, width=32, momentum=momentum))
    logged = [float(row["plain"]) + float(row["ssql"]) for row in losses(tmp_path / "ssql")]
    assert sum(logged[-5:]) / 5 < sum(logged[:5]) / 5 - 0.2
    assert not torch.equal(encoder.first.weight, before)
