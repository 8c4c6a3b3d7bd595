"""The back end `llm: vllm` against a real HTTP server that answers, fails, stalls and breaks off as told."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from data_engine.backends.catalog import BackendCache, build_backend
from data_engine.backends.llm_prompts import assign, read_wording, script_schema
from data_engine.backends.llm_vllm import VllmWriter
from data_engine.backends.prosody_rules import read_rules
from data_engine.backends.protocols import Brief
from data_engine.core.errors import ConfigError, ShardError
from data_engine.core.harness import StageRun
from data_engine.core.stage import Worker
from data_engine.stages.rules.script_rules import check_script
from data_engine.stages.script import WriteScript

jsonschema = pytest.importorskip("jsonschema")
pytest.importorskip("httpx2")
RULES = read_rules()


def instance(schema, seed):
    """The simplest value of a schema, with the seed in its texts."""
    if "enum" in schema:
        return schema["enum"][seed % len(schema["enum"])]
    if schema["type"] == "object":
        return {name: instance(schema["properties"][name], seed + i) for i, name in enumerate(schema["required"])}
    if schema["type"] == "array":
        return [instance(schema["items"], seed)] * schema.get("minItems", 0)
    return f"words {seed}" if schema["type"] == "string" else 1


class Stub(ThreadingHTTPServer):
    """Serves /v1 of one model; `faults` are what happens to the next POSTs, one each."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.models, self.faults, self.bodies, self.headers = ["small"], [], [], []
        self.key, self.is_well, self.busy, self.most_busy, self.hung_up = None, True, 0, 0, threading.Event()
        self.guard, self.pause = threading.Lock(), 0.0
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def handle_error(self, request, client_address):
        """Clients that hang up are part of the tests."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body, headers=()):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in (("Content-Length", str(len(content))), *headers):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self):
        if self.server.key and self.headers.get("Authorization") != f"Bearer {self.server.key}":
            return self.answer(401, {"error": "no key"})
        if self.path == "/health":
            return self.answer(200 if self.server.is_well else 503, b"")
        return self.answer(200, {"data": [{"id": name} for name in self.server.models]})

    def do_POST(self):
        server, body = self.server, json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.guard:
            server.bodies.append(body)
            fault = server.faults.pop(0) if server.faults else None
            server.busy += 1
            server.most_busy = max(server.most_busy, server.busy)
        time.sleep(server.pause)
        try:
            self.respond(fault, body)
        finally:
            with server.guard:
                server.busy -= 1

    def respond(self, fault, body):
        if fault == "cut":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"choices": [')
            self.close_connection = True
        elif fault == "stall":
            self.connection.settimeout(10)
            if self.connection.recv(1) == b"":
                self.server.hung_up.set()
            self.close_connection = True
        elif isinstance(fault, int):
            self.answer(fault, {"error": {"message": f"status {fault} was ordered"}}, [("Retry-After", "0")])
        elif self.path.endswith("/completions") and "prompt" in body:
            self.answer(200, {"choices": [{"text": "<audio_7>", "token_ids": [65543]}]})
        else:
            schema = body["response_format"]["json_schema"]["schema"]
            text = fault if isinstance(fault, str) else json.dumps(instance(schema, body["seed"]))
            self.answer(200, {"choices": [{"message": {"content": text}}]})


@pytest.fixture
def stub():
    server = Stub()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def writer(stub):
    """Returns a function that opens a writer for the stub; all are closed at the end."""
    opened = []

    def build(**options):
        defaults = {"model": "small", "base_url": stub.url, "first_pause_seconds": 0.01, "timeout_seconds": 5}
        opened.append(VllmWriter(**{**defaults, **options}))
        opened[-1].open()
        return opened[-1]

    yield build
    for each in opened:
        each.close()


def briefs(count, axis="gaming", language="en"):
    return [Brief(f"b{seed}", language, axis, seed) for seed in range(count)]


@pytest.mark.parametrize("axis", sorted(read_wording().texts["axes"]))
def test_whatever_follows_the_schema_is_a_script_the_stage_accepts(writer, axis):
    for script in writer().write(briefs(6, axis)):
        checked = check_script(script, tuple(RULES.emotions), tuple(RULES.speeds))
        assert checked["turns"][0]["role"] == "user"
        assert (script["persona"] is not None) == (axis == "role_play")
        assert any(turn["call"] for turn in script["turns"]) == (axis == "tool_call") == bool(script["tools"])


def test_the_schema_is_a_json_schema_and_refuses_controls_that_do_not_exist():
    wording = read_wording()
    schema = script_schema(assign(briefs(1)[0], wording), wording)
    jsonschema.Draft202012Validator.check_schema(schema)
    good = instance(schema, 1)
    jsonschema.validate(good, schema)
    good["exchange_1"]["user"]["emotion"] = "hangry"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(good, schema)


def test_equal_briefs_send_equal_requests_and_give_equal_scripts(stub, writer):
    first, again = writer().write(briefs(3)), writer().write(briefs(3))
    assert first == again
    by_seed = sorted(json.dumps(body, sort_keys=True) for body in stub.bodies)
    assert by_seed[::2] == by_seed[1::2]
    assert len({body["seed"] for body in stub.bodies}) == 3


def test_the_briefs_of_a_batch_are_in_flight_together_and_no_more_than_allowed(stub, writer):
    stub.pause = 0.1
    assert len(writer(concurrency=4).write(briefs(12))) == 12
    assert stub.most_busy == 4


@pytest.mark.parametrize("fault", [429, 500, 503, "cut"])
def test_what_may_pass_is_tried_again(stub, writer, fault):
    stub.faults = [fault, fault]
    assert isinstance(writer().write(briefs(1))[0], dict)
    assert len(stub.bodies) == 3


def test_a_server_that_stays_overloaded_fails_the_shard_not_the_records(stub, writer):
    stub.faults = [503] * 100
    with pytest.raises(ShardError, match="in 3 attempts.*503"):
        writer(attempts=3).write(briefs(4))


@pytest.mark.parametrize("fault", [500, "cut", "stall"])
def test_a_brief_the_server_fails_alone_is_a_reject_and_its_neighbours_are_written(stub, writer, fault):
    served = writer(attempts=2, concurrency=1, timeout_seconds=0.3)
    stub.faults = [fault, fault]
    failed, written = served.write(briefs(2))
    assert (failed.code, isinstance(written, dict)) == ("BACKEND_FAILED", True)
    assert "2 attempts" in failed.detail


def test_the_same_failure_of_a_server_whose_engine_died_fails_the_shard(stub, writer):
    served = writer(attempts=2)
    stub.faults, stub.is_well = [500, 500], False
    with pytest.raises(ShardError):
        served.write(briefs(1))


def test_a_refused_request_is_a_reject_at_once(stub, writer):
    stub.faults = [400]
    failed = writer().write(briefs(1))[0]
    assert failed.code == "BACKEND_FAILED"
    assert "status 400 was ordered" in failed.detail
    assert len(stub.bodies) == 1


@pytest.mark.parametrize("malformed", ["", "no JSON at all", "[1, 2]", '{"exchange_1": {"user": {}}}', '{"exchange_1'])
def test_a_malformed_answer_is_asked_for_again_with_another_seed(stub, writer, malformed):
    stub.faults = [malformed, malformed]
    assert isinstance(writer(answers=3).write(briefs(1))[0], dict)
    assert len({body["seed"] for body in stub.bodies}) == 3


def test_answers_that_stay_malformed_are_an_invalid_script(stub, writer):
    stub.faults = ["{}"] * 2
    failed = writer(answers=2).write(briefs(1))[0]
    assert failed.code == "SCRIPT_INVALID"
    assert "asked 2 times" in failed.detail


def test_an_axis_nobody_knows_costs_no_request(stub, writer):
    assert writer().write(briefs(1, "cooking"))[0].code == "NO_SCRIPT"
    assert stub.bodies == []


def test_closing_from_another_thread_cancels_what_is_in_flight(stub, writer):
    served = writer(timeout_seconds=60)
    stub.faults = ["stall"]
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(served.write, briefs(1))
        while not stub.bodies:
            time.sleep(0.01)
        served.close()
        with pytest.raises(ShardError, match="closed"):
            writing.result(5)
    assert stub.hung_up.wait(5), "the server saw the connection end and can stop generating"


def test_a_failed_neighbour_cancels_the_rest_of_the_batch(stub, writer):
    served = writer(attempts=1, timeout_seconds=60)
    stub.faults = ["stall", 503]
    with pytest.raises(ShardError):
        served.write(briefs(2))
    assert stub.hung_up.wait(5)


def test_a_dead_server_fails_the_shard_when_opened_and_when_asked(stub, writer):
    served = writer(attempts=2)
    stub.shutdown()
    stub.server_close()
    served.close()
    with pytest.raises(ShardError, match="did not answer models"):
        writer(attempts=2)


def test_the_key_comes_from_the_environment_and_a_refused_one_ends_the_run(stub, writer, monkeypatch):
    stub.key = "sesame-open-up"
    with pytest.raises(ConfigError, match="MODEL_KEY"):
        writer(api_key_env="MODEL_KEY")
    monkeypatch.setenv("MODEL_KEY", stub.key)
    assert isinstance(writer(api_key_env="MODEL_KEY").write(briefs(1))[0], dict)
    with pytest.raises(ConfigError, match="api_key"):
        build_backend("llm", "vllm", {"model": "small", "api_key": "x"})


def test_a_url_with_a_password_is_refused_before_the_run():
    with pytest.raises(ConfigError, match="password"):
        build_backend("llm", "vllm", {"model": "small", "base_url": "http://me:sesame@host/v1"})


def test_the_url_may_come_from_the_environment(stub, writer, monkeypatch):
    monkeypatch.delenv("DATA_ENGINE_LLM_URL", raising=False)
    with pytest.raises(ConfigError, match="DATA_ENGINE_LLM_URL"):
        writer(base_url=None)
    monkeypatch.setenv("DATA_ENGINE_LLM_URL", stub.url)
    assert isinstance(writer(base_url=None).write(briefs(1))[0], dict)


def test_the_revision_is_known_without_a_server_and_another_one_is_refused(stub, writer):
    built = build_backend("llm", "vllm", {"model": "small", "revision": "r1"})
    assert built.revision.startswith("small@r1+prompts-")
    stub.models = ["small@r2"]
    with pytest.raises(ConfigError, match=r"no 'small@r1'; it serves: small@r2"):
        writer(revision="r1")
    stub.models = ["small@r1"]
    assert isinstance(writer(revision="r1").write(briefs(1))[0], dict)
    assert stub.bodies[-1]["model"] == "small@r1"


def test_completions_take_strings_or_ids_and_give_ids(stub, writer):
    model = writer().language_model
    text, ids = model.complete(["<audio_3><audio_start>", [1, 65539]], [5, 6], stop_token_ids=[3])
    assert (text.text, ids.token_ids) == ("<audio_7>", (65543,))
    assert sorted((str(b["prompt"]), b["seed"]) for b in stub.bodies) == [
        ("<audio_3><audio_start>", 5),
        ("[1, 65539]", 6),
    ]
    assert all(b["return_token_ids"] and not b["add_special_tokens"] for b in stub.bodies)


def test_impossible_options_are_configuration_errors():
    for options in (
        {"model": ""},
        {"model": "m", "top_p": 0},
        {"model": "m", "answers": 0},
        {"model": "m", "device": "tpu"},
    ):
        with pytest.raises(ConfigError):
            build_backend("llm", "vllm", options)
    with pytest.raises(ConfigError, match="no_such_option"):
        build_backend("llm", "vllm", {"no_such_option": 1})


def test_the_stage_counts_a_returned_reject_without_asking_again(stub):
    stage = WriteScript(WriteScript.Config(llm={"name": "vllm", "options": {"model": "small", "base_url": stub.url}}))
    cache = BackendCache()
    stage.open(Worker(None, cache))
    stub.faults = [400]
    rows = [{"brief_id": b.brief_id, "language": b.language, "axis": b.axis, "seed": b.seed} for b in briefs(3)]
    run = StageRun(stage, "sig")
    written = [row for batch in run.run([stage.spec.consumes.batch(rows)]) for row in batch.to_pylist()]
    cache.close()
    assert [reject["code"] for reject in run.rejects] == ["BACKEND_FAILED"]
    assert len(written) == 2
    assert len(stub.bodies) == 3
    assert written[0]["generator_revision"].startswith("small+prompts-")
