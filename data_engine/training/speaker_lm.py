"""Trains the speaker LM: a small Llama over text and audio ids, on speech, text and interleaved answers.

Tasks and templates: Step-Audio (arXiv 2502.11946) for TTS and TQTA, Step-Audio-AQAA (arXiv 2506.08967) for AQTAA.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from data_engine.backends.text_bpe import BpeTokenizer
from data_engine.core.config import BackendChoice, Settings
from data_engine.core.errors import ConfigError
from data_engine.export.tokenizer import read_document
from data_engine.tokens.compact import CompactVocabulary
from data_engine.tokens.interleave import Interleaving
from data_engine.tokens.vocabulary import TEXT_SIZE
from data_engine.training.loop import LoopSettings, Training
from data_engine.training.qa_examples import answer_examples, closed_examples
from data_engine.training.speaker_examples import (
    Coded,
    Example,
    aqaa_examples,
    cloning_examples,
    coded_corpus,
    coded_segments,
)
from data_engine.training.speaker_folder import save_folder, used_text_ids

Task = Literal["TTS", "TQTA", "AQTA", "TAQTA", "AQTAA", "AQAA"]


class NetworkSettings(Settings):
    """Shape of the Llama: 8.1 million parameters with the compact vocabulary of the shipped text tokenizer."""

    size: int = 256
    hidden: int = 704
    layers: int = 8
    heads: int = 4
    key_value_heads: int = 2
    positions: int = 2048


class SpeakerSettings(Settings):
    """A training of the speaker LM.

    Attributes:
        output: Folder of checkpoint, logs and, in `release`, the finished model.
        weights: Share of each task in the batches.
        outputs: Output folders of the engine, for their examples of the table `aqaa`.
        segments: Output folders of the engine whose table `segments` has codes and text: cloning examples.
        corpus: Folder of the training corpus: more cloning examples, of the parts named in `parts`.
        codes: Folder that `data_engine.training.codes` made of it.
        parts: Parts of the corpus.
        questions: Parts with the closed world of questions: AQTAA, AQAA, AQTA and TQTA examples.
        sentences: Parts with the closed domain of sentences to speak: TTS examples.
        num_text: Text ids per round of an AQTAA answer of `questions`.
        num_audio: Audio ids per round.
        tokenizer: Text tokenizer.
        vocabulary: `compact` leaves out text ids that the tokenizer has not, `full` keeps Step-Audio's 65,536.
        network: Shape of the model.
        batch_ids: Ids of a batch, with padding.
        batch_examples: Most examples of a batch, for trainings that are to see the same number of them; 0 for all
            that fit.
        longest: Longer examples are left out.
        loop: How long and how fast.
    """

    output: Path
    weights: dict[Task, float]
    outputs: tuple[str, ...] = ()
    segments: tuple[str, ...] = ()
    corpus: Path | None = None
    codes: Path | None = None
    parts: tuple[str, ...] = ()
    questions: tuple[str, ...] = ()
    sentences: tuple[str, ...] = ()
    num_text: int = 10
    num_audio: int = 15
    tokenizer: BackendChoice = BackendChoice(name="bpe")
    vocabulary: Literal["compact", "full"] = "compact"
    network: NetworkSettings = NetworkSettings()
    batch_ids: int = 6000
    batch_examples: int = 0
    longest: int = 1536
    loop: LoopSettings = LoopSettings()


def network(config: NetworkSettings, vocabulary: CompactVocabulary) -> Any:
    """Returns an untrained LlamaForCausalLM with tied embeddings."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = LlamaConfig(
        vocab_size=vocabulary.size, hidden_size=config.size, intermediate_size=config.hidden,
        num_hidden_layers=config.layers, num_attention_heads=config.heads,
        num_key_value_heads=config.key_value_heads, max_position_embeddings=config.positions,
        tie_word_embeddings=True, bos_token_id=1, eos_token_id=3, pad_token_id=0, use_cache=True,
    )  # fmt: skip
    return LlamaForCausalLM(shape)  # type: ignore[no-untyped-call]


def read_examples(config: SpeakerSettings, tokenizer: BpeTokenizer, vocabulary: CompactVocabulary) -> list[Example]:
    """Returns all examples that are wanted and not too long.

    Raises:
        ConfigError: A wanted task has none to train on.
    """
    found: list[Example] = []
    for output in config.outputs:
        found += aqaa_examples(output, tuple(config.weights), tokenizer.revision, vocabulary)
    seed, settings = config.loop.seed, Interleaving(num_text=config.num_text, num_audio=config.num_audio)
    for utterances in [*(list(coded_segments(output)) for output in config.segments), *_coded(config, config.parts)]:
        found += cloning_examples(utterances, tokenizer, vocabulary, seed)
    for utterances in _coded(config, config.questions):
        found += answer_examples(utterances, tuple(config.weights), tokenizer, vocabulary, settings, seed)
    for utterances in _coded(config, config.sentences):
        found += closed_examples(utterances, tokenizer, vocabulary, seed)
    kept = [example for example in found if len(example.ids) <= min(config.longest, config.network.positions)]
    missing = sorted(set(config.weights) - {example.type for example in kept if not example.held_out})
    if missing:
        raise ConfigError(f"there are no training examples of {', '.join(missing)}; give outputs, segments or corpus "
                          "and codes that have some, or take the task out of weights")  # fmt: skip
    return kept


