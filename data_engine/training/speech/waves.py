"""The corpus as training reads it: one long int16 wave per part with an index, made once from its shards."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_engine.io.audio import decode_bytes
from data_engine.loader import ShardDataset
from data_engine.models.phones import PAUSE, TOKEN_IDS
from data_engine.training.speech.teacher_flite import pronounce

Ints = npt.NDArray[np.int64]
DROP = "drop"
"""What a policy decides about rows that do not enter; a teacher's rows are not decided about."""

PITCH_HOP, PITCH_FILE = 160, "pitch.npy"
COLUMNS = ("audio", "text", "speaker_id", "phones", "decision")
_INDEX = ("start", "length", "phone_start", "phone_count", "timed", "speaker", "source")


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A part of the corpus.

    Attributes:
        name: Its name.
        wave: All samples, int16, a memory map.
        start: First sample of each utterance.
        length: Samples of each utterance.
        phone_start: Where the phones of each utterance begin in `phones`.
        phone_count: How many phones it has.
        timed: Whether `ends` are known.
        speaker: Number of the speaker.
        source: Number of the source.
        sources: Names of the sources.
        phones: Token ids, pauses included where times are known.
        ends: First sample after each phone, counted from the start of its utterance.
        pitch: log2 of F0 in Hz every 10 ms of each utterance, NaN where unvoiced or not measured; None: no file.
        pitch_start: Where that of each utterance begins.
    """

    name: str
    wave: npt.NDArray[np.int16]
    start: Ints
    length: Ints
    phone_start: Ints
    phone_count: Ints
    timed: Ints
    speaker: Ints
    source: Ints
    sources: tuple[str, ...]
    phones: Ints
    ends: Ints
    pitch: npt.NDArray[np.float32] | None
    pitch_start: Ints

    def __len__(self) -> int:
        return len(self.start)

    def utterance(self, index: int) -> Utterance:
        """Returns one utterance."""
        first, wave = int(self.phone_start[index]), int(self.start[index])
        chosen = slice(first, first + int(self.phone_count[index]))
        samples = self.wave[wave : wave + int(self.length[index])].astype(np.float32) / np.float32(32768)
        ends = self.ends[chosen] if self.timed[index] else None
        return Utterance(samples, self.phones[chosen], ends, self._pitch(index))

    def _pitch(self, index: int) -> npt.NDArray[np.float32] | None:
        if self.pitch is None:
            return None
        first = int(self.pitch_start[index])
        return np.asarray(self.pitch[first : first + pitch_frames(int(self.length[index]))])


@dataclass(frozen=True, slots=True, eq=False)
class Utterance:
    """float32 [samples] at 16 kHz, token ids of its phones and, if known, the sample after each and the pitch."""

    wave: npt.NDArray[np.float32]
    phones: Ints
    ends: Ints | None
    pitch: npt.NDArray[np.float32] | None = None

    @property
    def spoken(self) -> Ints:
        """Token ids without pauses, what CTC is to find."""
        spoken: Ints = self.phones[self.phones != TOKEN_IDS[PAUSE]]
        return spoken


def pitch_frames(samples: int) -> int:
    """Returns how many frames of 10 ms a pitch track of so many samples has."""
    return samples // PITCH_HOP + 1


def build(output: Path, cache: Path) -> int:
    """Makes `cache/<name>` from the part in the folder `output`; returns its number of utterances."""
    waves, rows, phones, ends = [], [], [], []
    position = first_phone = 0
    speakers: dict[str, int] = {}
    sources: dict[str, int] = {}
    for row, wave in _decoded(output):
        names, row_ends = _pronunciation(row)
        speaker = speakers.setdefault(row["speaker_id"], len(speakers))
        source = sources.setdefault(row["speaker_id"].split(":")[0], len(sources))
        rows.append((position, len(wave), first_phone, len(names), row_ends is not None, speaker, source))
        waves.append(wave)
        phones.append(np.array([TOKEN_IDS[name] for name in names], np.int64))
        ends.append(np.array(row_ends if row_ends is not None else [-1] * len(names), np.int64))
        position, first_phone = position + len(wave), first_phone + len(names)
    cache.mkdir(parents=True, exist_ok=True)
    np.save(cache / "wave.npy", np.concatenate(waves))
    index = dict(zip(_INDEX, np.array(rows, np.int64).T, strict=True))
    (cache / "sources.json").write_text(json.dumps(list(sources)), encoding="utf-8")
    np.savez(cache / "index.npz", phones=np.concatenate(phones), ends=np.concatenate(ends), **index)
    return len(rows)


def _decoded(output: Path) -> Iterator[tuple[dict[str, Any], npt.NDArray[np.int16]]]:
    for row in ShardDataset(str(output), "segments", columns=list(COLUMNS)):
        if row["decision"] != DROP:
            samples, _ = decode_bytes(row["audio"]["bytes"])
            yield row, np.rint(samples[0] * 32767).astype(np.int16)


def _pronunciation(row: dict[str, Any]) -> tuple[list[str], list[int] | None]:
    timed = row["phones"]
    if timed is None:
        return pronounce([str(row["text"])])[0], None
    return [p["text"] for p in timed], [p["start"] + p["num_samples"] for p in timed]


def replace_phones(source: Path, target: Path, phones: Sequence[Ints], ends: Sequence[Ints], timed: Ints) -> None:
    """Makes the cache folder `target` from `source` with other phones; the wave is shared by a hard link.

    Args:
        source: Cache folder of a part.
        target: New cache folder.
        phones: Token ids of each utterance.
        ends: Sample after each of them, -1 where unknown.
        timed: Whether the times of each utterance are known.
    """
    with np.load(source / "index.npz") as index:
        columns = {key: index[key] for key in _INDEX}
    counts = np.array([len(tokens) for tokens in phones], np.int64)
    changed = {"phone_start": np.cumsum(counts) - counts, "phone_count": counts, "timed": timed}
    target.mkdir(parents=True)
    for name in ("wave.npy", "sources.json"):
        (target / name).hardlink_to(source / name)
    np.savez(target / "index.npz", phones=np.concatenate(phones), ends=np.concatenate(ends), **(columns | changed))


def load(cache: Path, names: Sequence[str]) -> list[Part]:
    """Returns the parts of a cache folder by name."""
    return [_load(cache / name, name) for name in names]


def _load(folder: Path, name: str) -> Part:
    with np.load(folder / "index.npz") as index:
        columns = {key: index[key] for key in (*_INDEX, "phones", "ends")}
    sources = tuple(json.loads((folder / "sources.json").read_text(encoding="utf-8")))
    pitch = np.load(folder / PITCH_FILE, mmap_mode="r") if (folder / PITCH_FILE).is_file() else None
    frames = columns["length"] // PITCH_HOP + 1
    return Part(
        name, np.load(folder / "wave.npy", mmap_mode="r"), sources=sources, pitch=pitch,
        pitch_start=np.cumsum(frames) - frames, **columns,
    )  # fmt: skip


def main() -> None:
    """Runs `python -m data_engine.training.speech.waves CORPUS CACHE [PART ...]`."""
    parser = argparse.ArgumentParser(description="Decodes the training corpus into a cache.")
    parser.add_argument("corpus", type=Path)
    parser.add_argument("cache", type=Path)
    parser.add_argument("parts", nargs="*")
    arguments = parser.parse_args()
    for name in arguments.parts or sorted(path.name for path in arguments.corpus.iterdir()):
        print(name, build(arguments.corpus / name, arguments.cache / name), flush=True)


if __name__ == "__main__":
    main()
