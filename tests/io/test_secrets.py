"""Credentials come from the environment and are never shown again."""

import traceback

import pytest

from data_engine.core.errors import ConfigError, RecordError, StorageError, TransientStorageError
from data_engine.core.harness import StageRun
from data_engine.io.storage import Storage
from data_engine.runners.attempts import classify
from tests.io.conftest import ACCESS_KEY, QUICK, SECRET_KEY
from tests.io.faults import KINDS, REFUSALS
from tests.io.small_run import briefs, plan_in, run_through
from tests.plugins import probe_stages as probe


class TestSecrets:
    def test_nothing_a_run_writes_or_says_holds_a_credential(self, plugin, s3, proxy, faulty, caplog):
        caplog.set_level("INFO", "data_engine")
        proxy.reset(lambda number: KINDS[number % 3] if number % 2 else None)
        storage, plan = plan_in(s3, faulty)
        run_through(storage, plan)
        said = [caplog.text, repr(plan), storage.uri]
        for kind in (*KINDS, *REFUSALS):
            proxy.reset(lambda number, kind=kind: kind)
            with pytest.raises((StorageError, TransientStorageError)) as caught:
                Storage(s3, {**faulty, "retry": {"attempts": 2}}).read_json("a")
            said += ["".join(traceback.format_exception(caught.value)), str(classify(caught.value))]
        proxy.reset()
        direct = Storage(s3)
        written = [str(direct.remote.read(path)) for path in direct.fs.find(direct.root)]
        assert len(written) == 9
        assert len(said) == 3 + 2 * len((*KINDS, *REFUSALS))
        assert "attempt 1 of" in caplog.text
        for text in (*said, *written):
            assert SECRET_KEY not in text
            assert ACCESS_KEY not in text

    def test_a_password_in_the_address_of_the_server_is_not_repeated(self, s3, monkeypatch):
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://ann:hunter2222@127.0.0.1:9")
        with pytest.raises((StorageError, TransientStorageError)) as caught:
            Storage(s3, QUICK).read_json("a")
        assert "hunter2222" not in "".join(traceback.format_exception(caught.value))

    def test_an_output_with_a_password_is_refused(self):
        with pytest.raises(ConfigError, match=r"s3://\*\*\*@bucket/x") as caught:
            Storage("s3://key:hunter2222@bucket/x")
        assert "hunter2222" not in str(caught.value)

    def test_rejects_do_not_repeat_signed_addresses(self):
        class Fails:
            spec = probe.Probe(probe.ProbeConfig()).spec

            def process(self, batch):
                raise RecordError("INTERNAL", "GET https://h/x.wav?X-Amz-Signature=abcdef failed")

        run = StageRun(Fails(), "sig")
        list(run.run([briefs([1])]))
        assert run.rejects[0]["detail"] == "GET https://h/x.wav?X-Amz-Signature=*** failed"
