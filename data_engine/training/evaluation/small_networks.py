"""The networks that codes are probed with: a two-layer causal language model and a small convolutional CTC head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from data_engine.models.phones import TOKENS
from data_engine.models.semantic_tokenizer import ConvNextBlock
from data_engine.training.batches import UNKNOWN

Ints = npt.NDArray[np.int64]
View = Callable[[Ints], Ints]

_SIZE, _HEADS, _LAYERS = 256, 4, 2
_WINDOWS, _WINDOW_GROUPS = 16, 40
_UTTERANCES = 16
_WARMUP = 30


class CodeLanguageModel(nn.Module):
    """Two pre-norm transformer layers of 256 over ids, with learnt positions.

    Args:
        ids: How many; one more begins a window.
        positions: Ids of a window.
    """

    def __init__(self, ids: int, positions: int) -> None:
        super().__init__()
        self.begin = ids
        self.table = nn.Embedding(ids + 1, _SIZE)
        self.places = nn.Parameter(torch.zeros(positions, _SIZE))
        layer = nn.TransformerEncoderLayer(_SIZE, _HEADS, 4 * _SIZE, 0.1, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, _LAYERS, nn.LayerNorm(_SIZE), enable_nested_tensor=False)
        self.out = nn.Linear(_SIZE, ids)
        nn.init.normal_(self.table.weight, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        """Returns the cross-entropy in nats of each id given those before it, [windows, ids]."""
        begun = functional.pad(ids[:, :-1], (1, 0), value=self.begin)
        mask = nn.Transformer.generate_square_subsequent_mask(ids.shape[1])
        hidden = self.layers(self.table(begun) + self.places, mask=mask, is_causal=True)
        return functional.cross_entropy(self.out(hidden).float().transpose(1, 2), ids, reduction="none")


def train_language_model(groups: Ints, view: View, ids: int, steps: int, rate: float, seed: int) -> CodeLanguageModel:
    """Returns a model trained on random windows of 4.8 s.

    Args:
        groups: Of all training utterances, [groups, 5].
        view: What the model sees of them.
        ids: How many ids there are.
        steps: Batches of 16 windows.
        rate: Peak learning rate.
        seed: Of weights and windows; the windows are the same for every view.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = CodeLanguageModel(ids, len(view(groups[:_WINDOW_GROUPS])))

    def loss() -> Tensor:
        starts = rng.integers(0, len(groups) - _WINDOW_GROUPS + 1, _WINDOWS)
        windows = np.stack([view(groups[start : start + _WINDOW_GROUPS]) for start in starts])
        with torch.autocast("cpu", torch.bfloat16):
            cost: Tensor = model(torch.from_numpy(windows)).mean()
        return cost

    _train(model, loss, steps, rate)
    return model.eval()


def bits_of_windows(model: CodeLanguageModel, windows: Ints) -> npt.NDArray[np.float64]:
    """Returns the bits that each window [ids] costs."""
    with torch.inference_mode():
        nats = [
            model(torch.from_numpy(windows[n : n + 16])).sum(1).double().numpy() for n in range(0, len(windows), 16)
        ]
    bits: npt.NDArray[np.float64] = np.concatenate(nats) / np.log(2)
    return bits


@dataclass(frozen=True, slots=True, eq=False)
class HeadExample:
    """Ids of an utterance, the token at the centre of each, and its phones without pauses."""

    ids: Ints
    labels: Ints
    phones: Ints


class PhoneHead(nn.Module):
    """Embedded ids, three convolutional blocks, CTC and, in training, a label for each id.

    Args:
        ids: How many.
        size: Channels.
    """

    def __init__(self, ids: int, size: int = 192) -> None:
        super().__init__()
        self.table = nn.Embedding(ids, size)
        self.blocks = nn.ModuleList(ConvNextBlock(size, 2 * size) for _ in range(3))
        self.ctc = nn.Linear(size, len(TOKENS))
        self.frame = nn.Linear(size, len(TOKENS))

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Returns CTC logits and label logits, [utterances, ids, tokens]."""
        hidden = self.table(ids)
        for block in self.blocks:
            hidden = block(hidden)
        return self.ctc(hidden), self.frame(hidden)


def train_head(examples: Sequence[HeadExample], ids: int, steps: int, rate: float, seed: int) -> PhoneHead:
    """Returns a head trained with CTC (Graves et al. 2006) and labels, on utterances of about one length at a time.

    Labels, as in the training of both tokenizers: with CTC alone so few steps do not leave the blank.

    Args:
        examples: Utterances.
        ids: How many ids there are.
        steps: Batches of 16 utterances.
        rate: Peak learning rate.
        seed: Of weights and batches.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = PhoneHead(ids)
    order = np.argsort([len(example.ids) for example in examples], kind="stable")

    def loss() -> Tensor:
        start = int(rng.integers(0, max(len(order) - _UTTERANCES, 0) + 1))
        return _head_loss(model, [examples[int(n)] for n in order[start : start + _UTTERANCES]])

    _train(model, loss, steps, rate)
    return model.eval()


def _head_loss(model: PhoneHead, chosen: Sequence[HeadExample]) -> Tensor:
    seen = [torch.from_numpy(example.ids) for example in chosen]
    labels = [torch.from_numpy(example.labels) for example in chosen]
    with torch.autocast("cpu", torch.bfloat16):
        logits, marked = model(nn.utils.rnn.pad_sequence(seen, batch_first=True))
    said = torch.from_numpy(np.concatenate([example.phones for example in chosen]))
    lengths, counts = torch.tensor([len(s) for s in seen]), torch.tensor([len(e.phones) for e in chosen])
    posteriors = torch.log_softmax(logits.float(), -1).transpose(0, 1)
    ctc = functional.ctc_loss(posteriors, said, lengths, counts, reduction="sum", zero_infinity=True) / len(said)
    wanted = nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=UNKNOWN)
    return ctc + functional.cross_entropy(marked.float().flatten(0, 1), wanted.flatten(), ignore_index=UNKNOWN)


def head_paths(model: PhoneHead, utterances: Sequence[Ints]) -> list[Ints]:
    """Returns the best token of each id of each utterance."""
    with torch.inference_mode():
        return [model(torch.from_numpy(ids)[None])[0][0].argmax(-1).numpy() for ids in utterances]


def _train(model: nn.Module, loss: Callable[[], Tensor], steps: int, rate: float) -> None:
    """Trains with AdamW, a linear warm-up and a linear fall to a tenth."""
    torch.set_num_threads(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min((step + 1) / _WARMUP, 1.0) * (1 - 0.9 * step / steps)
        optimizer.zero_grad(set_to_none=True)
        loss().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
