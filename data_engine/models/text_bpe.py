"""Trains the embedded text tokenizer: `python -m data_engine.models.text_bpe`.

A byte-level BPE over English and Chinese in the id space of the Step-Audio family: special tokens at fixed low
ids, text below 65,536, `<audio_0>` .. `<audio_5119>` from 65,536 on. The file is in Hugging Face's format.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from data_engine.backends.text_bpe import TOKENIZER
from data_engine.models.bank_text import bank_sentences
from data_engine.tokens.vocabulary import AUDIO_OFFSET, AUDIO_SIZE

SPECIAL_TOKENS = (
    "<pad>", "<s>", "</s>", "<|EOT|>", "<|BOT|>", "<unk>", "<audio_start>", "<audio_end>", "<|CALL_START|>",
    "<|CALL_END|>", "<|THINK_START|>", "<|THINK_END|>", "<|MASK_1e69f|>", "<|UNMASK_1e69f|>",
)  # fmt: skip
"""In the order of their ids; 1, 3 and 4 are those of Step-Audio."""
FIRST_TEXT_ID = 32
"""Ids between the special tokens and the text are kept free."""
NUM_PIECES = 256 + 4096

_WORD = re.compile(r"[^\W\d_]+")
_LONGEST_PIECE = 16


def corpus() -> Iterator[str]:
    """Yields the sentences of the script bank, then each of its English words once more, after a space.

    The words keep rare ones from losing to the phrases that templates repeat.
    """
    english, chinese = bank_sentences("en"), bank_sentences("zh")
    yield from english
    yield from chinese
    words = {word for sentence in english for word in _WORD.findall(sentence)}
    yield from sorted(f" {form}" for word in words for form in (word.lower(), word.capitalize()))


def train(texts: Iterator[str]) -> dict[str, Any]:
    """Returns the tokenizer as the parsed content of a `tokenizer.json`.

    Args:
        texts: What to train on.
    """
    from tokenizers import Tokenizer
    from tokenizers.decoders import ByteLevel as ByteLevelDecoder
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from tokenizers.trainers import BpeTrainer

    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=NUM_PIECES, min_frequency=2, show_progress=False, max_token_length=_LONGEST_PIECE,
        initial_alphabet=sorted(ByteLevel.alphabet()), special_tokens=[],
    )  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    return lay_out(json.loads(tokenizer.to_str()))


def lay_out(document: dict[str, Any]) -> dict[str, Any]:
    """Returns a freshly trained tokenizer with its pieces moved to the text ids and all other tokens added."""
    pieces = sorted(document["model"]["vocab"], key=document["model"]["vocab"].__getitem__)
    added = {token: number for number, token in enumerate(SPECIAL_TOKENS)}
    audio = {f"<audio_{code}>": AUDIO_OFFSET + code for code in range(AUDIO_SIZE)}
    text = {piece: FIRST_TEXT_ID + number for number, piece in enumerate(pieces)}
    document["model"]["vocab"] = {**added, **text, **audio}
    document["added_tokens"] = [_added_token(name, number) for name, number in {**added, **audio}.items()]
    return document


def _added_token(content: str, number: int) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": content, **flags, "special": True}


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains and writes."""
    parser = argparse.ArgumentParser(prog="python -m data_engine.models.text_bpe", description=__doc__)
    parser.add_argument("--output", type=Path, default=TOKENIZER, help="where to write tokenizer.json")
    options = parser.parse_args(arguments)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    document = json.dumps(train(corpus()), ensure_ascii=False, separators=(",", ":"))
    options.output.write_text(document + "\n", encoding="utf-8")
    print(f"{options.output}: {options.output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
