"""What the embedded phone model hears: posteriors of phones per frame, for its recognizer and its aligner."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from data_engine.backends.ctc_words import BLANK, Emissions
from data_engine.backends.semantic_session import onnx_session
from data_engine.core.errors import ConfigError
from data_engine.models.kaldi_fbank import LFR_STEP, low_frame_rate

WINDOW, MARGIN = 330, 15
"""Frames the encoder sees at once, 19.8 s, and of those at either inner edge that only give context, 0.9 s."""


class PhonePosteriors:
    """An opened phone model.

    Args:
        encoder: ONNX file.
        tokens: File with the name of each of its tokens.
        threads: Of the network.

    Raises:
        ConfigError: A file is missing or not what it should be.
        MissingExtraError: onnxruntime is not installed.
    """

    def __init__(self, encoder: Path, tokens: Path, threads: int) -> None:
        self._session: Any = onnx_session(encoder, "cpu", threads)
        try:
            self.tokens = tuple(tokens.read_text(encoding="utf-8").splitlines())
        except OSError as error:
            raise ConfigError(f"cannot read the phones of the model '{encoder}': {error}") from error
        width = self._session.get_outputs()[1].shape[-1]
        if isinstance(width, int) and width != len(self.tokens):
            raise ConfigError(f"'{encoder}' has {width} tokens; '{tokens.parent}' names {len(self.tokens)}")

    def emissions(self, bands: Emissions, stretch: float = 1.0) -> Emissions:
        """Returns the log posterior of each token in each frame of 60 ms, float32 [frames, tokens].

        Long ones go through the encoder in windows that overlap; only their features and posteriors are held whole.

        Args:
            bands: Kaldi filterbanks every 10 ms, [frames, 80], at least one.
            stretch: How many times slower they are heard, at the same pitch.
        """
        features = low_frame_rate(bands if stretch == 1.0 else slowed(bands, stretch))
        step = WINDOW - 2 * MARGIN
        if len(features) <= WINDOW:
            return self._posteriors(features)
        found = []
        for start in range(0, len(features), step):
            begin = max(start - MARGIN, 0)
            rows = self._posteriors(features[begin : start + step + MARGIN])
            found.append(rows[start - begin :][:step])
        return np.concatenate(found)

    def dense_emissions(self, bands: Emissions, stretch: float, passes: int) -> Emissions:
        """Returns log posteriors `passes` times as often, each the mean of as many neighbours.

        The frames of one pass lie between those of another; the mean keeps a phone that one pass alone heard.

        Args:
            bands: Kaldi filterbanks every 10 ms, [frames, 80], at least one.
            stretch: As `emissions`.
            passes: Of the encoder: 1, 2, 3 or 6.
        """
        step, heard = LFR_STEP // passes, bands if stretch == 1.0 else slowed(bands, stretch)
        count = -(-len(heard) // step)
        found = [self.emissions(heard[shift * step :]) for shift in range(min(passes, count))]
        dense = np.zeros((passes * len(found[0]), len(self.tokens)), np.float32)
        for shift, rows in enumerate(found):
            dense[shift::passes][: len(rows)] = rows
        posteriors = np.exp(dense[:count])
        beside = np.pad(posteriors, ((passes // 2, (passes - 1) // 2), (0, 0)), mode="edge")
        means = np.lib.stride_tricks.sliding_window_view(beside, passes, axis=0).mean(axis=-1)
        return np.asarray(np.log(np.maximum(means, np.finfo(np.float32).tiny)), np.float32)

    def _posteriors(self, features: Emissions) -> Emissions:
        posteriors: Emissions = self._session.run(["log_posteriors"], {"features": features[None]})[0][0]
        return posteriors


def slowed(bands: Emissions, factor: float) -> Emissions:
    """Returns frames [frames, bands] interpolated to `factor` times their number: slower speech at the same pitch."""
    places = np.minimum(np.arange(math.ceil(len(bands) * factor)) / factor, len(bands) - 1)
    before = places.astype(np.int64)
    after, share = np.minimum(before + 1, len(bands) - 1), (places - before)[:, None].astype(np.float32)
    return np.asarray((1 - share) * bands[before] + share * bands[after], np.float32)


def phones_per_second(emissions: Emissions, pause: int, seconds: float) -> float:
    """Returns the pace of the best path: phones over the time that is no pause.

    Args:
        emissions: Log posteriors [frames, tokens].
        pause: Token of silence.
        seconds: Of a frame.
    """
    best = emissions.argmax(axis=1)
    begun = best[np.diff(best, prepend=-1) != 0]
    spoken = int((emissions[:, pause] < np.log(0.5)).sum())
    return float(((begun != BLANK) & (begun != pause)).sum() / max(spoken * seconds, 0.1))
