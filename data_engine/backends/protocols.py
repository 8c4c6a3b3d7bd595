"""The roles models play, each a small protocol. The stage owns the glue, the adapter owns the model.

Every adapter is built from keyword options without loading anything, tells its `revision` without loading
anything, loads in `open` and frees in `close`. Waveforms are float32 [samples], mono, at `sample_rate`.
The roles that take a recording apart (diarization, alignment, emotion, separation) are in `protocols_listening`.
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
    """What was heard, and what else the recognizer says of it, where it says it.

    Attributes:
        text: What was said; empty when nothing was heard.
        words: With times, in the order of the text.
        confidence: Mean posterior of words or tokens, 0..1.
        language: That the recognizer found; None when it was told which one.
        language_confidence: Its posterior, 0..1.
        emotion: Of the speaker, in lower case: `happy`, `neutral`, ...
        events: Sounds in the clip, in lower case: `speech`, `laughter`, `bgm`, ...
        no_speech: Posterior that nobody speaks, 0..1.
    """

    text: str
    words: tuple[Word, ...] = ()
    confidence: float | None = None
    language: str | None = None
    language_confidence: float | None = None
    emotion: str | None = None
    events: tuple[str, ...] | None = None
    no_speech: float | None = None


class Recognizer(Backend, Protocol):
    """Role `asr`."""

    sample_rate: int
    languages: frozenset[str]

    def transcribe(self, waves: Sequence[Wave], language: str) -> list[Transcript]:
        """Returns one transcript per wave; `language` is one of `languages`."""
        ...


class LanguageFinder(Recognizer, Protocol):
    """A recognizer that may also be asked without a language: it finds out which is spoken, clip by clip.

    Not a role of its own: the models that tell a language are recognizers that do so on the way, and their text
    follows from what they decide.
    """

    finds_language: bool

    def transcribe(self, waves: Sequence[Wave], language: str | None) -> list[Transcript]:
        """Returns one transcript per wave; without `language`, each says which it is, or None where nobody speaks."""
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


@dataclass(frozen=True, slots=True)
class PiiSpan:
    """Personal data in a text: its kind, characters [start, end), and how sure the finder is, 0..1."""

    kind: str
    start: int
    end: int
    score: float


class PiiDetector(Backend, Protocol):
    """Role `pii`: EMAIL, PHONE, CARD, IBAN, NATIONAL_ID, IP, PERSON, or another kind of its own."""

    kinds: frozenset[str]

    def find(self, texts: Sequence[str], language: str | None) -> list[list[PiiSpan]]:
        """Returns, per text in `language` (None: unknown), the spans in order, none overlapping another."""
        ...
