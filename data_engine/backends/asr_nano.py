"""Role `asr`, embedded: this project's own phone model, a lexicon and an n-gram model; English and Mandarin."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_engine.backends.codec_files import files_hash
from data_engine.backends.codec_nano import ENCODER, SMALL_BITS, network_file
from data_engine.backends.codec_nano import FOLDER as ENCODER_FOLDER
from data_engine.backends.ctc_words import (
    BLANK,
    Emissions,
    FoundWord,
    SearchSettings,
    WordSearch,
    read_lexicon,
)
from data_engine.backends.homophones import Homophones
from data_engine.backends.phone_posteriors import WINDOW, PhonePosteriors, phones_per_second
from data_engine.backends.protocols import Transcript, Wave, Word
from data_engine.core.errors import ConfigError
from data_engine.models.codec_views import normalise_peak
from data_engine.models.kaldi_fbank import CODE_SAMPLES, FRAME, SAMPLE_RATE, kaldi_fbank

WORDS_FOLDER = Path(__file__).parent.parent / "assets" / "asr_nano"
WORDS_FILES = ("tokens.txt", "en.lexicon.gz", "en.arpa.gz", "zh.lexicon.gz", "zh.arpa.gz", "zh.characters.arpa.gz")

_PAUSE = "pau"
_SILENT = 1e-4
"""Peak up to which there is nothing to recognize."""
_USUAL = 1.3
_STRETCHES = ((7.3, 0.87), (8.5, 1.0), (14.0, _USUAL), (float("inf"), 1.8))
"""Phones per second, and how far slower speech up to that pace is read to the encoder: CTC finds at most one phone in
a frame of 60 ms, and fast speech has more."""


class NanoRecognizer:
    """Role `asr`: words with times out of the posteriors of phones, 16 kHz.

    A transcript depends on its wave only. Confidence is the geometric mean posterior of the phones of the words, which
    is high when the phones are clear and not, as a word posterior, when no other words come near.

    Args:
        path: Folder with encoder.int8.onnx; the shipped codec's when not given.
        words: Folder with lexicons and language models; the shipped one when not given.
        bits: 8; 32 takes encoder.onnx, the float file of a training.
        threads: Threads of the network.
        search: Settings of the search by name, over those chosen for each language.
    """

    sample_rate = SAMPLE_RATE
    languages = frozenset({"en", "zh"})
    samples_per_frame = CODE_SAMPLES

    def __init__(
        self, path: str | None = None, words: str | None = None, bits: int = SMALL_BITS, threads: int = 1,
        search: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self._encoder_file = network_file(Path(path) if path else ENCODER_FOLDER, ENCODER, bits)
        self._words, self._threads = Path(words) if words else WORDS_FOLDER, threads
        try:
            self._settings = {language: SearchSettings(**(search or {})) for language in sorted(self.languages)}
        except TypeError as error:
            raise ConfigError(f"asr 'nano', option search: {error}") from error
        self.tokens: tuple[str, ...] = ()
        self._model: PhonePosteriors | None = None
        self._searches: dict[str, WordSearch] = {}
        self._homophones: Homophones | None = None

    @property
    def revision(self) -> str:
        """SHA-256 over encoder, lexicons and language models.

        Raises:
            ConfigError: A file is missing.
        """
        return files_hash([self._encoder_file, *(self._words / name for name in WORDS_FILES)])

    def open(self) -> None:
        """Loads the encoder and the words.

        Raises:
            ConfigError: A file is missing or not what it should be.
            MissingExtraError: onnxruntime or flashlight-text is not installed.
        """
        self._model = PhonePosteriors(self._encoder_file, self._words / "tokens.txt", self._threads)
        self.tokens = self._model.tokens
        lexicon = read_lexicon(self._words / "zh.lexicon.gz")
        syllables = [("".join(phones), phones) for phones in dict.fromkeys(phones for _, phones in lexicon)]
        self._homophones = Homophones(lexicon, self._words / "zh.characters.arpa.gz")
        words = {"en": read_lexicon(self._words / "en.lexicon.gz"), "zh": syllables}
        self._searches = {
            name: WordSearch(words[name], self._words / f"{name}.arpa.gz", self.tokens, _PAUSE, self._settings[name])
            for name in sorted(words)
        }

    def close(self) -> None:
        """Frees them."""
        self._model = self._homophones = None
        self._searches = {}

    def emissions(self, wave: Wave) -> Emissions:
        """Returns the log posterior of each of `tokens` in each frame of 60 ms, float32 [frames, tokens].

        Frame n is centred on sample 960 n + 200. Waves below 25 ms have no frame. Long ones go through the encoder in
        windows that overlap; only their features and posteriors are held whole.

        Args:
            wave: float32 [samples] at 16 kHz.
        """
        if len(wave) < FRAME:
            return np.zeros((0, len(self.tokens)), np.float32)
        return self._emissions(kaldi_fbank(normalise_peak(wave)), 1.0)

    def _emissions(self, bands: Emissions, stretch: float) -> Emissions:
        assert self._model is not None, "open() first"
        return self._model.emissions(bands, stretch)

    def transcribe(self, waves: Sequence[Wave], language: str) -> list[Transcript]:
        """Returns one transcript per wave; empty where no word was heard.

        Args:
            waves: float32 [samples] each, 16 kHz.
            language: `en` or `zh`; Mandarin comes as characters, one word each.

        Raises:
            ValueError: Another language.
        """
        if language not in self.languages:
            raise ValueError(f"nano knows {sorted(self.languages)}, not '{language}'")
        return [self._transcribe(wave, language) for wave in waves]

    def _transcribe(self, wave: Wave, language: str) -> Transcript:
        if np.abs(wave).max(initial=0.0) <= _SILENT or len(wave) < FRAME:
            return Transcript("")
        emissions, stretch = self._paced(kaldi_fbank(normalise_peak(wave)))
        search = self._searches[language]
        found = [
            FoundWord(word.text, word.first + start, word.end + start, word.log_posterior)
            for start, end in pieces(emissions)
            for word in search.words(emissions[start:end])
        ]
        frame, names = CODE_SAMPLES / stretch, [word.text for word in found]
        if language == "en":
            return timed(found, names, " ", len(wave), frame)
        assert self._homophones is not None, "open() first"
        return timed(found, self._homophones.spell(names), "", len(wave), frame)

    def _paced(self, bands: Emissions) -> tuple[Emissions, float]:
        """Returns the posteriors of speech slowed as its pace asks for, and by how much."""
        emissions = self._emissions(bands, _USUAL)
        pace = phones_per_second(emissions, self.tokens.index(_PAUSE), CODE_SAMPLES / SAMPLE_RATE / _USUAL)
        stretch = next(factor for most, factor in _STRETCHES if pace <= most)
        return (emissions if stretch == _USUAL else self._emissions(bands, stretch)), stretch


def timed(
    found: Sequence[FoundWord], names: Sequence[str], between: str, num_samples: int, frame: float = CODE_SAMPLES
) -> Transcript:
    """Returns the transcript of found words.

    Args:
        found: Words with frames.
        names: What to call them.
        between: What is between them in the text.
        num_samples: Length of the wave; no word passes its end.
        frame: Samples of a frame.
    """
    words = []
    for word, name in zip(found, names, strict=True):
        start, end = (min(int(place * frame), num_samples) for place in (word.first, word.end))
        words.append(Word(name, start, end - start))
    if not words:
        return Transcript("")
    confidence = float(np.exp(np.mean([word.log_posterior for word in found])))
    return Transcript(between.join(names), tuple(words), min(confidence, 1.0))


def pieces(emissions: Emissions) -> list[tuple[int, int]]:
    """Returns first and last frame, exclusive, of pieces to search alone, at most two windows long.

    A cut is where the blank has been likeliest for longest in the second half of a window.
    """
    cuts, start = [0], 0
    while len(emissions) - start > 2 * WINDOW:
        blank = emissions[start + WINDOW : start + 2 * WINDOW, BLANK]
        quiet = np.convolve(blank, np.ones(7), "same")
        start += WINDOW + int(quiet.argmax())
        cuts.append(start)
    return list(zip(cuts, [*cuts[1:], len(emissions)], strict=True))
