"""The training loop of all models: budgeted in minutes, resumable, logged as CSV and JSON lines."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data_engine.core.config import Settings

Losses = dict[str, Tensor]


class LoopSettings(Settings):
    """How to train.

    Attributes:
        minutes: Budget in minutes of processor time, so that a busy machine or a stopped process takes nothing from
            it; the learning rate falls along a cosine to a fiftieth of its peak over it. A larger budget given to a
            finished training goes on with it; a smaller one given to a running one ends it sooner.
        steps: Budget in steps instead, for trainings that are to be compared; 0 for none.
        rate: Peak learning rate of AdamW.
        warmup: Steps of linear warm-up.
        clip: Largest norm of the gradient.
        seed: Seed of weights and batches.
        log_steps: Steps between two lines of the log.
        save_minutes: Processor minutes between two checkpoints.
        evaluate_minutes: Processor minutes between two evaluations.
    """

    minutes: float = 50.0
    steps: int = 0
    rate: float = 1e-3
    warmup: int = 150
    clip: float = 3.0
    seed: int = 1
    log_steps: int = 25
    save_minutes: float = 0.5
    evaluate_minutes: float = 4.0


@dataclass(slots=True)
class Progress:
    """Where a training is: steps, processor seconds and seconds of audio spent, when it last saved and evaluated."""

    step: int = 0
    spent: float = 0.0
    audio: float = 0.0
    saved: float = 0.0
    evaluated: float = 0.0


def load_weights(model: nn.Module, folder: Path) -> None:
    """Sets a model to the weights of the checkpoint in a folder."""
    model.load_state_dict(torch.load(folder / "state.pt", weights_only=True)["model"])


def halve(model: nn.Module) -> None:
    """Rounds the weights to half precision, as they ship, so that everything made of them later is made of the same."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.half())


class Training:
    """A model with its optimizer and its files.

    Args:
        model: What is trained.
        folder: Holds `state.pt`, `losses.csv` and `evaluations.jsonl`.
        settings: How to train.
    """

    def __init__(self, model: nn.Module, folder: Path, settings: LoopSettings) -> None:
        self.model, self.folder, self.settings = model, folder, settings
        decayed = [p for p in model.parameters() if p.ndim > 1]
        others = [p for p in model.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=settings.rate, betas=(0.9, 0.98), fused=True)
        self.progress = Progress()
        folder.mkdir(parents=True, exist_ok=True)

    def resume(self) -> bool:
        """Loads the checkpoint; returns False when there is none."""
        path = self.folder / "state.pt"
        if not path.is_file():
            return False
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.progress = Progress(**state["progress"])
        return True

    def save(self) -> None:
        """Writes the checkpoint, atomically."""
        self.progress.saved = self.progress.spent
        progress = {name: getattr(self.progress, name) for name in Progress.__slots__}
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "progress": progress}
        torch.save(state, self.folder / "state.tmp")
        (self.folder / "state.tmp").replace(self.folder / "state.pt")

    def run(self, losses: Callable[[int], tuple[Losses, float]], evaluate: Callable[[], dict[str, Any]]) -> None:
        """Trains until the budget is spent.

        Args:
            losses: Step number to the weighted losses of its batch, which are summed, and its seconds of audio.
            evaluate: Figures of the model as it is.
        """
        while self.share() < 1:
            began = time.process_time()
            found = self._step(losses)
            self.progress.spent += time.process_time() - began
            if self.progress.step % self.settings.log_steps == 0:
                self._log(found)
            self._keep(evaluate)
        self._evaluate(evaluate)
        self.save()

    def share(self) -> float:
        """Returns how much of the budget is spent, 0..1."""
        if self.settings.steps:
            return min(self.progress.step / self.settings.steps, 1.0)
        return min(self.progress.spent / (self.settings.minutes * 60), 1.0)

    def rate(self) -> float:
        """Returns the learning rate of the next step."""
        cosine = 0.02 + 0.98 * (1 + math.cos(math.pi * self.share())) / 2
        return self.settings.rate * cosine * min(1.0, (self.progress.step + 1) / self.settings.warmup)

    def _step(self, losses: Callable[[int], tuple[Losses, float]]) -> Losses:
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        self.model.train()
        torch.manual_seed(self.settings.seed * 1_000_003 + self.progress.step)
        found, seconds = losses(self.progress.step)
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(found.values())).sum().backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        if torch.isfinite(norm):
            self.optimizer.step()
        self.progress.step += 1
        self.progress.audio += seconds
        return found

    def _log(self, found: Losses) -> None:
        path = self.folder / "losses.csv"
        if not path.is_file():
            path.write_text(",".join(["step", "seconds", "audio_hours", "rate", *found]) + "\n", encoding="utf-8")
        state = (self.progress.step, self.progress.spent, self.progress.audio / 3600, self.rate())
        with path.open("a", encoding="utf-8") as file:
            file.write(",".join(f"{value:.6g}" for value in (*state, *(loss.item() for loss in found.values()))) + "\n")

    def _keep(self, evaluate: Callable[[], dict[str, Any]]) -> None:
        if self.progress.spent - self.progress.evaluated > self.settings.evaluate_minutes * 60:
            self._evaluate(evaluate)
        if self.progress.spent - self.progress.saved > self.settings.save_minutes * 60:
            self.save()

    def _evaluate(self, evaluate: Callable[[], dict[str, Any]]) -> None:
        self.progress.evaluated = self.progress.spent
        self.model.eval()
        with torch.inference_mode():
            figures = evaluate()
        state = {"step": self.progress.step, "minutes": round(self.progress.spent / 60, 2),
                 "audio_hours": round(self.progress.audio / 3600, 2)}  # fmt: skip
        line = json.dumps(state | figures)
        with (self.folder / "evaluations.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(line, flush=True)
