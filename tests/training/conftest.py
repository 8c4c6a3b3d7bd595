"""What the tests of the speaker LM share: the text tokenizer, its compact vocabulary, the smallest network."""

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
