"""Tries remote operations again, with exponential backoff and jitter, when and only when that can help.

This is the one layer that retries. The libraries below are told not to (`io.remote.filesystems`), because layers
multiply, and six attempts of six attempts of five are an attack on a store that is already slow. What is left to them:
the HTTP library sends a request once more when a kept connection turns out to be closed. Every operation of the engine
may be repeated: names of data files carry their content, a marker says the same each time, a removal removes no more.
"""

from __future__ import annotations

import errno
import logging
import random
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any, TypeVar

from data_engine.core.errors import ConfigError, EngineError, StorageError, TransientStorageError
from data_engine.core.redaction import redact

Result = TypeVar("Result")
_log = logging.getLogger(__name__)

_STATUSES = frozenset({408, 425, 429})
_CODES = frozenset({
    "SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "RequestTimeoutException", "Throttling",
    "ThrottlingException", "RequestLimitExceeded", "BandwidthLimitExceeded", "OperationAborted", "IncompleteBody",
    "BadDigest", "XAmzContentSHA256Mismatch", "ConditionalRequestConflict",
})  # fmt: skip
_REFUSED = frozenset({
    "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired",
    "RequestTimeTooSkewed", "AccountProblem", "NotSignedUp", "InvalidSecurity", "AuthorizationHeaderMalformed",
})  # fmt: skip
_ERRNOS = frozenset({
    errno.EBUSY, errno.EAGAIN, errno.EREMOTEIO, errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNABORTED,
    errno.ECONNREFUSED, errno.EPIPE, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH,
})  # fmt: skip
# by name, so that no library need be installed, let alone imported: botocore, aiohttp, urllib3, requests, azure
_NETWORK = frozenset({
    "HTTPClientError", "ResponseParserError", "IncompleteReadError", "IncompleteRead", "ClientPayloadError",
    "ClientConnectionError", "ProtocolError", "ConnectionError", "Timeout", "ChunkedEncodingError",
    "ServiceRequestError", "ServiceResponseError", "TransportError",
})  # fmt: skip
_WITHOUT = frozenset({"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "NoAuthTokenError"})


@dataclass(frozen=True, slots=True)
class Backoff:
    """How often and how long an operation is tried.

    Attributes:
        attempts: At most so many, the first included.
        first_seconds: Pause after the first failure; doubles with each.
        longest_seconds: Longest pause.
        deadline_seconds: No new attempt starts so long after the first one.
        attempt_seconds: An attempt that lasts longer has failed, whatever the library below it is waiting for.
    """

    attempts: int = 6
    first_seconds: float = 0.5
    longest_seconds: float = 20.0
    deadline_seconds: float = 300.0
    attempt_seconds: float = 900.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or min(self.first_seconds, self.longest_seconds, self.deadline_seconds) < 0:
            raise ConfigError(f"retry: needs at least one attempt and no negative seconds, got {self}")
        if self.attempt_seconds <= 0:
            raise ConfigError(f"retry: attempt_seconds must be positive, got {self.attempt_seconds:g}")

    def pause(self, failed: int, chance: float) -> float:
        """Returns the seconds to wait after `failed` failures: half of the exponential step, and a share of the rest.

        Args:
            failed: Failures so far, from 1.
            chance: In [0, 1), so that many workers do not come back in the same moment.
        """
        step = min(self.first_seconds * 2.0 ** (failed - 1), self.longest_seconds)
        return step * (1 + chance) / 2


def retry(
    operation: Callable[[], Result],
    what: str,
    backoff: Backoff,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Result:
    """Returns what `operation` returns, after as many attempts as it takes.

    Args:
        operation: May be repeated without harm.
        what: The object, for messages.
        backoff: How often and how long.
        sleep: Waits so many seconds.
        clock: Seconds since some moment.

    Raises:
        TransientStorageError: It kept failing in a way that may pass.
        StorageError: The store refuses the credentials.
        ConfigError: There are no credentials.
        Exception: Whatever else `operation` raises, at once.
    """
    outer, started, failed = sys.exception(), clock(), 0
    while True:
        try:
            return operation()
        except EngineError:
            raise
        except Exception as error:
            hopeless = _hopeless(error, what)
            if hopeless is not None:
                raise hopeless from shown_cause(error)
            if not is_transient(error, outer):
                raise
            failed += 1
            pause = backoff.pause(failed, random.random())  # noqa: S311 spreads requests, decides nothing
            spent = clock() - started
            if failed >= backoff.attempts or spent + pause > backoff.deadline_seconds:
                raise _given_up(what, failed, spent, error) from shown_cause(error)
            _log.info("%s: attempt %d of %d failed: %s", redact(what), failed, backoff.attempts, describe(error))
        sleep(pause)


def within(seconds: float, operation: Callable[[], Result]) -> Result:
    """Returns what `operation` returns, or raises what it raises.

    Libraries have waits without a limit: a peer that keeps the connection and stops reading holds an upload for ever.

    Args:
        seconds: Longest wait.
        operation: Left behind in its thread when it takes longer; what it still does must do no harm.

    Raises:
        TimeoutError: It took longer.
    """
    outcome: Future[Result] = Future()

    def work() -> None:
        try:
            outcome.set_result(operation())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=work, name="remote operation", daemon=True).start()
    if not wait([outcome], seconds).done:
        raise TimeoutError(f"no end after {seconds:g} s")
    return outcome.result()


def is_transient(error: BaseException | None, outer: BaseException | None = None) -> bool:
    """Tells whether the same operation may succeed when it is tried again.

    What caused the error, or was being handled when it came up, counts too: an upload that breaks off is aborted, and
    it is the abort's "no such upload" that arrives here.

    Args:
        error: What was raised.
        outer: What the caller was handling before: that does not count.
    """
    if error is None or error is outer:
        return False
    status, code = http_status(error)
    if status is not None or code is not None:
        own = code in _CODES or (status is not None and (status in _STATUSES or status >= 500) and status != 501)
    else:
        names = {kind.__name__ for kind in type(error).__mro__}
        own = isinstance(error, TimeoutError | ConnectionError) or bool(names & _NETWORK)
        own = own or getattr(error, "errno", None) in _ERRNOS
    return own or is_transient(error.__cause__, outer) or is_transient(error.__context__, outer)


def http_status(error: BaseException) -> tuple[int | None, str | None]:
    """Returns the HTTP status and the store's error code that an exception carries, None for what it does not."""
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):  # botocore
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return status, response.get("Error", {}).get("Code")
    for holder in (error, response):
        for name in ("status", "status_code", "code"):
            value: Any = getattr(holder, name, None)
            if isinstance(value, int) and 100 <= value < 600:
                return value, None
    return None, None


def describe(error: BaseException) -> str:
    """Returns an exception in one line without credentials."""
    text = " ".join(str(error).split()) or "no further words"
    return redact(f"{type(error).__name__}: {text}")


def _hopeless(error: Exception, what: str) -> EngineError | None:
    """Returns what ends the run whatever the object is: no credentials, or refused ones."""
    if _WITHOUT & {kind.__name__ for kind in type(error).__mro__}:
        return ConfigError(
            f"no credentials for '{redact(what)}' ({describe(error)}). Put them in the environment, for example "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."
        )
    if any(e is not None and http_status(e)[1] in _REFUSED for e in (error, error.__cause__)):
        return StorageError(
            f"the store refuses the credentials for '{redact(what)}' ({describe(error)}). Renew them in the "
            "environment and run again: committed shards are kept."
        )
    return None


def _given_up(what: str, attempts: int, seconds: float, error: Exception) -> TransientStorageError:
    return TransientStorageError(
        f"'{redact(what)}' could not be reached in {attempts} attempts over {seconds:.1f} s; the last error was "
        f"{describe(error)}. The storage may be down or overloaded; run again later: committed shards are kept."
    )


def shown_cause(error: Exception) -> Exception | None:
    """Returns the error as a cause, unless a printed traceback would show a credential with it."""
    chain: list[BaseException] = [error]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) is not None and len(chain) < 16:
        chain.append(inner)
    return error if all(redact(str(e)) == str(e) for e in chain) else None
