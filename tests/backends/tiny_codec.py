"""Tiny untrained checkpoints in the libraries' own on-disk formats, written by the project's writers."""

import numpy as np
import torch

from data_engine.models.decoder_export import ExportedDecoder, export_decoder, export_vocoder
from data_engine.models.semantic_tokenizer import SemanticEncoder, export
from data_engine.models.token_decoder import CodeConditioner, FlowEstimator
from data_engine.models.vocoder import Vocoder
from data_engine.models.whisper_mel import whisper_log_mel

SIZE = 256


class OneLayer(torch.nn.Module):
    """A stand-in for the linguistic network with its inputs and outputs, where FunASR is not installed."""

    def __init__(self, size=SIZE):
        super().__init__()
        self.states = torch.nn.Linear(560, size)

    def forward(self, features):
        states = torch.tanh(self.states(features / 10))
        return states, torch.log_softmax(states, dim=-1)


def write_semantic(folder, wave):
    torch.manual_seed(1)
    encoder = SemanticEncoder(32, 64, 2).train()
    mel = torch.from_numpy(whisper_log_mel(wave[:160000]).T.copy())[None]
    with torch.no_grad():  # the statistics training would leave, so that more than a handful of codes are used
        for _ in range(40):
            encoder(mel)
    export(encoder.eval(), str(folder / "speech_tokenizer_v1.onnx"))


def write_codebook(folder, states):
    """Writes states of real speech as the codebook, far enough apart that rounding decides nothing."""
    chosen = np.random.default_rng(0).choice(len(states), 64, replace=False)
    np.save(folder / "linguistic_tokenizer.npy", states[np.sort(chosen)].astype(np.float32))


def write_decoder(folder):
    torch.manual_seed(2)
    codebook = torch.from_numpy(np.load(folder / "linguistic_tokenizer.npy"))
    conditioner = CodeConditioner(torch.nn.functional.pad(codebook, (0, 0, 0, 1024 - len(codebook))), 32, 64)
    flow = FlowEstimator(32, 64, 2)
    torch.nn.init.normal_(flow.last.weight, std=0.1)  # zero before training: nothing would depend on anything
    export_decoder(ExportedDecoder(conditioner, flow, 3, -5.0, 2.5), folder / "decoder.onnx")
    vocoder = Vocoder(32, 64, 2)
    export_vocoder(vocoder, folder / "vocoder.onnx")
    return vocoder.eval()


def write_nano(folder, wave):
    """Writes a whole folder of codec `nano` around a one-layer linguistic network; returns the vocoder."""
    from data_engine.models.kaldi_fbank import kaldi_fbank, low_frame_rate

    torch.manual_seed(0)
    network = OneLayer().eval()
    torch.onnx.export(
        network, (torch.zeros(1, 9, 560),), str(folder / "encoder.onnx"), dynamo=False, opset_version=17,
        input_names=["features"], output_names=["states", "log_posteriors"],
        dynamic_axes={name: {1: "frames"} for name in ("features", "states", "log_posteriors")},
    )  # fmt: skip
    with torch.inference_mode():
        states = network(torch.from_numpy(low_frame_rate(kaldi_fbank(wave)))[None])[0][0].numpy()
    write_codebook(folder, states)
    write_semantic(folder, wave)
    return write_decoder(folder)
