"""The corpus as the decoder reads it: both code streams and a speaker embedding of every utterance, made once."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_engine.backends.speaker_resemblyzer import ResemblyzerEmbedder
from data_engine.models.codec_views import nearest, normalise_peak
from data_engine.models.kaldi_fbank import kaldi_fbank, low_frame_rate
from data_engine.models.whisper_mel import whisper_log_mel
from data_engine.training.speech.waves import Part, load

Codes = npt.NDArray[np.int64]
_LONGEST = 16000 * 12


class Tokenizers:
    """The two released tokenizers through onnxruntime, one thread.

    Args:
        linguistic: Folder with `encoder.onnx` and `linguistic_tokenizer.npy`.
        semantic: `speech_tokenizer_v1.onnx`.
    """

    def __init__(self, linguistic: Path, semantic: Path) -> None:
        self.codebook = np.load(linguistic / "linguistic_tokenizer.npy")
        self._linguistic, self._semantic = _session(linguistic / "encoder.onnx"), _session(semantic)

    def tokenize(self, wave: npt.NDArray[np.float32]) -> tuple[Codes, Codes]:
        """Returns linguistic [2 groups] and semantic [3 groups] codes of complete groups of 120 ms."""
        normal = normalise_peak(wave)
        rows, mel = low_frame_rate(kaldi_fbank(normal))[None], whisper_log_mel(normal).T[None]
        words = nearest(self._linguistic.run(["states"], {"features": rows})[0][0], self.codebook)
        length = np.array([mel.shape[2]], np.int32)
        sounds = self._semantic.run(["indices"], {"feats": np.ascontiguousarray(mel), "feats_length": length})[0][0]
        groups = min(len(words) // 2, len(sounds) // 3)
        return words[: 2 * groups], sounds[: 3 * groups].astype(np.int64)


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@dataclass(frozen=True, slots=True, eq=False)
class CodedPart:
    """A part with its codes.

    Attributes:
        part: The waves.
        chosen: Numbers of its coded utterances.
        first: Number of the first group of each, in groups.
        groups: Groups of each.
        linguistic: All linguistic codes, [2 x groups].
        semantic: All semantic codes, [3 x groups].
        speakers: Unit-length embedding of each, float32 [chosen, 256].
    """

    part: Part
    chosen: Codes
    first: Codes
    groups: Codes
    linguistic: Codes
    semantic: Codes
    speakers: npt.NDArray[np.float32]


def build(part: Part, tokenizers: Tokenizers, embedder: ResemblyzerEmbedder, most: int, target: Path) -> int:
    """Writes `target` with the codes of at most `most` utterances, evenly chosen; returns their number."""
    usable = np.flatnonzero(part.length <= _LONGEST)
    chosen = usable[np.unique(np.linspace(0, len(usable) - 1, min(most, len(usable))).astype(int))]
    waves = [part.utterance(int(index)).wave for index in chosen]
    pairs = [tokenizers.tokenize(wave) for wave in waves]
    groups = np.array([len(words) // 2 for words, _ in pairs], np.int64)
    speakers = np.concatenate([embedder.embed([wave]) for wave in waves]).astype(np.float32)
    target.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        target, chosen=chosen, first=np.cumsum(groups) - groups, groups=groups, speakers=speakers,
        linguistic=np.concatenate([words for words, _ in pairs]), semantic=np.concatenate([s for _, s in pairs]),
    )  # fmt: skip
    return len(chosen)


def load_coded(cache: Path, codes: Path, names: list[str]) -> list[CodedPart]:
    """Returns parts with their codes by name."""
    coded = []
    for part in load(cache, names):
        with np.load(codes / f"{part.name}.npz") as columns:
            coded.append(CodedPart(part, **{name: columns[name] for name in columns}))
    return coded


def main() -> None:
    """Runs `python -m data_engine.training.codes CACHE CODES LINGUISTIC SEMANTIC [--most N] PART ...`."""
    parser = argparse.ArgumentParser(description="Tokenizes parts of the corpus for the decoder.")
    for name in ("cache", "codes", "linguistic", "semantic"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--most", type=int, default=3000)
    parser.add_argument("parts", nargs="+")
    arguments = parser.parse_args()
    tokenizers, embedder = Tokenizers(arguments.linguistic, arguments.semantic), ResemblyzerEmbedder()
    embedder.open()
    for part in load(arguments.cache, arguments.parts):
        count = build(part, tokenizers, embedder, arguments.most, arguments.codes / f"{part.name}.npz")
        print(part.name, count, flush=True)


if __name__ == "__main__":
    main()
