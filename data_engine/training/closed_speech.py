"""Text to speech of a speaker LM in the closed domain: words wrong in its speech over those in its teacher's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_engine.backends.catalog import build_backend
from data_engine.backends.protocols import CodeStreams, Wave
from data_engine.backends.text_bpe import BpeTokenizer
from data_engine.core.config import BackendChoice, Settings
from data_engine.io.audio import decode_bytes
from data_engine.io.shards import committed_parts, read_batches
from data_engine.io.storage import Storage
from data_engine.tokens.templates import system_prompt, tts_prompt_ids
from data_engine.tokens.vocabulary import Ids, codes_from_ids, is_linguistic
from data_engine.training.evaluation.figures import bootstrap, ratio_of
from data_engine.training.evaluation.words import count_words
from data_engine.training.greedy import Said, SpeakerModel
from data_engine.training.qa_examples import voice_prompts
from data_engine.training.scoring import edits
from data_engine.training.speaker_examples import Coded, coded_corpus, special_tokens
from data_engine.training.speech.closed_sentences import PROMPTS

_MOST = 320


class SpeechSettings(Settings):
    """The text to speech test.

    Attributes:
        model: Folder of the finished model.
        part: Part of the corpus with held-out sentences.
        prompts: Part whose prompts show the voices.
        utterances: How many sentences, evenly chosen.
        decode: Decode and recognize; without, only codes are compared.
    """

    model: Path
    part: str = "test_closed"
    prompts: str = "closed"
    utterances: int = 80
    decode: bool = True


def chosen_sentences(utterances: Sequence[Coded], most: int) -> list[int]:
    """Returns the numbers of at most `most` sentences that are no prompts, evenly chosen."""
    usable = [number for number, one in enumerate(utterances) if one.text not in PROMPTS and one.audio.size]
    picks = np.unique(np.linspace(0, len(usable) - 1, min(most, len(usable))).astype(int))
    return [usable[int(pick)] for pick in picks]


def prompt_ids(spoken: Coded, prompt: Coded, tokenizer: BpeTokenizer) -> Ids:
    """Returns the prompt that has a sentence spoken in the voice of another clip."""
    return tts_prompt_ids(
        spoken.text, prompt.text, prompt.audio, tokenizer.encode, special_tokens(tokenizer),
        system=system_prompt("clone", "en"),
    )  # fmt: skip


def code_error_rate(sentences: Sequence[Coded], said: Sequence[Said]) -> float:
    """Returns edits between the model's linguistic codes and the teacher's over the teacher's."""
    wrong = total = 0
    for spoken, one in zip(sentences, said, strict=True):
        reference = codes_from_ids(spoken.audio[is_linguistic(spoken.audio)]).astype(np.int64)
        wrong, total = wrong + edits(reference, one.linguistic.astype(np.int64)), total + len(reference)
    return round(wrong / max(total, 1), 4)


@dataclass(frozen=True, slots=True, eq=False)
class SpeechBench:
    """What the test works with: corpus, its codes, an opened text tokenizer, a codec, a recognizer, a seed."""

    corpus: Path
    codes: Path
    tokenizer: BpeTokenizer
    codec: Any
    judge: BackendChoice
    seed: int

    def coded(self, part: str) -> list[Coded]:
        """Returns the coded utterances of a part."""
        return list(coded_corpus(self.corpus / part, self.codes / f"{part}.npz"))


