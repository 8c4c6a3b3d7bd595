"""What a trained speaker LM says: greedy decoding in batches, with transformers and its cache of keys and values."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_engine.tokens.compact import CompactVocabulary
from data_engine.tokens.interleave import split_interleaved
from data_engine.tokens.vocabulary import Codes, Ids, SpecialTokens, codes_from_ids, is_linguistic, is_semantic
from data_engine.training.speaker_folder import VOCABULARY_FILE


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """What a model wrote: text ids, linguistic and semantic codes in their order, and whether it came to an end."""

    text: Ids
    linguistic: Codes
    semantic: Codes
    ended: bool

    def whole_groups(self) -> tuple[Codes, Codes]:
        """Returns linguistic [2 groups] and semantic [3 groups] codes of whole groups of 120 ms."""
        groups = min(len(self.linguistic) // 2, len(self.semantic) // 3)
        return self.linguistic[: 2 * groups], self.semantic[: 3 * groups]


class SpeakerModel:
    """A speaker LM's folder, ready to go on with prompts.

    Args:
        folder: What `speaker_folder.save_folder` wrote.
        special: Special tokens of its text tokenizer.
    """

    def __init__(self, folder: Path, special: SpecialTokens) -> None:
        import torch
        from transformers import LlamaForCausalLM

        self.special = special
        known = json.loads((folder / VOCABULARY_FILE).read_text(encoding="utf-8"))
        self.vocabulary = CompactVocabulary(known["text_size"])
        model: Any = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self._model = model.eval()

    def say(self, prompts: Sequence[Ids], most: int, batch: int = 32) -> list[Said]:
        """Returns what follows each prompt, the most likely id at every step.

        Args:
            prompts: Engine ids of each prompt.
            most: Ids after which an answer is cut off.
            batch: Prompts at once; those of about one length go together.
        """
        order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
        found: dict[int, Said] = {}
        for first in range(0, len(order), batch):
            chosen = order[first : first + batch]
            rows = self._continued([self.vocabulary.to_model(prompts[number]) for number in chosen], most)
            found.update(zip(chosen, map(self._said, rows), strict=True))
        return [found[number] for number in range(len(prompts))]

    def _continued(self, prompts: Sequence[Ids], most: int) -> list[Ids]:
        import torch

        longest = max(map(len, prompts))
        ids = np.full((len(prompts), longest), self.special["pad"], np.int64)
        inside = np.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :], inside[row, longest - len(prompt) :] = prompt, 1
        with torch.inference_mode():
            made = self._model.generate(
                torch.from_numpy(ids), attention_mask=torch.from_numpy(inside), do_sample=False, max_new_tokens=most,
                eos_token_id=self.special.end_of_turn, pad_token_id=self.special["pad"],
            )  # fmt: skip
        return [row.astype(np.int32) for row in made[:, longest:].numpy()]

    def _said(self, row: Ids) -> Said:
        ends = np.flatnonzero(row == self.special.end_of_turn)
        kept = row[: ends[0]] if ends.size else row
        text, audio = split_interleaved(self.vocabulary.from_model(kept), self.special)
        words, sounds = audio[is_linguistic(audio)], audio[is_semantic(audio)]
        return Said(text, codes_from_ids(words), codes_from_ids(sounds), bool(ends.size))
