"""Back ends by role and name, and the per-process cache of opened ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data_engine.core.errors import ConfigError
from data_engine.core.registry import lookup
from data_engine.core.signature import digest

ENTRY_POINTS = "data_engine.backends"

BACKENDS: dict[str, dict[str, str]] = {
    "diarization": {
        "pyannet": "data_engine.backends.diarizer_pyannet:PyanNetDiarizer",
        "pyannote": "data_engine.backends.diarizer_pyannote:PyannoteDiarizer",
    },
    "vad": {"silero": "data_engine.backends.vad_silero:SileroVad"},
    "speaker": {"resemblyzer": "data_engine.backends.speaker_resemblyzer:ResemblyzerEmbedder"},
    "asr": {
        "pocketsphinx": "data_engine.backends.asr_pocketsphinx:PocketsphinxRecognizer",
        "funasr": "data_engine.backends.asr_funasr:FunasrRecognizer",
        "nano": "data_engine.backends.asr_nano:NanoRecognizer",
        "whisper": "data_engine.backends.asr_whisper:WhisperRecognizer",
    },
    "aligner": {
        "neufa": "data_engine.backends.aligner_neufa:NeufaAligner",
        "ctc": "data_engine.backends.aligner_ctc:CtcAligner",
    },
    "emotion": {
        "prosody": "data_engine.backends.emotion_prosody:ProsodyEmotion",
        "emotion2vec": "data_engine.backends.emotion_funasr:FunasrEmotion",
    },
    "separation": {"hdemucs": "data_engine.backends.separation_hdemucs:HdemucsSeparator"},
    "squim": {"torchaudio": "data_engine.backends.quality_squim:Squim"},
    "quality": {
        "dnsmos": "data_engine.backends.quality_dnsmos:Dnsmos",
        "dnsmos-torch": "data_engine.backends.quality_dnsmos_torch:TorchDnsmos",
    },
    "codec": {
        "nano": "data_engine.backends.codec_nano:NanoCodec",
        "kmeans": "data_engine.backends.codec_kmeans:KMeansCodec",
        "step-audio": "data_engine.backends.codec_step_audio:StepAudioCodec",
    },
    "llm": {
        "bank": "data_engine.backends.llm_bank:ScriptBank",
        "vllm": "data_engine.backends.llm_vllm:VllmWriter",
    },
    "tts": {
        "espeak": "data_engine.backends.tts_espeak:EspeakSynthesizer",
        "flite": "data_engine.backends.tts_flite:FliteSynthesizer",
    },
    "pii": {
        "patterns": "data_engine.backends.pii.patterns:PatternDetector",
        "presidio": "data_engine.backends.pii.presidio:PresidioDetector",
    },
    "text_tokenizer": {"bpe": "data_engine.backends.text_bpe:BpeTokenizer"},
}
"""Role -> name -> "module:class", the embedded default first.

Third parties register `role.name` in the entry-point group.
"""

NOT_EMBEDDED = frozenset({"separation", "squim"})
"""Roles without an embedded default: their weights are the user's, and so is the choice."""


def build_backend(role: str, name: str, options: Mapping[str, Any]) -> Any:
    """Returns the back end, built but not opened.

    Raises:
        ConfigError: The name or an option is unknown.
    """
    builtin = {f"{role}.{n}": target for n, target in BACKENDS.get(role, {}).items()}
    adapter = lookup(f"{role} back end", f"{role}.{name}", builtin, ENTRY_POINTS)
    try:
        return adapter(**options)
    except TypeError as error:
        raise ConfigError(f"{role} back end '{name}': {error}") from error


class BackendCache:
    """Opened back ends of one process: weights are loaded once, however many stages use them."""

    def __init__(self) -> None:
        self._opened: dict[str, Any] = {}

    def __call__(self, role: str, name: str, options: Mapping[str, Any]) -> Any:
        """Returns the opened back end for a role."""
        key = digest([role, name, dict(options)])
        if key not in self._opened:
            backend = build_backend(role, name, options)
            backend.open()
            self._opened[key] = backend
        return self._opened[key]

    def close(self) -> None:
        """Closes all of them."""
        for backend in self._opened.values():
            backend.close()
        self._opened.clear()
