"""What the evaluation reads, and how much of it."""

from __future__ import annotations

from pathlib import Path

from data_engine.core.config import BackendChoice, Settings


class SetSettings(Settings):
    """How test utterances are chosen: as many of each source, evenly, of those that fit.

    Attributes:
        teachers: Parts of the corpus that hold held-out sentences in the teachers' voices.
        real: Parts that hold speakers nobody trained on.
        utterances: Of each set.
        shortest: Seconds.
        longest: Seconds; pocketsphinx takes half a second of processor time per second.
    """

    teachers: tuple[str, ...] = ("test_teachers",)
    real: tuple[str, ...] = ("test_ocean",)
    utterances: int = 60
    shortest: float = 2.0
    longest: float = 5.0


class ProbeSettings(Settings):
    """The corpus and the small networks that codes are probed with.

    Attributes:
        parts: Utterances of each part; phone times must be known.
        longest: Seconds of the longest utterance.
        held_out: Every so many utterances one tests.
        language_model_steps: Steps of each of the three language models.
        phone_head_steps: Steps of each CTC head.
        rate: Learning rate of all of them.
    """

    parts: dict[str, int]
    longest: float = 8.0
    held_out: int = 8
    language_model_steps: int = 600
    phone_head_steps: int = 450
    rate: float = 1e-3


class SpeedSettings(Settings):
    """What speed is measured on.

    Attributes:
        seconds: Audio tokenized by our batched path and, clip by clip, by Step-Audio's procedure.
        rounds: How often both take their turn, each time on other clips.
        threads: Threads of torch in Step-Audio's procedure, each tried: one, and FunASR's default of four.
    """

    seconds: float = 540.0
    rounds: int = 3
    threads: tuple[int, ...] = (1, 4)


class EvaluationSettings(Settings):
    """An evaluation.

    Attributes:
        output: Folder of `results.json` and `table.md`.
        codec: Folder of the tokenizers and the decoder; the shipped one when not given.
        floats: Folder of the same tokenizers in 32 bits, as `data_engine.training.shipping` leaves it.
        funasr: The same linguistic tokenizer as a FunASR folder.
        semantic_checkpoint: `state.pt` of the semantic tokenizer's training, for the phone head it was trained with.
        cache: Folder that `data_engine.training.speech.waves` made.
        corpus: Folder that `data_engine.training.corpus` made, for the texts.
        demo: Output folder of an engine run with English synthetic speech.
        answers: JSON file with the figures of the speaker LM, see `speaking`.
        judge: Recognizer that judges rebuilt speech.
        recognizer: Our own.
        sets: Test utterances.
        probes: Probes.
        speed: Speed.
        seed: Of every draw.
        resamples: Bootstrap samples.
    """

    output: Path
    codec: Path | None = None
    floats: Path
    funasr: Path
    semantic_checkpoint: Path
    cache: Path
    corpus: Path
    demo: Path
    answers: Path
    # Tighter pruning: 1.4 to 1.9 times as fast; both originals and rebuilt speech are judged by it.
    judge: BackendChoice = BackendChoice(name="pocketsphinx", options={"decoder": {"maxhmmpf": 3000, "maxwpf": 10}})
    recognizer: BackendChoice = BackendChoice(name="nano")
    sets: SetSettings = SetSettings()
    probes: ProbeSettings
    speed: SpeedSettings = SpeedSettings()
    seed: int = 1
    resamples: int = 1000
