"""Evaluates speaker LMs on the closed domains: exact answers of interleaved and audio-only models, and speech.

Accept test A of interleaved answers (Step-Audio-AQAA, arXiv 2506.08967): rate of exact answers in the text and in the
audio channel, models that differ in the layout of their answers alone.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from data_engine.backends.catalog import build_backend
from data_engine.backends.text_bpe import BpeTokenizer
from data_engine.core.config import BackendChoice, Settings, override, read_yaml, validate
from data_engine.tokens.templates import Turn, chat_prompt_ids
from data_engine.tokens.vocabulary import codes_from_ids, is_linguistic
from data_engine.training.answers_heard import AnswerJudge, nearest_in_letters
from data_engine.training.closed_speech import SpeechBench, SpeechSettings, listened, mean_voices, speech_figure
from data_engine.training.evaluation.figures import bootstrap, mean_of
from data_engine.training.greedy import Said, SpeakerModel
from data_engine.training.qa_examples import spoken_answers, spoken_questions
from data_engine.training.speaker_examples import Coded, coded_corpus, special_tokens
from data_engine.training.speech.closed_teacher import ANSWER_VOICE, speaker_id
from data_engine.training.speech.qa_world import FAMILIES, Question, answers, is_right
from data_engine.training.speech.texts import plain

_KNOWN = 40
"""Renditions of an answer that the judge compares with, at most."""

Flags = npt.NDArray[np.bool_]
Asked = Sequence[tuple[Coded, Question]]


class AcceptSettings(Settings):
    """An evaluation of speaker LMs.

    Attributes:
        output: JSON file of the figures; what is there already is kept.
        corpus: Folder of the training corpus.
        codes: Folder that `data_engine.training.codes` made of it.
        questions: Part with the questions to ask.
        references: Part with the teacher's answers that the audio channel is compared with.
        models: Folders of the finished models by name, several for trainings that differ in their seed alone;
            `interleaved` is compared with every other one.
        listen: Also decode the spoken answers, let the recognizer write them down and take the nearest in letters.
        speech: The text to speech test; None leaves it out.
        codec: Whose tokenizers made the codes; decodes.
        judge: Recognizer, of both tests.
        tokenizer: Text tokenizer.
        most: Ids after which an answer is cut off.
        batch: Prompts at once.
        seed: Of the bootstrap.
    """

    output: Path
    corpus: Path
    codes: Path
    questions: str = "test_qa"
    references: str = "qa"
    models: dict[str, Path | tuple[Path, ...]] = Field(default_factory=dict)
    listen: bool = False
    speech: SpeechSettings | None = None
    codec: BackendChoice = BackendChoice(name="nano")
    judge: BackendChoice = BackendChoice(name="pocketsphinx")
    tokenizer: BackendChoice = BackendChoice(name="bpe")
    most: int = 240
    batch: int = 32
    seed: int = 1

    def coded(self, part: str) -> list[Coded]:
        """Returns the coded utterances of a part."""
        return list(coded_corpus(self.corpus / part, self.codes / f"{part}.npz"))


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """Whether each question was answered exactly in writing and in speech, whether speech says what is written."""

    text: Flags
    audio: Flags
    agrees: Flags
    said: Sequence[Said]


def linguistic_of(spoken: Coded) -> npt.NDArray[Any]:
    """Returns the linguistic codes of an utterance."""
    return codes_from_ids(spoken.audio[is_linguistic(spoken.audio)])


def judge_of(utterances: Sequence[Coded]) -> AnswerJudge:
    """Returns a judge that knows the teacher's renditions in a part, of each answer 40 evenly chosen ones at most."""
    renditions = {answer: spoken[:: -(-len(spoken) // _KNOWN)] for answer, spoken in spoken_answers(utterances).items()}
    return AnswerJudge({answer: [linguistic_of(one) for one in spoken] for answer, spoken in renditions.items()})


def ask(
    model: SpeakerModel, asked: Asked, judge: AnswerJudge, tokenizer: BpeTokenizer, config: AcceptSettings
) -> Answered:
    """Returns a model's answers to spoken questions; `judge` hears the audio channel."""
    special = special_tokens(tokenizer)
    prompts = [chat_prompt_ids([Turn("user", q.text, heard.audio)], tokenizer.encode, special) for heard, q in asked]
    said = model.say(prompts, config.most, config.batch)
    written = [tokenizer.decode([int(number) for number in one.text]) for one in said]
    heard = [judge.heard(one.linguistic)[0] for one in said]
    text = [is_right(q, answer) for (_, q), answer in zip(asked, written, strict=True)]
    audio = [answer == q.answer for (_, q), answer in zip(asked, heard, strict=True)]
    agrees = [plain(one) == plain(other) for one, other in zip(written, heard, strict=True)]
    return Answered(np.array(text, np.bool_), np.array(audio, np.bool_), np.array(agrees, np.bool_), said)


def rates(found: Answered, asked: Asked) -> dict[str, Any]:
    """Returns the rates of exact answers, all and by family, and how many answers came to an end."""
    families = np.array([question.family for _, question in asked])
    channels = {"text": found.text, "audio": found.audio}
    by_family: dict[str, dict[str, float]] = defaultdict(dict)
    for family in (family for family in FAMILIES if family in families):
        for name, right in channels.items():
            by_family[family][name] = round(float(right[families == family].mean()), 4)
    whole = {name: round(float(right.mean()), 4) for name, right in (channels | {"agrees": found.agrees}).items()}
    return whole | {"ended": round(float(np.mean([one.ended for one in found.said])), 4), "families": dict(by_family)}


def gain(better: Sequence[Answered], worse: Sequence[Answered], seed: int) -> dict[str, Any]:
    """Returns how many more questions one model answers in speech than another, with its interval over questions.

    Args:
        better: Answers of its trainings; a question counts by the share of them that answer it.
        worse: Answers of the other one's.
        seed: Of the bootstrap.
    """
    more, fewer = (np.mean([one.audio for one in answered], axis=0) for answered in (better, worse))
    value, low, high = bootstrap(mean_of(more - fewer), len(more), seed)
    return {"value": round(value, 4), "low": round(low, 4), "high": round(high, 4), "utterances": len(more)}


def heard_rate(config: AcceptSettings, found: Answered, asked: Asked, codec: Any) -> float:
    """Returns how many spoken answers a recognizer takes for the right one after they are decoded."""
    utterances = config.coded(config.references)
    voice = mean_voices(config.codes / f"{config.references}.npz", utterances)[speaker_id(ANSWER_VOICE)]
    texts = listened(codec, found.said, [voice] * len(asked), config.judge)
    pairs = zip(texts, asked, strict=True)
    return round(float(np.mean([nearest_in_letters(text, answers()) == q.answer for text, (_, q) in pairs])), 4)


def answers_figure(config: AcceptSettings, tokenizer: BpeTokenizer, codec: Any) -> dict[str, Any]:
    """Returns the rates of all models and what the interleaved one gains over each of the others, audio channel."""
    asked = spoken_questions(config.coded(config.questions))
    judge, special = judge_of(config.coded(config.references)), special_tokens(tokenizer)
    found: dict[str, list[Answered]] = {}
    details: dict[str, Any] = {}
    for name, folders in config.models.items():
        models = (SpeakerModel(folder, special) for folder in ([folders] if isinstance(folders, Path) else folders))
        found[name] = [ask(model, asked, judge, tokenizer, config) for model in models]
        trainings = [rates(answered, asked) for answered in found[name]]
        for rate, answered in zip(trainings, found[name], strict=True) if config.listen else ():
            rate["heard"] = heard_rate(config, answered, asked, codec)
        mean = {channel: round(float(np.mean([one[channel] for one in trainings])), 4) for channel in ("text", "audio")}
        details[name] = trainings[0] if isinstance(folders, Path) else mean | {"trainings": trainings}
        print(name, json.dumps(details[name]), flush=True)
    details["judge"] = ceiling(judge, config.coded(config.questions))
    best = found.get("interleaved")
    gains = {n: gain(best, other, config.seed) for n, other in found.items() if best and other is not best}
    return gains.get("audio_only", {"utterances": len(asked)}) | {"details": details | {"gains": gains}}


def ceiling(judge: AnswerJudge, utterances: Sequence[Coded]) -> float:
    """Returns how often the judge hears the teacher's own unseen renditions right."""
    spoken = [(answer, one) for answer, group in spoken_answers(utterances).items() for one in group]
    return round(float(np.mean([judge.heard(linguistic_of(one))[0] == answer for answer, one in spoken])), 4)


def evaluate(config: AcceptSettings) -> dict[str, Any]:
    """Writes the figures `spoken_answers` and `text_to_speech`, as far as they are asked for, and returns them.

    A figure without its value (nothing to compare with, nothing decoded) is written as `..._details` instead.
    """
    tokenizer = BpeTokenizer(**config.tokenizer.options)
    tokenizer.open()
    codec = build_backend("codec", config.codec.name, config.codec.options)
    made: dict[str, Any] = {}
    if config.models:
        made["spoken_answers"] = answers_figure(config, tokenizer, codec)
    if config.speech:
        bench = SpeechBench(config.corpus, config.codes, tokenizer, codec, config.judge, config.seed)
        made["text_to_speech"] = speech_figure(config.speech, bench)
    stored = json.loads(config.output.read_text(encoding="utf-8")) if config.output.is_file() else {}
    named = {name if "value" in figure else f"{name}_details": figure for name, figure in made.items()}
    stored |= {name: figure | {"tokenizer_hash": codec.revision} for name, figure in named.items()}
    config.output.parent.mkdir(parents=True, exist_ok=True)
    config.output.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    return made


def main() -> None:
    """Runs `python -m data_engine.training.speaker_accept --config FILE [--set a.b=value]`."""
    parser = argparse.ArgumentParser(description="Evaluates speaker LMs on the closed domains.")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="sets")
    arguments = parser.parse_args()
    values = override(read_yaml(arguments.config), arguments.sets)
    print(json.dumps(evaluate(validate(AcceptSettings, values, str(arguments.config))), indent=1))


if __name__ == "__main__":
    main()
