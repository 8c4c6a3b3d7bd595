"""The linguistic tokenizer's encoder: FunASR's SANMEncoder with a CTC head, and its layout as a FunASR folder.

Gao et al. 2020 (arXiv 2006.01713) describe SAN-M; Step-Audio (arXiv 2502.11946, sec. 3.1) takes the encoder of a
Paraformer as its linguistic tokenizer, and so does this one, in the same folder layout.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from data_engine.models.kaldi_fbank import BANDS, LFR_STACK

INPUT_SIZE = BANDS * LFR_STACK
ENCODER: dict[str, Any] = {
    "output_size": 256, "attention_heads": 4, "linear_units": 768, "num_blocks": 6, "dropout_rate": 0.0,
    "positional_dropout_rate": 0.0, "attention_dropout_rate": 0.0, "input_layer": "pe", "kernel_size": 11,
    "sanm_shfit": 0, "normalize_before": True, "selfattention_layer_type": "sanm",
}  # fmt: skip
"""`encoder_conf` of the FunASR folder; the misspelt key is FunASR's own."""


class LinguisticEncoder(nn.Module):
    """Encoder and heads.

    Args:
        num_tokens: Tokens of the CTC head, blank first.
        encoder: `encoder_conf` of FunASR's SANMEncoder.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, num_tokens: int, encoder: dict[str, Any]) -> None:
        from funasr.models.sanm.encoder import SANMEncoder

        super().__init__()
        self.encoder = SANMEncoder(input_size=INPUT_SIZE, **encoder)
        size = int(encoder["output_size"])
        self.ctc = nn.Linear(size, num_tokens)
        self.frame = nn.Linear(size, num_tokens)
        self.register_buffer("mean", torch.zeros(INPUT_SIZE))
        self.register_buffer("scale", torch.ones(INPUT_SIZE))

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns states [batch, frames, size], CTC logits and frame logits [batch, frames, tokens].

        Args:
            features: Stacked filterbanks [batch, frames, 560], not yet normalised.
            lengths: Frames of each utterance [batch].
        """
        states, _, _ = self.encoder((features + self.mean) * self.scale, lengths)
        return states, self.ctc(states), self.frame(states)


class ExportedEncoder(nn.Module):
    """One utterance at a time, without masks, for ONNX: features [1, frames, 560] to states and CTC log posteriors."""

    def __init__(self, model: LinguisticEncoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Returns states [1, frames, size] and log posteriors [1, frames, tokens]."""
        encoder = self.model.encoder
        hidden = (features + self.model.mean) * self.model.scale * encoder.output_size() ** 0.5
        hidden = hidden + positions(features.shape[1], hidden)
        for block in (*encoder.encoders0, *encoder.encoders):
            hidden = block(hidden, None)[0]
        states = encoder.after_norm(hidden)
        return states, torch.log_softmax(self.model.ctc(states), dim=-1)


def positions(count: Any, like: Tensor) -> Tensor:
    """Returns FunASR's sinusoidal positions, which count from one, [1, count, depth of `like`]."""
    depth = like.shape[-1]
    step = torch.log(torch.tensor(10000.0)) / (depth / 2 - 1)
    rates = torch.exp(torch.arange(depth / 2) * -step)
    angles = (torch.arange(count) + 1.0).reshape(1, -1, 1) * rates.reshape(1, 1, -1)
    return torch.cat([torch.sin(angles), torch.cos(angles)], dim=2)
