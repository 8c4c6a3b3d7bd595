"""The speaker LM that ships, on a real vLLM: it answers in text, and to speech in text and speech."""

import json
from pathlib import Path

import numpy as np
import pytest

from data_engine.backends.llm_sampling import Sampling
from data_engine.backends.llm_served import ServedModel
from data_engine.backends.model_server import Endpoint
from data_engine.backends.text_bpe import BpeTokenizer
from data_engine.io.retry import Backoff
from data_engine.tokens.compact import CompactVocabulary
from data_engine.tokens.interleave import split_interleaved
from data_engine.tokens.templates import Turn, chat_prompt_ids
from data_engine.tokens.vocabulary import SpecialTokens, is_linguistic, is_semantic
from tests.serving.conftest import CHECKOUT, PYTHON, Served

pytest.importorskip("httpx2")
pytestmark = [pytest.mark.xdist_group("vllm"), pytest.mark.timeout(900)]

FOLDER = CHECKOUT / "data_engine" / "assets" / "speaker_lm"
SPOKEN = json.loads(Path(__file__).with_name("spoken_questions.json").read_text(encoding="utf-8"))
"""Held-out spoken questions as codes of the embedded codec, those that the model answers right."""

WRITTEN = {"What is the capital of France?": "Paris.", "Which day follows Thursday?": "It is Friday.",
           "Name the capital of Egypt.": "Cairo.", "What day comes before Sunday?": "It is Saturday."}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    built = BpeTokenizer()
    built.open()
    return built


@pytest.fixture(scope="module")
def answered(tokenizer, tmp_path_factory):
    """Returns a function that has chats continued by the served model: the engine's ids of each answer."""
    if not PYTHON.is_file():
        pytest.skip("there is no .venv-serving; run `make test-serving`")
    special = special_of(tokenizer)
    vocabulary = CompactVocabulary(json.loads((FOLDER / "engine_vocabulary.json").read_text())["text_size"])
    server = Served(FOLDER, tmp_path_factory.mktemp("vllm") / "log", "speaker-lm@r1", 1024)
    model = ServedModel(Endpoint("speaker-lm", "r1", server.url, "NO_KEY", 8, 300.0, 5.0, Backoff(3, 0.5)),
                        Sampling(temperature=0.0, top_p=1.0, max_tokens=300))  # fmt: skip

    def complete(turns):
        prompts = [vocabulary.to_model(chat_prompt_ids([turn], tokenizer.encode, special)).tolist() for turn in turns]
        done = model.complete(prompts, [1] * len(prompts))
        return [vocabulary.from_model(np.array(one.token_ids, np.int32)) for one in done]

    try:
        server.wait()
        model.open()
        yield complete
    finally:
        model.close()
        server.kill()


def special_of(tokenizer):
    return SpecialTokens.from_mapping({name: n for name, n in tokenizer.specials().items() if name != "<unk>"})


def parts_of(ids, tokenizer):
    """Returns the text of an answer and its audio ids."""
    special = special_of(tokenizer)
    text, audio = split_interleaved(ids[ids != special.end_of_turn], special)
    return tokenizer.decode(text.tolist()), audio


def test_written_questions_are_answered(answered, tokenizer):
    said = answered([Turn("user", question) for question in WRITTEN])
    texts = [parts_of(ids, tokenizer)[0] for ids in said]
    right = sum(text == answer for text, answer in zip(texts, WRITTEN.values(), strict=True))
    assert right >= 3, texts


def test_spoken_questions_are_answered_in_text_and_speech(answered, tokenizer):
    said = answered([Turn("user", one["question"], np.array(one["audio"], np.int32)) for one in SPOKEN])
    found = [parts_of(ids, tokenizer) for ids in said]
    right = sum(text == one["answer"] for (text, _), one in zip(found, SPOKEN, strict=True))
    assert right >= len(SPOKEN) - 2, [text for text, _ in found]
    for _, audio in found:
        words, sounds = int(is_linguistic(audio).sum()), int(is_semantic(audio).sum())
        assert words >= 8
        assert 2 * sounds == 3 * words, "whole groups of two linguistic and three semantic codes"