def _coded(config: SpeakerSettings, parts: Sequence[str]) -> Iterator[list[Coded]]:
    if config.corpus and config.codes:
        yield from (list(coded_corpus(config.corpus / part, config.codes / f"{part}.npz")) for part in parts)


class Tasks:
    """Draws batches of one task each, of examples of about one length.

    Args:
        examples: To draw from.
        weights: Share of each task.
        batch_ids: Ids of a batch, with padding.
        most: Most examples of a batch; 0 for all that fit.
    """

    def __init__(
        self, examples: Sequence[Example], weights: Mapping[Any, float], batch_ids: int, most: int = 0
    ) -> None:
        by_type: dict[str, list[Example]] = defaultdict(list)
        for example in sorted(examples, key=lambda example: len(example.ids)):
            by_type[example.type].append(example)
        self._examples = dict(by_type)
        self._names = sorted(name for name in weights if name in by_type)
        shares = np.array([weights[name] for name in self._names])
        self._shares, self._batch_ids, self._most = shares / shares.sum(), batch_ids, most or batch_ids

    def batch(self, rng: np.random.Generator) -> list[Example]:
        """Returns a random example with its neighbours in length, as many as fit."""
        examples = self._examples[self._names[rng.choice(len(self._names), p=self._shares)]]
        last = int(rng.integers(len(examples)))
        count = min(self._most, max(1, self._batch_ids // len(examples[last].ids)))
        # A window of twice the size, half of it drawn: an example does not always meet the same ones.
        window = np.arange(max(0, last + 1 - 2 * count), last)
        drawn = rng.permutation(window)[: count - 1]
        return [examples[last], *(examples[int(number)] for number in drawn)]


def tensors(examples: Sequence[Example]) -> tuple[Tensor, Tensor, Tensor]:
    """Returns ids, attention mask and loss mask, int64 and bool [examples, longest]."""
    longest = max(len(example.ids) for example in examples)
    ids = np.zeros((len(examples), longest), np.int64)
    inside: npt.NDArray[np.bool_] = np.zeros(ids.shape, np.bool_)
    counted = np.zeros(ids.shape, np.bool_)
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)], inside[row, : len(example.ids)] = example.ids, True
        counted[row, : len(example.ids)] = example.mask
    return torch.from_numpy(ids), torch.from_numpy(inside), torch.from_numpy(counted)


def losses_of(model: Any, examples: Sequence[Example], text_size: int) -> dict[str, Tensor]:
    """Returns the cross-entropy of text and of audio targets; their sum is the mean over all targets.

    Only positions before a target get logits: the prompt's would be thrown away.
    """
    ids, inside, counted = tensors(examples)
    with torch.autocast("cpu", torch.bfloat16):
        states = model.model(input_ids=ids, attention_mask=inside.long()).last_hidden_state
        chosen = counted[:, 1:]
        logits = model.lm_head(states[:, :-1][chosen])
    targets = ids[:, 1:][chosen]
    losses = functional.cross_entropy(logits.float(), targets, reduction="none") / max(len(targets), 1)
    audio = targets >= text_size
    return {"text": (losses * ~audio).sum(), "audio": (losses * audio).sum()}


def train(config: SpeakerSettings) -> None:
    """Trains from scratch, or goes on from the checkpoint in `config.output`; writes `release` at the end."""
    torch.set_num_threads(1)
    torch.manual_seed(config.loop.seed)
    tokenizer = BpeTokenizer(**config.tokenizer.options)
    tokenizer.open()
    used = used_text_ids(read_document(config.tokenizer)) if config.vocabulary == "compact" else TEXT_SIZE
    vocabulary = CompactVocabulary(used)
    examples = read_examples(config, tokenizer, vocabulary)
    drawn = Tasks([e for e in examples if not e.held_out], config.weights, config.batch_ids, config.batch_examples)
    held_out = [e for e in examples if e.held_out][:200]
    model = network(config.network, vocabulary)
    training = Training(model, config.output, config.loop)
    training.resume()

    def step(number: int) -> tuple[dict[str, Tensor], float]:
        batch = drawn.batch(np.random.default_rng([config.loop.seed, number]))
        audio = sum(int((e.ids >= used).sum()) for e in batch)
        return losses_of(model, batch, used), audio / 5 * 0.12

    def evaluate() -> dict[str, Any]:
        return held_out_losses(model, held_out, used)

    training.run(step, evaluate)
    save_folder(model, config.output / "release", config.tokenizer, tokenizer.specials(), vocabulary)


def held_out_losses(model: Any, examples: Sequence[Example], text_size: int) -> dict[str, float]:
    """Returns, per task, the cross-entropy per target of examples that are not trained on."""
    by_type: dict[str, list[float]] = defaultdict(list)
    for example in examples:
        losses = losses_of(model, [example], text_size)
        by_type[example.type].append(float(torch.stack(list(losses.values())).sum()))
    return {name: round(float(np.mean(values)), 4) for name, values in sorted(by_type.items())}
