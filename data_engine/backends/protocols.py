"""The roles models play, each a small protocol. The stage owns the glue, the adapter owns the model.

Every adapter is built from keyword options without loading anything, tells its `revision` without loading
anything, loads in `open` and frees in `close`. Waveforms are float32 [samples], mono, at `sample_rate`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from data_engine.core.errors import RecordError

Wave = npt.NDArray[np.float32]


@runtime_checkable
class Backend(Protocol):
    """What every adapter has."""

    @property
    def revision(self) -> str:
        """Version of code and weights; part of the signature, so known before anything is loaded."""
        ...

    def open(self) -> None:
        """Loads the weights. Raises MissingExtraError when a library is not installed."""
        ...

    def close(self) -> None:
        """Frees them."""
        ...


class VoiceActivityDetector(Backend, Protocol):
    """Role `vad`."""

    sample_rate: int
    hop: int

    def probabilities(self, blocks: Iterable[Wave]) -> npt.NDArray[np.float32]:
        """Returns the speech probability of each hop of a stream; state is kept over blocks."""
        ...


class SpeakerEmbedder(Backend, Protocol):
    """Role `speaker`."""

    sample_rate: int

    def embed(self, waves: Sequence[Wave]) -> npt.NDArray[np.float32]:
        """Returns unit-length embeddings [waves, dimensions]."""
        ...


@dataclass(frozen=True, slots=True)
class Word:
    """A word and where it is, in samples of the wave."""

    text: str
    start: int
    num_samples: int


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was heard; confidence is the mean word posterior, 0..1."""

    text: str
    words: tuple[Word, ...] = ()
    confidence: float | None = None


class Recognizer(Backend, Protocol):
    """Role `asr`."""

    sample_rate: int
    languages: frozenset[str]

    def transcribe(self, waves: Sequence[Wave], language: str) -> list[Transcript]:
        """Returns one transcript per wave; `language` is one of `languages`."""
        ...


class QualityModel(Backend, Protocol):
    """Role `quality`."""

    sample_rate: int

    def score(self, waves: Sequence[Wave]) -> npt.NDArray[np.float32]:
        """Returns signal, background and overall MOS, [waves, 3]."""
        ...


@dataclass(frozen=True, slots=True)
class CodeStreams:
    """Dual-codebook tokens of one wave: uint16 [n02] at 16.67 Hz and uint16 [n06] at 25 Hz."""

    vq02: npt.NDArray[np.uint16]
    vq06: npt.NDArray[np.uint16]


class Codec(Backend, Protocol):
    """Role `codec`. `revision` is the tokenizer hash stamped into every record."""

    sample_rate: int
    quant_bits: int

    def encode(self, waves: Sequence[Wave]) -> list[CodeStreams]:
        """Returns the codes of each wave."""
        ...

    def decode(self, streams: Sequence[CodeStreams], speakers: Sequence[npt.NDArray[np.float32]]) -> list[Wave]:
        """Returns a waveform per stream; 120 ms per complete group. `speakers` may be ignored."""
        ...


@dataclass(frozen=True, slots=True)
class Brief:
    """What dialogue to write."""

    brief_id: str
    language: str
    axis: str
    seed: int


class ScriptWriter(Backend, Protocol):
    """Role `llm`."""

    def write(self, briefs: Sequence[Brief]) -> Sequence[dict[str, Any] | RecordError]:
        """Returns, per brief, {persona, tools, turns} as in schema script.v1 (tools as a list, not JSON).

        A brief that cannot be written is raised as RecordError, upon which each is asked for alone, or, where asking
        is dear, returned in its place.
        """
        ...


@dataclass(frozen=True, slots=True)
class VoicePrompt:
    """The consented voice a synthesizer is to sound like."""

    voice_id: str
    wave: Wave
    sample_rate: int
    text: str | None
    embedding: npt.NDArray[np.float32]
    f0_median_hz: float | None = None
    f0_std_semitones: float | None = None


@dataclass(frozen=True, slots=True)
class SpeechRequest:
    """One utterance to speak, with the controls asked for."""

    text: str
    language: str
    voice: VoicePrompt
    seed: int
    emotion: str = "neutral"
    level: int = 1
    dialect: str | None = None
    speed: str = "normal"


@dataclass(frozen=True, slots=True)
class Speech:
    """A synthesized utterance and the parameters the controls came to."""

    wave: Wave
    sample_rate: int
    parameters: Mapping[str, Any] = field(default_factory=dict)


class Synthesizer(Backend, Protocol):
    """Role `tts`."""

    languages: frozenset[str]

    def speak(self, requests: Sequence[SpeechRequest]) -> list[Speech]:
        """Returns one utterance per request. Raises RecordError for a control it does not have."""
        ...


class TextTokenizer(Backend, Protocol):
    """Role `text_tokenizer`: text ids 0..65535 and the special tokens by name."""

    def encode(self, text: str) -> list[int]:
        """Returns text ids; special tokens in the text are not interpreted."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of text ids."""
        ...

    def specials(self) -> Mapping[str, int]:
        """Returns the id of each special token by name."""
        ...
