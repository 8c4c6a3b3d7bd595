"""Makes the words of the embedded recognizer: lexicons in phones and small n-gram models, English and Mandarin.

English words and n-grams come from the BSD-licensed model in the pocketsphinx wheel, read texts of the public domain
and the script bank; Mandarin ones from GB 2312, the script bank and pinyin lists. What is held out for
tests is not used.
"""

from __future__ import annotations

import argparse
import gzip
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from data_engine.backends.pronunciation import Phones, by_espeak
from data_engine.models.phones import TOKENS
from data_engine.stages.rules.measures import words as words_of
from data_engine.training.language_model import (
    BEGIN,
    END,
    Keyed,
    Model,
    counted,
    mixed,
    pruned,
    restricted,
    write_arpa,
)
from data_engine.training.pronunciations import (
    dictionary,
    english_lexicon,
    mandarin_readings,
    spelled,
)
from data_engine.training.speech import texts
from data_engine.training.sphinx_ngrams import Ngrams, model_folder, read_ngrams

_PLAIN = re.compile(r"[a-z]+(?:'[a-z]+)*'?|'[a-z]+")
_VOCABULARY, _PAIRS, _TRIPLES = 30_000, 320_000, 220_000
_ENGLISH_SHARE, _MANDARIN_SHARE = 0.2, 0.9
_RARE = 2
"""Times a word must occur in read texts that the large model ranks below the vocabulary."""


def sentences(lists: Path) -> list[list[str]]:
    """Returns the English sentences in words, those with figures left out as nobody says how they are read."""
    read = texts.listed(lists / "LJSpeech" / "train.txt", "en", "LJ Speech", (2, 60))
    said = [*read, *texts.bank("en", test=False)]
    return [words_of(sentence.text) for sentence in said if not re.search(r"\d", sentence.text)]


def vocabulary(large: Ngrams, said: Iterable[Sequence[str]], known: dict[str, list[Phones]]) -> list[str]:
    """Returns the words to know, likeliest first: the commonest of the large model and those of our own texts.

    Args:
        large: Gives the order.
        said: Our own sentences.
        known: Words with a pronunciation in the dictionary.
    """
    ranked = [large.words[n] for n in np.argsort(-large.unigrams, kind="stable")]
    common = [word for word in ranked if _PLAIN.fullmatch(word) and word in known][:_VOCABULARY]
    counts = Counter(word for sentence in said for word in sentence)
    own = sorted(word for word, count in counts.items() if count >= _RARE and _PLAIN.fullmatch(word))
    return list(dict.fromkeys([*common, *own]))


def write_lexicon(rows: Iterable[tuple[str, Phones]], path: Path) -> None:
    """Writes lines of word, tab, phones, gzipped, the same bytes for the same rows."""
    text = "".join(f"{word}\t{' '.join(phones)}\n" for word, phones in rows)
    with path.open("wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
        packed.write(text.encode("utf-8"))


def english(lists: Path, folder: Path) -> None:
    """Writes `en.lexicon.gz` and `en.arpa.gz`."""
    large, known = read_ngrams(model_folder() / "en-us.lm.bin"), dictionary(model_folder() / "cmudict-en-us.dict")
    said = sentences(lists)
    rows = list(english_lexicon(vocabulary(large, said, known), known))
    write_lexicon(rows, folder / "en.lexicon.gz")
    general = restricted(large, list(dict.fromkeys(word for word, _ in rows)))
    whole = mixed(general, counted(said, general.words), _ENGLISH_SHARE)
    write_arpa(pruned(whole, _PAIRS, _TRIPLES), folder / "en.arpa.gz")


def common_characters() -> list[str]:
    """Returns the 3,755 characters of level 1 of GB 2312 (rows 16 to 55), the common ones."""
    codes = (bytes((0xA0 + row, 0xA0 + cell)) for row in range(16, 56) for cell in range(1, 95))
    return [code.decode("gb2312") for code in codes if code < b"\xd7\xfa"]


def clauses(sentence: str) -> list[str]:
    """Returns the runs of Chinese characters of a sentence."""
    return re.findall(r"[\u4e00-\u9fff]+", sentence)


def mandarin(lists: Path, folder: Path) -> None:
    """Writes `zh.lexicon.gz`, characters and their readings, `zh.arpa.gz` of syllables and `zh.characters.arpa.gz`."""
    said = [clause for sentence in texts.bank("zh", test=False) for clause in clauses(sentence.text)]
    characters = list(dict.fromkeys([*"".join(said), *common_characters()]))
    readings = mandarin_readings(characters, said)
    write_lexicon(((c, way) for c, ways in readings.items() for way in ways), folder / "zh.lexicon.gz")
    spoken = (spelled(clause, by_espeak(clause, "cmn"), readings) for clause in said)
    syllables = [[syllable_name(way) for way in ways] for ways in spoken if ways]
    syllables += pinyin_sentences(lists)
    names = Counter(syllable_name(way) for ways in readings.values() for way in ways)
    small = mixed_with_counts(names, syllables)
    write_arpa(small, folder / "zh.arpa.gz")
    write_arpa(mixed_with_counts(Counter(list(readings)), [list(c) for c in said]), folder / "zh.characters.arpa.gz")


def syllable_name(phones: Phones) -> str:
    """Returns what a syllable is called in the syllable model."""
    return "".join(phones)


def pinyin_sentences(lists: Path) -> list[list[str]]:
    """Returns the syllables of the training part of the pinyin list."""
    lines = [line.text.split() for line in texts.listed(lists / "AISHELL3" / "val.txt", "zh", "AISHELL-3", (3, 60))]
    names = {p: syllable_name(by_espeak(p, "cmn-latn-pinyin")) for line in lines[20:] for p in line}
    return [[names[p] for p in line] for line in lines[20:]]


def mixed_with_counts(weights: Counter[str], said: Sequence[Sequence[str]]) -> Model:
    """Returns a bigram model of sentences, smoothed with the weights of the words."""
    words = [BEGIN, END, *weights]
    chances = np.array([0.0, 1.0, *weights.values()]) / (1 + weights.total())
    with np.errstate(divide="ignore"):
        flat = np.log(chances)
    none = Keyed(np.zeros(0, np.int64), np.zeros(0))
    return mixed(Model(words, flat, none, none), counted(said, words), _MANDARIN_SHARE)


def main() -> None:
    """Runs `python -m data_engine.training.lexicon --lists FOLDER TARGET`."""
    parser = argparse.ArgumentParser(description="Makes lexicons and language models of the embedded recognizer.")
    parser.add_argument("--lists", type=Path, required=True, help="FastSpeech 2's preprocessed_data")
    parser.add_argument("--language", choices=("en", "zh", "all"), default="all")
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    (arguments.folder / "tokens.txt").write_text("".join(f"{name}\n" for name in TOKENS), encoding="utf-8")
    for language, make in (("en", english), ("zh", mandarin)):
        if arguments.language in (language, "all"):
            make(arguments.lists, arguments.folder)


if __name__ == "__main__":
    main()
