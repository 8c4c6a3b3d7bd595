"""Looks at this machine: libraries, weights, disk, memory; says what each missing thing costs."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

Finding = dict[str, str]

_LIBRARIES = (
    ("pyarrow", "core", "everything"),
    ("soundfile", "core", "decoding WAV, FLAC, Ogg"),
    ("av", "core", "decoding MP3, AAC, WebM, MP4"),
    ("onnxruntime", "embedded", "VAD, speaker embeddings, DNSMOS"),
    ("silero-vad", "weights", "VAD weights"),
    ("pocketsphinx", "embedded", "English transcripts"),
    ("flashlight-text", "embedded", "word error rates of synthetic takes (no wheel for Python 3.13)"),
    ("pyworld", "embedded", "pitch and timbre"),
    ("espeakng-loader", "embedded", "synthetic speech"),
    ("pyannote.audio", "demo", "the conversation that `make demo` runs on"),
    ("torch", "train", "data_engine.loader"),
    ("trl", "train", "preference training"),
    ("datasets", "train", "reading shards with Hugging Face datasets"),
)
_LOW_DISK_GIB = 5.0


def examine() -> list[Finding]:
    """Returns findings: {what, state: ok | missing | problem, detail}."""
    return [_python(), *(_library(*row) for row in _LIBRARIES), _backends(), _flite(), _disk(), _memory()]


def _finding(what: str, state: str, detail: str) -> Finding:
    return {"what": what, "state": state, "detail": detail}


def _python() -> Finding:
    supported = (3, 11) <= sys.version_info[:2] <= (3, 13)
    detail = f"{platform.python_version()} on {platform.machine()}" + ("" if supported else "; needs 3.11 to 3.13")
    return _finding("python", "ok" if supported else "problem", detail)


def _library(name: str, extra: str, purpose: str) -> Finding:
    try:
        return _finding(name, "ok", version(name))
    except PackageNotFoundError:
        remedy = f"pip install 'speech-data-engine[{extra}]'" if extra != "core" else "pip install speech-data-engine"
        return _finding(name, "problem" if extra == "core" else "missing", f"without it no {purpose}; {remedy}")


def _backends() -> Finding:
    """Opens nothing, but resolves the revision of each embedded back end, which finds missing weights."""
    from data_engine.backends.catalog import BACKENDS, NOT_EMBEDDED, build_backend
    from data_engine.core.errors import EngineError

    broken = []
    for role in BACKENDS.keys() - NOT_EMBEDDED:
        name = next(iter(BACKENDS[role]))
        try:
            _ = build_backend(role, name, {}).revision
        except (EngineError, ImportError, OSError) as error:
            broken.append(f"{role}.{name}: {error}")
    return _finding("embedded back ends", "problem" if broken else "ok", "; ".join(sorted(broken)) or "weights found")


def _flite() -> Finding:
    path = shutil.which("flite")
    return _finding("flite", "ok" if path else "missing", path or "optional second synthesizer (system package)")


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    return _finding("disk", "ok" if free > _LOW_DISK_GIB else "problem", f"{free:.1f} GiB free here")


def _memory() -> Finding:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    cuda = "torch found" if find_spec("torch") else "no torch"
    return _finding("memory and cores", "ok", f"{pages:.1f} GiB, {os.cpu_count()} cores, {cuda}")
