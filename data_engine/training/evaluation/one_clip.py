"""Step-Audio's tokenizing procedure, one clip at a time, on a FunASR folder and an ONNX tokenizer.

After the released inference code (stepfun-ai/Step-Audio, tokenizer.py): every clip becomes a WAV file in memory,
FunASR reads it and makes its features, the encoder runs on it alone, distances to all centroids are computed, then the
Whisper log-mel is made and the semantic network runs on it alone. Step-Audio runs the encoder as a streaming one, on
chunks of 240 ms with four chunks of look-back; the same weights go into FunASR's streaming class. Features are made of
the whole clip at once, which is cheaper than what Step-Audio does.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_engine.backends.protocols import CodeStreams, Wave
from data_engine.models.codec_views import normalise_peak
from data_engine.models.features import mel_filterbank
from data_engine.models.whisper_mel import BANDS, HOP, POINTS, SAMPLE_RATE
from data_engine.training.evaluation.figures import NotMeasuredError

Ints = npt.NDArray[np.int64]

_CHUNK, _LOOK_BACK = (0, 4, 5), 4
"""Frames of 60 ms before, in and after a chunk, and chunks of look-back, as in the released code."""


class OneClipTokenizer:
    """Both tokenizers, opened.

    Args:
        funasr: Folder of the linguistic tokenizer with `linguistic_tokenizer.npy`.
        semantic: `speech_tokenizer_v1.onnx`.
        chunks: Run the encoder on chunks as Step-Audio does; if not, on whole clips, which gives the codes of an
            offline encoder.

    Raises:
        NotMeasuredError: funasr or a file is not there.
    """

    def __init__(self, funasr: Path, semantic: Path, chunks: bool) -> None:
        try:
            import torch
            from funasr import AutoModel
        except ImportError as error:
            raise NotMeasuredError(f"needs the extra step-audio: {error.name or 'funasr'} is not installed") from error
        if not (funasr / "model.pt").is_file() or not (funasr / "linguistic_tokenizer.npy").is_file():
            raise NotMeasuredError(f"'{funasr}' is no FunASR folder with linguistic_tokenizer.npy")
        import onnxruntime

        quiet: dict[str, Any] = {"disable_update": True, "disable_pbar": True, "log_level": "ERROR"}
        self._loaded = AutoModel(model=str(funasr), device="cpu", ncpu=1, check_latest=False, **quiet)
        self._loaded.kwargs["frontend"].dither = 0.0
        self._streaming = _streaming_encoder(self._loaded) if chunks else None
        self._means = torch.from_numpy(np.load(funasr / "linguistic_tokenizer.npy"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(semantic), options, providers=["CPUExecutionProvider"])
        self._filters = torch.from_numpy(np.array(mel_filterbank(SAMPLE_RATE, POINTS, BANDS, 0.0, SAMPLE_RATE / 2)))

    def tokenize(self, wave: Wave) -> CodeStreams:
        """Returns the codes of one clip."""
        normal = normalise_peak(wave)
        return CodeStreams(self._linguistic(normal).astype(np.uint16), self._semantic(normal).astype(np.uint16))

    def _linguistic(self, wave: Wave) -> Ints:
        import soundfile
        import torch
        from funasr.utils.load_utils import extract_fbank, load_audio_text_image_video

        file = io.BytesIO()
        soundfile.write(file, wave, SAMPLE_RATE, format="WAV", subtype="FLOAT")
        file.seek(0)
        frontend = self._loaded.kwargs["frontend"]
        with torch.no_grad():
            loaded = load_audio_text_image_video([_decoded(file)], fs=frontend.fs, audio_fs=SAMPLE_RATE)
            features, lengths = extract_fbank(loaded, data_type="sound", frontend=frontend)
            states = self._states(features, lengths)
            indices: Ints = torch.cdist(states[0].float(), self._means).argmin(dim=1).cpu().numpy()
        return indices

    def _states(self, features: Any, lengths: Any) -> Any:
        import torch

        if self._streaming is None:
            return self._loaded.model.encode(features, lengths)[0]
        before, width, after = _CHUNK
        past = torch.zeros(1, before + after, features.shape[2])
        cache = {"start_idx": 0, "chunk_size": list(_CHUNK), "encoder_chunk_look_back": _LOOK_BACK, "feats": past,
                 "opt": None, "tail_chunk": False, "last_chunk": False}  # fmt: skip
        pieces = features.split(width, dim=1)
        found = [self._streaming.forward_chunk(piece.clone(), lengths, cache=cache)[0] for piece in pieces]
        return torch.cat([states[:, before : before + width] for states in found], dim=1)

    def _semantic(self, wave: Wave) -> Ints:
        import torch

        found = []
        for start in range(0, len(wave), 30 * SAMPLE_RATE):
            piece = torch.from_numpy(wave[start : start + 30 * SAMPLE_RATE])
            if len(piece) >= 480:
                mel = _log_mel(piece, self._filters).numpy()[None]
                names = [entry.name for entry in self._session.get_inputs()]
                inputs = dict(zip(names, (mel, np.array([mel.shape[2]], np.int32)), strict=True))
                found += self._session.run(None, inputs)[0].flatten().tolist()
        return np.array(found, np.int64)


def _streaming_encoder(loaded: Any) -> Any:
    """Returns FunASR's streaming encoder with the weights of a loaded offline one."""
    from funasr.models.scama.encoder import SANMEncoderChunkOpt

    shape = dict(loaded.kwargs["encoder_conf"]) | {"input_layer": "pe_online"}
    encoder = SANMEncoderChunkOpt(
        input_size=loaded.kwargs["input_size"], chunk_size=[12, 15], stride=[8, 10], pad_left=[0, 0],
        encoder_att_look_back_factor=[4, 4], decoder_att_look_back_factor=[1, 1], **shape,
    )  # fmt: skip
    encoder.load_state_dict(loaded.model.encoder.state_dict())
    return encoder.eval()


def _decoded(file: io.BytesIO) -> Any:
    import soundfile
    import torch

    return torch.from_numpy(soundfile.read(file, dtype="float32")[0])


def _log_mel(wave: Any, filters: Any) -> Any:
    """Returns Whisper's log-mel of one clip with torch, [128, frames]."""
    import torch

    spectrum = torch.stft(wave, POINTS, HOP, window=torch.hann_window(POINTS), return_complex=True)
    levels = (filters @ spectrum[:, :-1].abs().square()).clamp(min=1e-10).log10()
    return (torch.maximum(levels, levels.max() - 8.0) + 4.0) / 4.0
