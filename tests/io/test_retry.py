"""What is tried again, how often, and what is said when it was in vain."""

import errno
import threading
import traceback

import aiohttp
import pytest
from botocore import exceptions as botocore
from s3fs.errors import translate_boto_error

from data_engine.core.errors import ConfigError, ContractError, StorageError, TransientStorageError
from data_engine.io.retry import Backoff, is_transient, retry, within


class Clock:
    """Time that passes only while somebody sleeps or an operation takes its time."""

    def __init__(self):
        self.now, self.slept = 0.0, []

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


def carry_out(failures, backoff=None, cost=0.0):
    """Runs an operation that fails with each of `failures` in turn; returns (calls, clock)."""
    clock, left = Clock(), list(failures)
    calls = []

    def operation():
        calls.append(1)
        clock.now += cost
        if left:
            raise left.pop(0)
        return "done"

    return retry(operation, "s3://b/x", backoff or Backoff(), clock.sleep, clock), len(calls), clock


def answer(status, code, head=False):
    """What s3fs raises for an answer of the store; a HEAD request has no body, so its code is the status."""
    response = {"Error": {"Code": str(status) if head else code, "Message": "m"}}
    response["ResponseMetadata"] = {"HTTPStatusCode": status}
    return translate_boto_error(botocore.ClientError(response, "GetObject"))


TRANSIENT = [
    answer(500, "InternalError"), answer(503, "SlowDown"), answer(503, "", head=True), answer(502, "", head=True),
    answer(504, "GatewayTimeout"), answer(429, "TooManyRequests"), answer(400, "RequestTimeout"),
    answer(400, "IncompleteBody"), answer(409, "OperationAborted"), TimeoutError(), ConnectionResetError(),
    BrokenPipeError(), botocore.EndpointConnectionError(endpoint_url="http://h"),
    botocore.ConnectionClosedError(endpoint_url="http://h"), botocore.ReadTimeoutError(endpoint_url="http://h"),
    botocore.ResponseStreamingError(error="x"), aiohttp.ClientPayloadError("cut"), aiohttp.ServerDisconnectedError(),
    OSError(errno.ENETUNREACH, "network is unreachable"),
]  # fmt: skip
LASTING = [
    answer(404, "NoSuchKey"), answer(404, "", head=True), answer(403, "AccessDenied"), answer(400, "InvalidBucketName"),
    answer(416, "InvalidRange"), answer(412, "PreconditionFailed"), answer(501, "NotImplemented"),
    botocore.ParamValidationError(report="bad bucket"), ValueError("x"), OSError(errno.ENOSPC, "full"),
    PermissionError("no"), FileNotFoundError("x"),
]  # fmt: skip


def name_of(error):
    return f"{type(error).__name__}-{str(error.__cause__ or error)[:60]}"


@pytest.mark.parametrize("error", TRANSIENT, ids=name_of)
def test_a_fault_that_may_pass_is_tried_again(error):
    done, calls, _ = carry_out([error, error])
    assert (done, calls) == ("done", 3)


@pytest.mark.parametrize("error", LASTING, ids=name_of)
def test_what_will_not_pass_is_raised_at_once_as_it_is(error):
    with pytest.raises(type(error)) as caught:
        carry_out([error])
    assert caught.value is error


def test_pauses_double_up_to_a_limit_and_are_spread():
    backoff = Backoff(first_seconds=1, longest_seconds=6)
    assert [backoff.pause(n, 0.0) for n in (1, 2, 3, 4, 5)] == [0.5, 1, 2, 3, 3]
    assert [backoff.pause(n, 0.999) for n in (1, 4)] == pytest.approx([1, 6], rel=0.01)
    _, _, first = carry_out([TimeoutError()] * 5)
    _, _, second = carry_out([TimeoutError()] * 5)
    assert len(first.slept) == 5
    assert first.slept != second.slept


def test_after_the_last_attempt_the_error_says_what_how_often_and_why():
    with pytest.raises(TransientStorageError, match=r"'s3://b/x' .* in 3 attempts over .* OSError: .*m.*run again"):
        carry_out([answer(500, "InternalError")] * 9, Backoff(attempts=3))


def test_no_attempt_starts_after_the_deadline():
    with pytest.raises(TransientStorageError, match="in 3 attempts over 9"):
        carry_out([TimeoutError()] * 9, Backoff(attempts=9, first_seconds=0.01, deadline_seconds=7), cost=3.1)


def test_what_takes_too_long_is_left_behind_and_counts_as_an_attempt():
    left, calls = threading.Event(), []

    def slow_at_first():
        calls.append(threading.current_thread())
        if len(calls) == 1:
            left.wait(60)
        return len(calls)

    try:
        backoff = Backoff(attempts=2, first_seconds=0.0)
        assert retry(lambda: within(0.2, slow_at_first), "s3://b/x", backoff) == 2
        assert calls[0].is_alive()
    finally:
        left.set()


def test_within_its_time_an_operation_returns_and_raises_what_it_would():
    error = KeyError("k")
    with pytest.raises(KeyError) as caught:
        within(60, lambda: (_ for _ in ()).throw(error))
    assert caught.value is error
    with pytest.raises(ConfigError, match="attempt_seconds"):
        Backoff(attempt_seconds=0)


def test_errors_of_the_engine_pass():
    for error in (ContractError("c"), TransientStorageError("t")):
        with pytest.raises(type(error)) as caught:
            carry_out([error])
        assert caught.value is error


def raised_while_handling(first, then):
    try:
        try:
            raise first  # noqa: TRY301
        except Exception:
            raise then  # noqa: B904 that is what a library does when it cleans up
    except Exception as error:
        return error


def test_an_abort_that_fails_after_a_fault_is_the_fault():
    error = raised_while_handling(TimeoutError("lost"), answer(404, "NoSuchUpload"))
    assert is_transient(error)
    assert carry_out([error])[1] == 2


def test_what_the_caller_was_handling_before_does_not_count():
    missing = FileNotFoundError("x")
    with pytest.raises(FileNotFoundError):  # noqa: PT012 the handler is the point
        try:
            raise TimeoutError  # noqa: TRY301
        except TimeoutError:
            carry_out([missing])


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidAccessKeyId", "SignatureDoesNotMatch"])
def test_refused_credentials_end_the_run_at_once(code):
    with pytest.raises(StorageError, match=r"refuses the credentials .*Renew"):
        carry_out([answer(403, code)])


def test_missing_credentials_are_a_configuration_error():
    with pytest.raises(ConfigError, match=r"no credentials .*AWS_ACCESS_KEY_ID"):
        carry_out([botocore.NoCredentialsError()])


def test_no_credential_is_shown_by_the_error_or_its_traceback(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very/secret+words")
    proxy = botocore.ProxyConnectionError(proxy_url="http://ann:hunter2222@proxy:3128")
    for failure in (proxy, ConnectionResetError("while signing with very/secret+words")):
        with pytest.raises(TransientStorageError) as caught:
            carry_out([failure] * 9)
        text = "".join(traceback.format_exception(caught.value))
        assert "***" in str(caught.value)
        assert "hunter2222" not in text
        assert "very/secret" not in text


@pytest.mark.parametrize("fields", [{"attempts": 0}, {"first_seconds": -1}])
def test_senseless_settings_are_refused(fields):
    with pytest.raises(ConfigError, match="retry: needs at least one attempt"):
        Backoff(**fields)
