"""Whisper in transformers: one encoder pass, greedy search, then one pass of the decoder over what was found.

That last pass gives, for all tokens at once, the posteriors (of the text and of `no speech`) and the attention of the
alignment heads alone; `generate` would keep the attention of every head and layer at every step for them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from data_engine.backends.protocols import Transcript, Wave, Word
from data_engine.backends.whisper_words import (
    BROKEN,
    POSITION_SAMPLES,
    UNSPACED,
    Floats,
    attention_scores,
    first_positions,
    token_words,
)
from data_engine.core.errors import ConfigError, MissingExtraError

_RATE = 16000
_MARKS = 5
"""Tokens of a sequence that are no text: start, language, task, no times; and the end."""


@dataclass(slots=True)
class Chunk:
    """A stretch of a wave that Whisper hears at once, and what it heard.

    Attributes:
        wave: float32 [samples], 16 kHz.
        start: Its first sample in the whole wave.
        language: Spoken in it.
        language_confidence: Its posterior among the languages, when it was found.
        text: What was heard.
        words: With times in samples of the whole wave.
        log_posteriors: Of each token and of the end, natural logarithms.
        no_speech: Posterior that nobody speaks.
    """

    wave: Wave
    start: int
    language: str | None
    language_confidence: float | None = None
    text: str = ""
    words: tuple[Word, ...] = ()
    log_posteriors: list[float] = field(default_factory=list)
    no_speech: float | None = None


def joined(chunks: Sequence[Chunk], found: bool) -> Transcript:
    """Returns the transcript of a wave from those of its chunks.

    Args:
        chunks: In order; none for a wave in which there was nothing to hear.
        found: The language was found and not told.
    """
    if not chunks:
        return Transcript("")
    text = ("" if chunks[0].language in UNSPACED else " ").join(chunk.text for chunk in chunks if chunk.text)
    logs = [value for chunk in chunks for value in chunk.log_posteriors]
    silences = [chunk.no_speech for chunk in chunks if chunk.no_speech is not None]
    return Transcript(
        text, tuple(word for chunk in chunks for word in chunk.words),
        _rounded(math.exp(sum(logs) / len(logs))) if text and logs else None,
        language=chunks[0].language if found else None,
        language_confidence=chunks[0].language_confidence if found else None,
        no_speech=min(silences, default=None),
    )  # fmt: skip


class Whisper:
    """A loaded checkpoint.

    Args:
        name: Folder or hub id.
        revision: Of a hub id.
        offline: Take a hub id from the local cache only.
        device: `cpu`, `cuda` or `cuda:N`.
        dtype: Of the weights.
        threads: Of torch, on the CPU.
        max_new_tokens: Of a chunk; None: half the decoder's positions.

    Raises:
        MissingExtraError: transformers or torch is not installed.
        ConfigError: The model is not there or no Whisper, or the device is missing.
    """

    def __init__(
        self, name: str, revision: str | None, offline: bool, device: str, dtype: str, threads: int,
        max_new_tokens: int | None,
    ) -> None:  # fmt: skip
        try:
            import torch
            from transformers import WhisperForConditionalGeneration, WhisperProcessor
        except ImportError as error:
            raise MissingExtraError(error.name or "transformers", "asr-whisper", "asr 'whisper'") from error
        if device != "cpu" and not torch.cuda.is_available():
            raise ConfigError(f"device '{device}': torch sees no CUDA here; use device cpu")
        place: dict[str, Any] = {"revision": revision or "main", "local_files_only": offline}
        try:
            processor: Any = WhisperProcessor.from_pretrained(name, **place)
            model: Any = WhisperForConditionalGeneration.from_pretrained(name, dtype=getattr(torch, dtype), **place)
        except Exception as error:  # the hub, its cache and the readers of each file raise their own
            remedy = "; set offline: false to download it" if offline else ""
            raise ConfigError(f"cannot load Whisper '{name}' at '{revision}': {error}{remedy}") from error
        if device == "cpu":
            torch.set_num_threads(threads)
        self._model, self._tokenizer = model.to(device).eval(), processor.tokenizer
        self._extractor, self._device = processor.feature_extractor, device
        self._generation = model.generation_config
        self._generation.max_length = None  # max_new_tokens says it
        positions, end = model.config.max_target_positions, int(self._generation.eos_token_id)
        self._most_tokens = min(max_new_tokens or positions // 2, positions - _MARKS)
        # Text has the ids below the end of text; language, task and time marks, those above, are never text.
        marks = range(end + 1, model.config.vocab_size)
        self._end, self._silenced = end, sorted({*(self._generation.suppress_tokens or ()), *marks})
        self.most_samples = int(self._extractor.n_samples)
        self.multilingual = bool(getattr(self._generation, "is_multilingual", True))
        ids: dict[str, int] = getattr(self._generation, "lang_to_id", None) or {}
        if not self.multilingual:
            ids = {"<|en|>": 0}  # never asked for: its prompt has no language
        self.language_ids = {tag.strip("<|>"): int(number) for tag, number in ids.items()}
        if not self.language_ids:
            raise ConfigError(f"'{name}' has a generation config without languages (lang_to_id); take a newer one")

    def find_languages(self, chunks: Sequence[Chunk], choices: Sequence[str]) -> None:
        """Fills in language and language_confidence: the likeliest of `choices` after the first token."""
        import torch

        ids = [self.language_ids[name] for name in choices]
        with torch.inference_mode():
            start = torch.full((len(chunks), 1), self._generation.decoder_start_token_id, device=self._device)
            logits = self._model(encoder_outputs=self._encoded(chunks)[0], decoder_input_ids=start).logits[:, 0]
            posteriors = logits[:, ids].float().softmax(dim=-1).cpu().numpy()
        for chunk, row in zip(chunks, posteriors, strict=True):
            chunk.language, chunk.language_confidence = choices[int(row.argmax())], _rounded(float(row.max()))

    def hear(self, chunks: Sequence[Chunk], word_times: bool) -> None:
        """Fills in text, words, posteriors and no_speech of chunks whose language is known."""
        import torch

        with torch.inference_mode():
            encoded, mask = self._encoded(chunks)
            told: dict[str, Any] = {}
            if self.multilingual:
                told = {"language": [f"<|{chunk.language}|>" for chunk in chunks], "task": "transcribe"}
            rows = self._model.generate(
                encoder_outputs=encoded, attention_mask=mask, return_timestamps=False, do_sample=False, num_beams=1,
                temperature=0.0, max_new_tokens=self._most_tokens, suppress_tokens=self._silenced,
                force_unique_generate_call=True, **told,
            )  # fmt: skip
            texts = [[token for token in row.tolist() if token < self._end] for row in rows]
            self._judge(chunks, texts, encoded, word_times)

    def _judge(self, chunks: Sequence[Chunk], texts: Sequence[list[int]], encoded: Any, word_times: bool) -> None:
        import torch

        prompts = [self._prompt(chunk.language) for chunk in chunks]
        first = len(prompts[0]) - 1
        sequences = [torch.tensor([*prompt, *text, self._end]) for prompt, text in zip(prompts, texts, strict=True)]
        padded = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True, padding_value=self._end).to(self._device)
        heads = getattr(self._generation, "alignment_heads", None) if word_times else None
        with self._attention(heads or []) as weights:
            logits = self._model(encoder_outputs=encoded, decoder_input_ids=padded).logits.float()
        nobody = logits[:, 0].softmax(dim=-1)[:, self._generation.no_timestamps_token_id - 1].tolist()
        logs = logits[:, first:-1].log_softmax(dim=-1).gather(2, padded[:, first + 1 :, None])[:, :, 0].tolist()
        for number, (chunk, text) in enumerate(zip(chunks, texts, strict=True)):
            chunk.text = self._spell(text).replace(BROKEN, "").strip()
            chunk.log_posteriors, chunk.no_speech = logs[number][: len(text) + 1], _rounded(nobody[number])
            if weights and chunk.text:
                attended = np.concatenate([w[number][:, first : first + len(text) + 1] for w in weights])
                chunk.words = self._words(chunk, text, attended)

    def _words(self, chunk: Chunk, text: Sequence[int], weights: Floats) -> tuple[Word, ...]:
        positions = max(-(-len(chunk.wave) // POSITION_SAMPLES), 1)
        begins = first_positions(attention_scores(weights[..., :positions], self._model.config.median_filter_width))
        if begins is None:
            return ()
        places = (chunk.start + begins * POSITION_SAMPLES).tolist()
        return token_words(text, places, self._spell, chunk.language, chunk.start + len(chunk.wave))

    def _spell(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False))

    def _prompt(self, language: str | None) -> list[int]:
        """Returns the tokens before the text, as `generate` sets them."""
        start, plain = int(self._generation.decoder_start_token_id), int(self._generation.no_timestamps_token_id)
        if not self.multilingual:
            return [start, plain]
        return [start, self.language_ids[str(language)], int(self._generation.task_to_id["transcribe"]), plain]

    def _encoded(self, chunks: Sequence[Chunk]) -> tuple[Any, Any]:
        """Returns the states of the encoder and which of its input frames are sound, [chunks, frames]."""
        features = self._extractor(
            [chunk.wave for chunk in chunks], sampling_rate=_RATE, return_tensors="pt", return_attention_mask=True
        )
        mel = features.input_features.to(self._device, self._model.dtype)
        mask = features.attention_mask.to(self._device)
        return self._model.get_encoder()(mel, attention_mask=mask), mask

    @contextmanager
    def _attention(self, heads: Sequence[Sequence[int]]) -> Iterator[list[Floats]]:
        """Yields a list that a pass of the decoder fills with weights of heads, [clips, heads, tokens, positions].

        Fused attention gives no weights, so that pass is made without it.
        """
        kept: list[Floats] = []
        by_layer: dict[int, list[int]] = {}
        for layer, head in heads:
            by_layer.setdefault(int(layer), []).append(int(head))

        def keep(chosen: list[int]) -> Any:
            return lambda _module, _args, out: kept.append(out[1][:, chosen].float().cpu().numpy())

        layers, before = self._model.model.decoder.layers, self._model.config._attn_implementation
        hooks = [layers[layer].encoder_attn.register_forward_hook(keep(chosen)) for layer, chosen in by_layer.items()]
        try:
            if hooks:
                self._model.set_attn_implementation("eager")
            yield kept
        finally:
            for hook in hooks:
                hook.remove()
            if hooks:
                self._model.set_attn_implementation(before)


def _rounded(posterior: float) -> float:
    # Sums of another order, as in a batch of another size, differ in the last bits; four digits are the same.
    return round(min(posterior, 1.0), 4)
