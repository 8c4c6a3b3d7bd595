"""The training loop: it can be stopped anywhere and goes on where it was."""

import pytest

torch = pytest.importorskip("torch")

from data_engine.training.loop import LoopSettings, Training  # noqa: E402


def training(folder, minutes):
    torch.manual_seed(0)
    return Training(torch.nn.Linear(2, 1), folder, LoopSettings(minutes=minutes, log_steps=1, rate=0.05))


def losses(model):
    target = torch.tensor([[1.0], [2.0]])
    return lambda step: ({"error": (model(torch.eye(2)) - target).square().mean()}, 1.5)


def test_a_training_lowers_its_loss_logs_it_and_evaluates_at_the_end(tmp_path):
    run = training(tmp_path, 0.01)
    before = losses(run.model)(0)[0]["error"].item()
    run.run(losses(run.model), lambda: {"figure": 1})
    assert losses(run.model)(0)[0]["error"].item() < before
    lines = (tmp_path / "losses.csv").read_text().splitlines()
    assert lines[0] == "step,seconds,audio_hours,rate,error"
    assert len(lines) == run.progress.step + 1
    assert '"figure": 1' in (tmp_path / "evaluations.jsonl").read_text()


def test_the_rate_warms_up_and_falls_to_a_fiftieth(tmp_path):
    run = training(tmp_path, 1.0)
    first = run.rate()
    run.progress.step, run.progress.spent = 10_000, 0.0
    assert first < run.rate() == pytest.approx(0.05)
    run.progress.spent = 60.0
    assert run.rate() == pytest.approx(0.001)


def test_a_resumed_training_has_the_weights_the_steps_and_the_time_of_the_stopped_one(tmp_path):
    first = training(tmp_path, 0.005)
    first.run(losses(first.model), dict)
    second = training(tmp_path, 0.01)
    assert second.resume()
    assert torch.equal(second.model.weight, first.model.weight)
    assert second.progress == first.progress
    second.run(losses(second.model), dict)
    assert second.progress.step > first.progress.step


def test_there_is_nothing_to_resume_in_an_empty_folder(tmp_path):
    assert not training(tmp_path, 1).resume()
