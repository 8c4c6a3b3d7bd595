"""The speaker LM's folder: what transformers and vLLM load, with the tokenizer of the compact vocabulary."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_engine.core.config import BackendChoice
from data_engine.export.tokenizer import complete_document, read_document, tokenizer_files
from data_engine.tokens.compact import CompactVocabulary
from data_engine.tokens.vocabulary import AUDIO_OFFSET, SpecialTokens

VOCABULARY_FILE = "engine_vocabulary.json"
_CHAT = (
    "{% for message in messages %}<|BOT|>{{ 'human' if message['role'] == 'user' else message['role'] }}\n"
    "{{ message['content'] }}<|EOT|>{% endfor %}{% if add_generation_prompt %}<|BOT|>assistant\n{% endif %}"
)


def used_text_ids(document: Mapping[str, Any]) -> int:
    """Returns how many text ids a tokenizer needs: one more than its largest below the audio ids."""
    used: list[int] = [number for number in document["model"]["vocab"].values() if number < AUDIO_OFFSET]
    used += [token["id"] for token in document.get("added_tokens") or () if token["id"] < AUDIO_OFFSET]
    return max(used) + 1


def compact_document(document: Mapping[str, Any], vocabulary: CompactVocabulary) -> dict[str, Any]:
    """Returns a complete `tokenizers` document with the ids of a compact vocabulary."""

    def moved(number: int) -> int:
        return number if number < AUDIO_OFFSET else number - AUDIO_OFFSET + vocabulary.text_size

    def kept(number: int) -> bool:
        return number < vocabulary.text_size or number >= AUDIO_OFFSET

    names = {name: moved(number) for name, number in document["model"]["vocab"].items() if kept(number)}
    added = [{**token, "id": moved(token["id"])} for token in document["added_tokens"] if kept(token["id"])]
    return {**document, "added_tokens": added, "model": {**document["model"], "vocab": names}}


def save_folder(
    model: Any, folder: Path, tokenizer: BackendChoice, specials: Mapping[str, int], vocabulary: CompactVocabulary
) -> None:
    """Writes weights as bfloat16 safetensors, config, tokenizer and the map to the engine's ids.

    Args:
        model: A LlamaForCausalLM; it keeps its own precision.
        folder: Made when absent.
        tokenizer: The text tokenizer's choice, whose document is stored.
        specials: Its special tokens.
        vocabulary: Of the model.
    """
    import copy

    import torch

    special = SpecialTokens.from_mapping({name: n for name, n in specials.items() if name != "<unk>"})
    saved = copy.deepcopy(model).to(torch.bfloat16)
    saved.config.dtype = torch.bfloat16
    saved.generation_config.update(
        bos_token_id=special.bos, eos_token_id=special.end_of_turn, pad_token_id=special["pad"]
    )
    saved.save_pretrained(folder)
    document = compact_document(complete_document(read_document(tokenizer), specials), vocabulary)
    for name, content in tokenizer_files(document, specials).items():
        (folder / name).write_bytes(content)
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    text = json.dumps({**config, "chat_template": _CHAT}, indent=2)
    (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")
    known = {"text_size": vocabulary.text_size, "audio_offset": vocabulary.text_size, "size": vocabulary.size}
    (folder / VOCABULARY_FILE).write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
