"""NeuFA, small: text and speech attend to each other, and the two attentions say when each phone is heard.

After Li et al. 2022 (arXiv 2203.16838), written from the paper. Smaller: 40 mel bands, size 96, one dot attention of
64, a learned Gaussian of the relative position in place of the two position predictors, and a Viterbi search
(`models.neufa_features.phone_spans`) in place of the boundary detector.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from data_engine.models.neufa_features import MEL
from data_engine.models.onnx_storage import store_halves

SIZE, ATTENTION, KERNEL = 96, 64, 9
_WIDTH = 0.15
_NEVER = -1e4


class Encoder(nn.Module):
    """Two convolutions and a bidirectional GRU: [batch, places, SIZE] to [batch, places, 2 SIZE]."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv1d(SIZE, SIZE, KERNEL, padding=KERNEL // 2) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(SIZE) for _ in range(2))
        self.onward, self.back = (nn.GRU(SIZE, SIZE, batch_first=True) for _ in range(2))

    def forward(self, places: Tensor, lengths: Tensor | None) -> Tensor:
        """Returns states; `lengths` [batch], None for one utterance without padding."""
        mask = 1.0 if lengths is None else valid(lengths, places.shape[1])[..., None]
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            places = places + norm(torch.relu(convolution((places * mask).transpose(1, 2)).transpose(1, 2)))
        back = turned(self.back(turned(places, lengths))[0], lengths)
        return torch.cat([self.onward(places)[0], back], dim=2)


class NeuFA(nn.Module):
    """Aligner and its two decoders, which only training needs.

    Args:
        num_tokens: Phones it can read.
    """

    def __init__(self, num_tokens: int) -> None:
        super().__init__()
        self.embedding, self.bands = nn.Embedding(num_tokens, SIZE), nn.Linear(MEL.n_mels, SIZE)
        self.text, self.speech = Encoder(), Encoder()
        self.text_key, self.speech_key = nn.Linear(2 * SIZE, ATTENTION), nn.Linear(2 * SIZE, ATTENTION)
        self.no_text, self.no_speech = nn.Parameter(torch.zeros(ATTENTION)), nn.Parameter(torch.zeros(ATTENTION))
        self.width = nn.Parameter(torch.tensor(math.log(_WIDTH)))
        self.reader, self.phones = nn.GRU(2 * SIZE, SIZE, batch_first=True), nn.Linear(SIZE, num_tokens)
        self.speaker, self.mel = nn.GRU(2 * SIZE, SIZE, batch_first=True), nn.Linear(SIZE, MEL.n_mels)

    def encode(
        self, phones: Tensor, mel: Tensor, counts: Tensor | None, lengths: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Returns the states of the text [batch, phones, 2 SIZE] and of the speech [batch, frames, 2 SIZE]."""
        return self.text(self.embedding(phones), counts), self.speech(self.bands(mel), lengths)

    def scores(self, text: Tensor, speech: Tensor, counts: Tensor, lengths: Tensor) -> Tensor:
        """Returns how well phones and frames fit, [batch, phones + 1, frames + 1]: the last ones are nothing at all.

        Args:
            text: States of the text.
            speech: States of the speech.
            counts: Phones of each utterance.
            lengths: Frames of each utterance.
        """
        batch = text.shape[0]
        rows = torch.cat([self.text_key(text), self.no_text.expand(batch, 1, -1)], dim=1)
        columns = torch.cat([self.speech_key(speech), self.no_speech.expand(batch, 1, -1)], dim=1)
        fit = rows @ columns.transpose(1, 2) / math.sqrt(ATTENTION)
        near = self.prior(counts, lengths, text.shape[1], speech.shape[1])
        found: Tensor = fit + functional.pad(near, (0, 1, 0, 1))
        return found

    def prior(self, counts: Tensor, lengths: Tensor, phones: int, frames: int) -> Tensor:
        """Returns the logarithm of the Gaussian of the distance between relative positions, [batch, phones, frames]."""
        rows = (torch.arange(phones, device=counts.device) + 0.5) / counts[:, None]
        columns = (torch.arange(frames, device=counts.device) + 0.5) / lengths[:, None]
        away = rows[:, :, None] - columns[:, None, :]
        return -(away**2) / (2 * torch.exp(2 * self.width))

    def decode(self, weights: tuple[Tensor, Tensor], text: Tensor, speech: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the phones [batch, phones, tokens] as heard and the mel bands [batch, frames, 40] as read."""
        heard = weights[0][:, :-1, :-1] @ speech
        read = weights[1][:, :-1, :-1].transpose(1, 2) @ text
        return self.phones(self.reader(heard)[0]), self.mel(self.speaker(read)[0])


def turned(places: Tensor, lengths: Tensor | None) -> Tensor:
    """Returns places [batch, places, size] backwards, the padding of each utterance still at its end.

    Packed sequences would do the same, in a time that grows with the square of their length.
    """
    if lengths is None:
        return places.flip(1)
    order = torch.arange(places.shape[1], device=places.device).expand(len(places), -1)
    order = torch.where(order < lengths[:, None], lengths[:, None] - 1 - order, order)
    return places.gather(1, order[..., None].expand_as(places))


def valid(lengths: Tensor, most: int) -> Tensor:
    """Returns which of `most` places are no padding, bool [batch, most]."""
    return torch.arange(most, device=lengths.device) < lengths[:, None]


def attentions(scores: Tensor, counts: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Returns log w1, over the frames for each phone, and log w2, over the phones for each frame; both as `scores`."""
    rows, columns = valid(counts, scores.shape[1] - 1), valid(lengths, scores.shape[2] - 1)
    rows, columns = functional.pad(rows, (0, 1), value=True), functional.pad(columns, (0, 1), value=True)
    over_frames = scores.masked_fill(~columns[:, None, :], _NEVER).log_softmax(dim=2)
    over_phones = scores.masked_fill(~rows[:, :, None], _NEVER).log_softmax(dim=1)
    return over_frames, over_phones


class ExportedNeuFA(nn.Module):
    """One utterance: mel [1, frames, 40] and phones [1, phones] to log w1 and log w2 [phones + 1, frames]."""

    def __init__(self, model: NeuFA) -> None:
        super().__init__()
        self.model = model

    def forward(self, mel: Tensor, phones: Tensor) -> tuple[Tensor, Tensor]:
        """Returns both attentions; their last row is a pause."""
        text, speech = self.model.encode(phones, mel, None, None)
        counts, lengths = (torch.ones_like(rows[:, :, 0]).sum(dim=1) for rows in (text, speech))
        scores = self.model.scores(text, speech, counts, lengths)
        return scores.log_softmax(dim=2)[0, :, :-1], scores.log_softmax(dim=1)[0, :, :-1]


def export(model: NeuFA, path: Path) -> None:
    """Writes the aligner as an ONNX file; weights that float16 holds exactly are stored so."""
    torch.onnx.export(
        ExportedNeuFA(model).eval(), (torch.zeros(1, 50, MEL.n_mels), torch.ones(1, 7, dtype=torch.int64)), str(path),
        dynamo=False, opset_version=17, input_names=["mel", "phones"], output_names=["log_w1", "log_w2"],
        dynamic_axes={"mel": {1: "frames"}, "phones": {1: "phones"}, "log_w1": {0: "rows", 1: "frames"},
                      "log_w2": {0: "rows", 1: "frames"}},
    )  # fmt: skip
    store_halves(path)
