"""The back end `llm: vllm` against a real vLLM: `make test-serving`. The last test kills the server."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from data_engine.backends.llm_vllm import VllmWriter
from data_engine.backends.prosody_rules import read_rules
from data_engine.backends.protocols import Brief
from data_engine.backends.text_bpe import BpeTokenizer
from data_engine.core.errors import ConfigError, RecordError, ShardError
from data_engine.stages.rules.script_rules import check_script

pytest.importorskip("httpx2")
pytestmark = [pytest.mark.xdist_group("vllm"), pytest.mark.timeout(900)]
LONG = 6000
AUDIO = range(65536, 70656)


@pytest.fixture
def writer(served):
    opened = []

    def build(**options):
        defaults = {"model": "small", "revision": "r1", "base_url": served.url, "first_pause_seconds": 0.05}
        opened.append(VllmWriter(**{**defaults, **options}))
        opened[-1].open()
        return opened[-1]

    yield build
    for each in opened:
        each.close()


def until_idle(served, seconds=20):
    for _ in range(seconds * 10):
        if served.running() == 0:
            return True
        time.sleep(0.1)
    return False


def wait_for_work(served):
    while served.running() == 0:
        time.sleep(0.02)


def test_even_random_weights_write_a_valid_script_under_the_schema_and_the_same_one_again(writer):
    briefs = [Brief("a", "en", "tool_call", 5), Brief("b", "zh", "voice_understanding", 2)]
    rules, scripts = read_rules(), writer().write(briefs)
    for script in scripts:
        assert check_script(script, tuple(rules.emotions), tuple(rules.speeds))["turns"][0]["role"] == "user"
    assert any(turn["call"] for turn in scripts[0]["turns"])
    assert [writer().write([brief])[0] for brief in briefs] == scripts, "neighbours change nothing"


def test_an_answer_cut_at_max_tokens_is_an_invalid_script(writer):
    failed = writer(max_tokens=20, answers=2).write([Brief("a", "en", "gaming", 1)])[0]
    assert (failed.code, "asked 2 times" in failed.detail) == ("SCRIPT_INVALID", True)


def test_audio_tokens_go_in_as_strings_or_ids_and_come_out_as_ids(writer):
    tokenizer, model = BpeTokenizer(), writer(max_tokens=16).language_model
    tokenizer.open()
    start = tokenizer.specials()["<audio_start>"]
    by_text, by_ids = model.complete(["<audio_3><audio_1030><audio_start>", [65539, 66566, start]], [7, 7])
    assert by_text == by_ids
    assert len(by_text.token_ids) == 16
    other = model.complete([[65539, 66566, start]], [8])[0]
    assert other != by_ids, "another seed goes on differently"


def test_special_and_audio_tokens_are_spelled_out_in_text(writer):
    model = writer(max_tokens=2000, top_p=1.0, temperature=2.0).language_model
    done = model.complete([[1, 65539]], [3])[0]
    spoken = [token for token in done.token_ids if token in AUDIO]
    assert spoken
    assert f"<audio_{spoken[0] - 65536}>" in done.text


def test_sixty_four_prompts_in_flight_give_what_each_gives_alone(writer):
    model = writer(max_tokens=12, concurrency=64).language_model
    prompts = [[1, 65536 + number] for number in range(64)]
    together = model.complete(prompts, range(64))
    assert [model.complete([prompts[i]], [i])[0] for i in (0, 31, 63)] == [together[i] for i in (0, 31, 63)]


def test_a_prompt_that_is_too_long_is_a_reject_and_its_neighbour_is_not(writer):
    refused, fine = writer(max_tokens=8).language_model.complete([[5] * 9000, [5]], [1, 1])
    assert isinstance(refused, RecordError)
    assert (refused.code, len(fine.token_ids)) == ("BACKEND_FAILED", 8)


def test_another_revision_or_model_is_refused(writer):
    for options in ({"revision": "r2"}, {"model": "other"}):
        with pytest.raises(ConfigError, match="it serves: small@r1"):
            writer(**options)


def test_a_request_past_its_time_is_a_reject_and_the_server_stops_working_on_it(writer, served):
    slow = writer(max_tokens=LONG, timeout_seconds=0.5, attempts=2).language_model.complete([[1, 2]], [1])[0]
    assert slow.code == "BACKEND_FAILED"
    assert "no answer within 0.5 s" in slow.detail
    assert until_idle(served)


def test_closing_cancels_what_the_server_is_generating(writer, served):
    model = writer(max_tokens=LONG).language_model
    with ThreadPoolExecutor(1) as pool:
        generating = pool.submit(model.complete, [[1, n] for n in range(8)], range(8))
        wait_for_work(served)
        model.close()
        with pytest.raises(ShardError, match="closed"):
            generating.result(10)
    assert until_idle(served)


def test_the_death_of_the_server_in_the_middle_of_a_batch_fails_the_shard(writer, served):
    model = writer(max_tokens=LONG, attempts=3).language_model
    with ThreadPoolExecutor(1) as pool:
        generating = pool.submit(model.complete, [[1, n] for n in range(8)], range(8))
        wait_for_work(served)
        served.kill()
        with pytest.raises(ShardError, match="run again: committed shards are kept"):
            generating.result(60)
    with pytest.raises(ShardError):
        writer(attempts=2)
