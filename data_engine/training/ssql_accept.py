"""Checks SSQL against its plain method on a small encoder: `python -m data_engine.training.ssql_accept --config FILE`.

Both pre-train the same network for the same steps on the same crops. Then, at each bit width: how well the linear probe
of the float states reads phones from the states, and how many k-means codes are the ones the float states have.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from data_engine.core.config import Settings, read_yaml, validate
from data_engine.models.codec_views import nearest
from data_engine.models.fake_quant import Bits, FakeQuantiser, Plan, Ranges
from data_engine.models.features import MelSettings, log_mel
from data_engine.training.batches import Floats, Grid, frame_labels
from data_engine.training.speech.waves import Part, load
from data_engine.training.ssql import SelfSupervised, ssql_losses, view

MEL = MelSettings(n_mels=40)
CHANNELS, SUBSAMPLING = 96, 6
GRID = Grid(lambda wave: log_mel(wave, MEL), 960, 80, SUBSAMPLING)
"""Token n is centred on mel frame 6 n."""
FIRST, LAST = "layers.0", "layers.3"
"""Layers of the small encoder: the first keeps 8/8, the last, the end of a block, takes its input in float."""

WIDTHS = (None, Bits(8, 8), Bits(4, 4), Bits(3, 4), Bits(2, 4))
"""Float first."""

Ints = npt.NDArray[np.int64]


class AcceptSettings(Settings):
    """The check.

    Attributes:
        cache: Folder that `data_engine.training.speech.waves` made.
        part: Part with phone times.
        utterances: How many; the last fifth tests.
        steps: Of each pre-training.
        batch: Crops of a step.
        crop: Mel frames of a crop, 10 ms each.
        codes: Of k-means.
        momentum: As in `training.ssql.PretrainSettings`: BYOL, and SimSiam when 0.
        rate: Peak rate of stochastic gradient descent.
        width: Of the projector.
        seed: Of everything; the first of them.
        seeds: How many; what one alone gains is several points up or down.
    """

    cache: Path
    part: str = "espeak"
    utterances: int = 240
    steps: int = 700
    batch: int = 32
    crop: int = 120
    codes: int = 256
    momentum: float = 0.99
    rate: float = 1.0
    width: int = 256
    seed: int = 1
    seeds: int = 9


class SmallEncoder(nn.Module):
    """Four convolutions, the last two a residual block: 40 bands to 96 channels, a state every 60 ms.

    Args:
        channels: Of every layer.
    """

    def __init__(self, channels: int = CHANNELS) -> None:
        super().__init__()
        shapes = ((MEL.n_mels, 5, 2), (channels, 5, 3), (channels, 3, 1), (channels, 3, 1))
        self.layers = nn.ModuleList(
            nn.Conv1d(size, channels, kernel, stride, kernel // 2, bias=False) for size, kernel, stride in shapes
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(channels) for _ in shapes)

    def forward(self, features: Tensor) -> Tensor:
        """Returns states [batch, (frames + 5) // 6, channels] of features [batch, frames, 40]."""
        hidden = features.transpose(1, 2)
        for layer, norm in zip(self.layers[:2], self.norms[:2], strict=True):
            hidden = torch.relu(norm(layer(hidden)))
        inner = torch.relu(self.norms[2](self.layers[2](hidden)))
        states: Tensor = hidden + self.norms[3](self.layers[3](inner))
        return states.transpose(1, 2)


def corpus(part: Part, count: int) -> tuple[list[Floats], list[Ints], float]:
    """Returns normalised log-mels, the phone of each 60 ms and what a neper is in them, of evenly chosen utterances."""
    picked = np.unique(np.linspace(0, len(part) - 1, count).astype(int))
    utterances = [part.utterance(int(index)) for index in picked]
    mels = [GRID.features(utterance.wave) for utterance in utterances]
    labels = [frame_labels(u, GRID.count(len(mel)), GRID, 1.0) for u, mel in zip(utterances, mels, strict=True)]
    rows = np.concatenate(mels)
    normalised = [np.asarray((mel - rows.mean()) / rows.std(), np.float32) for mel in mels]
    return normalised, labels, 1 / float(rows.std())


def crops(mels: Sequence[Floats], config: AcceptSettings, step: int) -> Tensor:
    """Returns the crops of a step, [batch, frames, 40]; a short utterance is repeated."""
    rng = np.random.default_rng([config.seed, step])
    chosen = [mels[int(n)] for n in rng.integers(0, len(mels), config.batch)]
    whole = [np.tile(mel, (-(-config.crop // len(mel)), 1)) for mel in chosen]
    starts = [int(rng.integers(0, len(mel) - config.crop + 1)) for mel in whole]
    return torch.from_numpy(np.stack([m[s : s + config.crop] for m, s in zip(whole, starts, strict=True)]))


def pretrained(mels: Sequence[Floats], neper: float, config: AcceptSettings, quantised: bool) -> SmallEncoder:
    """Returns an encoder after all steps of SSQL or of the plain method; `neper` as in `training.ssql.view`."""
    torch.manual_seed(config.seed)
    encoder = SmallEncoder()
    model = SelfSupervised(encoder, CHANNELS, config.width, config.momentum, FIRST, (LAST,))
    optimizer = torch.optim.SGD(model.parameters(), config.rate, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    for step in range(config.steps):
        torch.manual_seed(config.seed * 1_000_003 + step)
        features = crops(mels, config, step)
        inside = torch.ones(len(features), GRID.count(features.shape[1]), dtype=torch.bool)
        losses = ssql_losses(model, (view(features, neper), view(features, neper)), inside, quantised)
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return encoder.eval()


def states_of(encoder: SmallEncoder, mels: Sequence[Floats], bits: Bits | None, ranges: Ranges) -> list[Floats]:
    """Returns the states of each utterance, rounded as SSQL rounds."""
    quantiser = FakeQuantiser(encoder, Plan({FIRST: Bits(8, 8)}, float_inputs=(LAST,)))
    rows = [torch.from_numpy(mel)[None] for mel in mels]
    with torch.inference_mode():
        if bits is None:
            with quantiser.observing(ranges):
                return [encoder(row)[0].numpy() for row in rows]
        return [quantiser.run(bits, ranges, row)[0].numpy() for row in rows]


def figures_of(
    encoder: SmallEncoder, mels: list[Floats], labels: list[Ints], config: AcceptSettings
) -> dict[str, dict[str, float]]:
    """Returns phone accuracy and share of equal codes at each bit width.

    Probe (softmax regression) and codebook are made for the float states and stay: what was built on an encoder in
    float is to work on it in few bits.
    """
    from sklearn.cluster import KMeans
    from sklearn.linear_model import LogisticRegression

    kept = len(mels) * 4 // 5
    phones = np.concatenate(labels[:kept]), np.concatenate(labels[kept:])
    ranges: Ranges = {}
    states = np.concatenate(states_of(encoder, mels[:kept], None, ranges))
    centre, scale = states.mean(0), states.std(0) + 1e-6
    probe = LogisticRegression(C=0.1, max_iter=1000).fit((states - centre) / scale, phones[0])
    fitted = KMeans(config.codes, n_init=1, max_iter=30, random_state=config.seed).fit(states)
    codebook = fitted.cluster_centers_.astype(np.float32)
    heard = {bits: np.concatenate(states_of(encoder, mels[kept:], bits, dict(ranges))) for bits in WIDTHS}
    reference = nearest(heard[None], codebook)
    return {
        str(bits or "float"): {
            "phones": round(float(probe.score((found - centre) / scale, phones[1])), 4),
            "codes": round(float((nearest(found, codebook) == reference).mean()), 4),
        }
        for bits, found in heard.items()
    }


def mean_of(several: Sequence[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Returns the means of several `figures_of`."""
    return {
        bits: {name: round(float(np.mean([one[bits][name] for one in several])), 4) for name in several[0][bits]}
        for bits in several[0]
    }


def shortfalls(plain: dict[str, dict[str, float]], ssql: dict[str, dict[str, float]]) -> list[str]:
    """Returns which parts of the acceptance SSQL misses; none is a pass."""
    gain = {key: ssql[key]["phones"] - plain[key]["phones"] for key in ssql}
    agreement = {key: ssql[key]["codes"] for key in ssql}
    checks = {
        "phones at 2w4a +5 points": gain["2w4a"] >= 0.05,
        "phones at 4w4a +1 point": gain["4w4a"] >= 0.01,
        "phones in float not 0.5 points worse": gain["float"] >= -0.005,
        "codes at 4w4a +1 point": agreement["4w4a"] >= plain["4w4a"]["codes"] + 0.01,
        "codes at 4w4a 0.90": agreement["4w4a"] >= 0.90,
        "codes at 8w8a 0.99": agreement["8w8a"] >= 0.99,
    }
    return [name for name, passed in checks.items() if not passed]


def accept(config: AcceptSettings) -> dict[str, object]:
    """Returns the figures of both and of an untrained encoder, means over the seeds, and what SSQL misses."""
    torch.set_num_threads(1)
    mels, labels, neper = corpus(load(config.cache, [config.part])[0], config.utterances)
    train = mels[: len(mels) * 4 // 5]
    found: dict[str, list[dict[str, dict[str, float]]]] = {"untrained": [], "plain": [], "ssql": []}
    for seed in range(config.seed, config.seed + config.seeds):
        one = config.model_copy(update={"seed": seed})
        # Without this floor one cannot tell two pre-trainings that learned nothing from two that are equally good.
        torch.manual_seed(seed)
        encoders = {"untrained": SmallEncoder().eval(), "plain": pretrained(train, neper, one, False)}
        encoders["ssql"] = pretrained(train, neper, one, True)
        for name, encoder in encoders.items():
            found[name].append(figures_of(encoder, mels, labels, one))
    means = {name: mean_of(several) for name, several in found.items()}
    return {**means, "seeds": found, "missed": shortfalls(means["plain"], means["ssql"])}


def main() -> None:
    """Prints the figures; exits with 1 when the acceptance is missed."""
    parser = argparse.ArgumentParser(description="Checks SSQL against the same training in float.")
    parser.add_argument("--config", type=Path, required=True)
    arguments = parser.parse_args()
    found = accept(validate(AcceptSettings, read_yaml(arguments.config), str(arguments.config)))
    print(json.dumps(found))
    raise SystemExit(1 if found["missed"] else 0)


if __name__ == "__main__":
    main()