def speech_figure(config: SpeechSettings, bench: SpeechBench) -> dict[str, Any]:
    """Returns the figure `text_to_speech`: word error rate over that of the teacher's own audio."""
    utterances, prompts = bench.coded(config.part), voice_prompts(bench.coded(config.prompts))
    sentences = [utterances[number] for number in chosen_sentences(utterances, config.utterances)]
    model = SpeakerModel(config.model, special_tokens(bench.tokenizer))
    said = model.say([prompt_ids(one, prompts[one.speaker][0], bench.tokenizer) for one in sentences], _MOST)
    details: dict[str, Any] = {"code_error_rate": code_error_rate(sentences, said),
                               "ended": round(float(np.mean([one.ended for one in said])), 4)}  # fmt: skip
    figure: dict[str, Any] = {"utterances": len(sentences), "details": details}
    if config.decode:
        voices = mean_voices(bench.codes / f"{config.part}.npz", utterances)
        speakers = [voices[one.speaker] for one in sentences]
        texts = [one.text for one in sentences]
        heard = {
            "teacher": transcripts(teacher_waves(bench.corpus / config.part, sentences), bench.judge),
            "speaker_lm": listened(bench.codec, said, speakers, bench.judge),
            "teacher_through_codec": listened(bench.codec, list(map(as_said, sentences)), speakers, bench.judge),
        }
        counts = {name: count_words(texts, written) for name, written in heard.items()}
        details |= {name: round(count.rate, 4) for name, count in counts.items()} | {"judge": bench.judge.name}
        over = counts["speaker_lm"].wrong - counts["teacher"].wrong
        value, low, high = bootstrap(ratio_of(over, counts["teacher"].total), len(texts), bench.seed)
        figure |= {"value": round(value, 4), "low": round(low, 4), "high": round(high, 4)}
    return figure


def mean_voices(codes: Path, utterances: Sequence[Coded]) -> dict[str, npt.NDArray[np.float32]]:
    """Returns the mean unit-length embedding of each speaker of a part."""
    with np.load(codes) as stored:
        embeddings = stored["speakers"]
    found: dict[str, list[Any]] = defaultdict(list)
    for spoken, embedding in zip(utterances, embeddings, strict=True):
        found[spoken.speaker].append(embedding)
    means = {speaker: np.mean(group, axis=0) for speaker, group in found.items()}
    return {speaker: np.asarray(m / max(np.linalg.norm(m), 1e-9), np.float32) for speaker, m in means.items()}


def listened(codec: Any, said: Sequence[Said], speakers: Sequence[Any], judge: BackendChoice) -> list[str]:
    """Returns what a recognizer hears in decoded speech; where nothing was said, in silence.

    Args:
        codec: Built codec.
        said: Speech as codes.
        speakers: Embedding of the voice of each.
        judge: Recognizer.
    """
    codec.open()
    silence = np.zeros(codec.sample_rate // 5, np.float32)
    streams = [CodeStreams(*one.whole_groups()) for one in said]
    waves = [
        codec.decode([stream], [voice])[0] if len(stream.vq02) else silence
        for stream, voice in zip(streams, speakers, strict=True)
    ]
    return transcripts(waves, judge)


def transcripts(waves: Sequence[Wave], judge: BackendChoice) -> list[str]:
    """Returns what a recognizer writes of waves at 16 kHz."""
    recognizer = build_backend("asr", judge.name, judge.options)
    recognizer.open()
    return [transcript.text for transcript in recognizer.transcribe(list(waves), "en")]


def as_said(spoken: Coded) -> Said:
    """Returns the codes of the teacher's utterance as if a model had said them."""
    words = is_linguistic(spoken.audio)
    text = np.zeros(0, np.int32)
    return Said(text, codes_from_ids(spoken.audio[words]), codes_from_ids(spoken.audio[~words]), ended=True)


def teacher_waves(part: Path, sentences: Sequence[Coded]) -> list[Wave]:
    """Returns the teacher's own audio of sentences, found by text and speaker."""
    storage, found = Storage(str(part)), {}
    for shard in committed_parts(storage, "segments"):
        for batch in read_batches(storage, shard, ("audio", "text", "speaker_id")):
            for row in batch.to_pylist():
                found[row["text"], row["speaker_id"]] = row["audio"]["bytes"]
    return [np.asarray(decode_bytes(found[one.text, one.speaker])[0][0], np.float32) for one in sentences]
