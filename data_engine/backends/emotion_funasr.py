"""Role `emotion`, production: emotion2vec+ (arXiv 2312.15185) through FunASR's `AutoModel`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from data_engine.backends.funasr_loading import checked_name, load_funasr, model_revision
from data_engine.backends.protocols import Wave
from data_engine.backends.protocols_listening import Emotion
from data_engine.backends.semantic_session import length_batches
from data_engine.core.errors import ConfigError

SAMPLE_RATE = 16000

_SILENT = 1e-4
_FRAMES_PER_SECOND = 50
_UNUSED, _UNKNOWN = "unuse", "<unk>"
_DIGITS = 5
"""Of a posterior: the neighbours of a clip in a batch may change the digits after them."""


class FunasrEmotion:
    """emotion2vec+ seed, base or large over whole clips, in batches of similar length.

    The library judges clips one by one, and a batch of its own would let padding leak through five convolutions; here
    padding is silenced before each of them, so that an emotion depends on its wave only.

    Args:
        model: Folder in FunASR's layout, or a hub id (`iic/emotion2vec_plus_base`).
        hub: Where a hub id is looked up: `ms` (ModelScope) or `hf` (Hugging Face).
        model_revision: Commit or tag of a hub id; needed, since a moving branch would be another model each day.
        offline: Take a hub id from the local cache only.
        device: `cpu`, `cuda` or `cuda:N`.
        batch_size_s: Seconds of audio, with padding, that the network sees at once.
        threads: Threads of the network on the CPU.
    """

    sample_rate = SAMPLE_RATE

    def __init__(
        self, model: str | None = None, hub: Literal["ms", "hf"] = "ms", model_revision: str | None = None,
        offline: bool = True, device: str = "cpu", batch_size_s: float = 120.0, threads: int = 1,
    ) -> None:  # fmt: skip
        if hub not in ("ms", "hf"):
            raise ConfigError(f"emotion 'emotion2vec', option hub: 'ms' or 'hf', not '{hub}'")
        self._name, self._hub, self._model_revision = model or "", hub, model_revision
        self._offline, self._device, self._threads = offline, device, threads
        self._batch_frames = max(int(batch_size_s * _FRAMES_PER_SECOND), 1)
        self.emotions: tuple[str, ...] = ()
        self._listener: _Listener | None = None

    @property
    def revision(self) -> str:
        """SHA-256 over the files of a folder; of a hub id, its name and revision stand for them.

        Raises:
            ConfigError: A file is missing, or a hub id has no revision.
        """
        return model_revision(self._checked_name(), self._hub, self._model_revision)

    def open(self) -> None:
        """Loads the model.

        Raises:
            MissingExtraError: funasr or torch is not installed.
            ConfigError: The model is not there, or is no emotion2vec that names emotions.
        """
        needed_by = ("asr-funasr", "emotion 'emotion2vec'")
        place = (self._hub, self._model_revision, self._offline, needed_by)
        loaded = load_funasr(self._checked_name(), self._device, self._threads, *place)
        self._listener = _Listener(loaded, self._device)
        self.emotions = tuple(name for name in self._listener.names if name is not None)

    def recognize(self, waves: Sequence[Wave]) -> list[Emotion | None]:
        """Returns the likeliest emotion of each wave; None in silence, below 25 ms, and where it is `<unk>`.

        Args:
            waves: float32 [samples] each, 16 kHz.
        """
        assert self._listener is not None, "open() first"
        frames = [self._listener.frames(len(wave)) for wave in waves]
        sounding = [n for n, wave in enumerate(waves) if frames[n] > 0 and np.abs(wave).max() > _SILENT]
        found: list[Emotion | None] = [None] * len(waves)
        lengths = [frames[number] for number in sounding]
        for batch in length_batches(lengths, self._batch_frames, self._listener.equal_lengths):
            chosen = [sounding[position] for position in batch]
            posteriors = self._listener.posteriors([waves[number] for number in chosen])
            for number, row in zip(chosen, posteriors, strict=True):
                name = self._listener.names[int(row.argmax())]
                found[number] = Emotion(name, round(float(row.max()), _DIGITS)) if name is not None else None
        return found

    def close(self) -> None:
        """Frees it."""
        self._listener = None

    def _checked_name(self) -> str:
        return checked_name(self._name, self._model_revision, "emotion 'emotion2vec'")


def emotion_name(token: str) -> str | None:
    """Returns our name for a token such as `生气/angry`; None for `<unk>` and tokens without a meaning."""
    if token == _UNKNOWN or token.startswith(_UNUSED):
        return None
    return token.rpartition("/")[2].strip().lower()


class _Listener:
    """The loaded network, many clips at a time.

    Attributes:
        names: Of each output; None where it names no emotion.
        equal_lengths: Whether only clips of one length may be judged together.
    """

    def __init__(self, loaded: Any, device: str) -> None:
        from torch import nn

        self._model, self._device = loaded.model, device
        self._keep: Any = None
        tokens = getattr(loaded.kwargs.get("tokenizer"), "token_list", None)
        if getattr(self._model, "proj", None) is None or not hasattr(self._model, "modality_encoders") or not tokens:
            raise ConfigError(
                "emotion 'emotion2vec' knows the emotion2vec_plus models, which name emotions, not this "
                f"{type(self._model).__name__}"
            )
        self.names = tuple(map(emotion_name, tokens))
        self._unused = [number for number, token in enumerate(tokens) if token.startswith(_UNUSED)]
        self._encoder = self._model.modality_encoders["AUDIO"]
        # Its other mode normalises over time, which a padded clip would change.
        self.equal_lengths = str(self._encoder.modality_cfg.extractor_mode) != "layer_norm"
        for module in self._encoder.relative_positional_encoder.modules():
            if isinstance(module, nn.Conv1d):
                module.register_forward_pre_hook(self._silence_padding)

    def frames(self, num_samples: int) -> int:
        """Returns how many frames the feature extractor makes of so many samples."""
        for _, kernel, stride in self._encoder.feature_enc_layers:
            num_samples = max(num_samples - kernel, -stride) // stride + 1
        return num_samples

    def posteriors(self, waves: Sequence[Wave]) -> Any:
        """Returns the posteriors of each wave, float32 [waves, outputs]."""
        import torch

        lengths = torch.tensor([len(wave) for wave in waves], device=self._device)
        frames = torch.tensor([self.frames(len(wave)) for wave in waves], device=self._device)
        with torch.inference_mode():
            source = torch.nn.utils.rnn.pad_sequence([self._normalised(wave) for wave in waves], batch_first=True)
            padding = torch.arange(source.shape[1], device=self._device) >= lengths[:, None]
            heard = torch.arange(int(frames.max()), device=self._device) < frames[:, None]
            self._keep = heard[:, None].to(source.dtype)
            states = self._model.extract_features(source, padding_mask=padding)["x"]
            means = (states * heard[..., None]).sum(dim=1) / frames[:, None]
            scores = self._model.proj(means)
            scores[:, self._unused] = -torch.inf
            return torch.softmax(scores.float(), dim=-1).cpu().numpy()

    def _normalised(self, wave: Wave) -> Any:
        import torch

        source = torch.from_numpy(np.ascontiguousarray(wave, np.float32)).to(self._device)
        return torch.nn.functional.layer_norm(source, source.shape) if self._model.cfg.normalize else source

    def _silence_padding(self, _: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Zeros the padding of [clips, channels, frames], as a convolution sees it beyond the end of a lone clip."""
        return (inputs[0] * self._keep,)
