"""What the tests of the speaker LM share: the text tokenizer, its compact vocabulary, the smallest network."""

import json

import numpy as np
import pytest


@pytest.fixture(scope="session")
def tokenizer():
    from data_engine.backends.text_bpe import BpeTokenizer

    opened = BpeTokenizer()
    opened.open()
    return opened


@pytest.fixture(scope="session")
def vocabulary():
    from data_engine.core.config import BackendChoice
    from data_engine.export.tokenizer import read_document
    from data_engine.tokens.compact import CompactVocabulary
    from data_engine.training.speaker_folder import used_text_ids

    return CompactVocabulary(used_text_ids(read_document(BackendChoice(name="bpe"))))


TEXTS = ("the boat was waiting", "nobody knew his name", "good morning to you", "we went home early")


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """A corpus of four utterances as training reads it."""
    from data_engine.backends.espeak_library import Utterance
    from data_engine.models.phones import TOKEN_IDS
    from data_engine.training.speech import teacher_espeak
    from data_engine.training.speech.texts import Sentence

    folder = tmp_path_factory.mktemp("cache")
    spoken = [
        teacher_espeak.speak(Sentence(t, "en", "test"), Utterance(t, "en-us", "m2", rate=200), 1.0, "train")
        for t in TEXTS
    ]
    waves = [np.rint(one.wave * 32767).astype(np.int16) for one in spoken]
    counts, lengths = (np.array([len(part) for part in parts]) for parts in ([one.phones for one in spoken], waves))
    zeros = np.zeros(len(spoken), np.int64)
    (folder / "espeak").mkdir()
    np.save(folder / "espeak" / "wave.npy", np.concatenate(waves))
    (folder / "espeak" / "sources.json").write_text(json.dumps(["espeak-ng"]))
    np.savez(
        folder / "espeak" / "index.npz", start=np.cumsum(lengths) - lengths, length=lengths, speaker=zeros,
        phone_start=np.cumsum(counts) - counts, phone_count=counts, timed=zeros + 1, source=zeros,
        phones=np.array([TOKEN_IDS[phone.name] for one in spoken for phone in one.phones]),
        ends=np.array([phone.end for one in spoken for phone in one.phones]),
    )  # fmt: skip
    return folder
