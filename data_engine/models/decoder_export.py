"""Token decoder and vocoder as the ONNX files that `backends.codec_speech` reads."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from data_engine.models.onnx_storage import store_halves
from data_engine.models.token_decoder import MEL_BANDS, SPEAKER_SIZE, CodeConditioner, FlowEstimator, sample
from data_engine.models.vocoder import Vocoder


class ExportedDecoder(nn.Module):
    """Codes, speaker and noise to natural log mel, with the Euler steps of the flow unrolled.

    Args:
        conditioner: Trained.
        flow: Trained.
        steps: Euler steps; 0 gives the deterministic estimate alone.
        mean: Of the natural log mel in training.
        scale: Its deviation.
    """

    def __init__(
        self, conditioner: CodeConditioner, flow: FlowEstimator, steps: int, mean: float, scale: float
    ) -> None:
        super().__init__()
        self.conditioner, self.flow, self.steps, self.mean, self.scale = conditioner, flow, steps, mean, scale

    def forward(self, linguistic: Tensor, semantic: Tensor, speaker: Tensor, noise: Tensor) -> Tensor:
        """Returns natural log mel [batch, 12 groups, 80]."""
        states, estimate = self.conditioner(linguistic, semantic, speaker)
        mel = sample(self.flow, estimate, states, speaker, noise, self.steps) if self.steps else estimate + 0 * noise
        return mel * self.scale + self.mean


class ExportedVocoder(nn.Module):
    """Mel to log magnitude and phase; the inverse transform is `models.overlap_add`."""

    def __init__(self, vocoder: Vocoder) -> None:
        super().__init__()
        self.vocoder = vocoder

    def forward(self, mel: Tensor) -> Tensor:
        """Returns [batch, frames, 2 bins] of natural log mel [batch, frames, 80]."""
        hidden = self.vocoder.first(mel.transpose(1, 2)).transpose(1, 2)
        for block in self.vocoder.blocks:
            hidden = block(hidden)
        spectrum: Tensor = self.vocoder.spectrum(self.vocoder.norm(hidden))
        return spectrum


def export_decoder(module: ExportedDecoder, path: Path) -> None:
    """Writes decoder.onnx."""
    groups = 7
    example = (
        torch.zeros(1, 2 * groups, dtype=torch.int64), torch.zeros(1, 3 * groups, dtype=torch.int64),
        torch.zeros(1, SPEAKER_SIZE), torch.zeros(1, 12 * groups, MEL_BANDS),
    )  # fmt: skip
    torch.onnx.export(
        module.eval(), example, str(path), dynamo=False, opset_version=17,
        input_names=["linguistic", "semantic", "speaker", "noise"], output_names=["mel"],
        dynamic_axes={"linguistic": {1: "words"}, "semantic": {1: "sounds"}, "noise": {1: "frames"},
                      "mel": {1: "frames"}},
    )  # fmt: skip
    store_halves(path)


def export_vocoder(vocoder: Vocoder, path: Path) -> None:
    """Writes vocoder.onnx."""
    torch.onnx.export(
        ExportedVocoder(vocoder).eval(), (torch.zeros(1, 40, MEL_BANDS),), str(path), dynamo=False, opset_version=17,
        input_names=["mel"], output_names=["spectrum"],
        dynamic_axes={"mel": {1: "frames"}, "spectrum": {1: "frames"}},
    )  # fmt: skip
    store_halves(path)
