"""An OpenAI-compatible model server over HTTP: many requests in flight, bounded retries, cancellation.

vLLM, SGLang and hosted services speak this protocol; what goes beyond it (token ids in and out) is vLLM's. Requests
run on an event loop of this client's own, in a thread of its own: `gather` may be called from any thread, under any
runner, and whatever ends it (an interrupt, `close`, a failed neighbour) closes the connections, upon which the server
stops generating.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from data_engine.core.errors import ConfigError, MissingExtraError, RecordError, ShardError
from data_engine.core.redaction import redact, refuse_secret_uri
from data_engine.io.retry import Backoff, describe

URL_VARIABLE = "DATA_ENGINE_LLM_URL"
_OVERLOADED = frozenset({429, 502, 503, 504})
_MAY_PASS = _OVERLOADED | {408, 425, 500}
_SHOWN = 300

Answer = dict[str, Any]
Request = Callable[[], Awaitable[Answer]]
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a model is served and how it is asked.

    Attributes:
        model: Name it is served under (`--served-model-name`).
        revision: Of the weights. A server that serves `MODEL@REVISION` says which it has, and another is refused.
        base_url: Such as http://127.0.0.1:8000/v1; None: the environment variable DATA_ENGINE_LLM_URL.
        api_key_env: Environment variable with the key; unset: no key is sent.
        concurrency: Requests in flight at once.
        timeout_seconds: For one answer, connecting and generating included.
        connect_seconds: For the connection alone.
        backoff: How often a request is tried while the failure may pass.
    """

    model: str
    revision: str = ""
    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    concurrency: int = 32
    timeout_seconds: float = 180.0
    connect_seconds: float = 5.0
    backoff: Backoff = field(default_factory=lambda: Backoff(attempts=5))

    def __post_init__(self) -> None:
        if not self.model or self.concurrency < 1 or min(self.timeout_seconds, self.connect_seconds) <= 0:
            raise ConfigError("llm back end 'vllm': needs a model, a concurrency from 1 and time-outs above 0")
        if self.base_url is not None:
            refuse_secret_uri(self.base_url, "llm back end 'vllm': base_url")

    def url(self) -> str:
        """Returns where the server is.

        Raises:
            ConfigError: Neither the option nor the environment says so.
        """
        url = self.base_url or os.environ.get(URL_VARIABLE, "")
        if not url.startswith(("http://", "https://")):
            raise ConfigError(
                f"llm back end 'vllm': set the option base_url, or {URL_VARIABLE}, to http://HOST:PORT/v1"
            )
        return url.rstrip("/") + "/"


class ModelServer:
    """Client of one endpoint.

    Args:
        endpoint: Where and how.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._client: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._in_flight: set[Future[Any]] = set()
        self.served_as = endpoint.model

    def open(self) -> None:
        """Connects and checks that the server has the model.

        Raises:
            MissingExtraError: httpx2 is not installed.
            ConfigError: There is no URL, or the server has not the model or another revision of it.
            ShardError: The server does not answer.
        """
        try:
            import httpx2
        except ImportError as error:
            raise MissingExtraError("httpx2", "llm-server", "talking to a model server") from error
        e, key = self._endpoint, os.environ.get(self._endpoint.api_key_env)
        self._client = httpx2.AsyncClient(
            base_url=e.url(),
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx2.Timeout(None, connect=e.connect_seconds),
            limits=httpx2.Limits(max_connections=e.concurrency + 1),
        )
        self._loop = asyncio.new_event_loop()
        # a daemon: an interrupted worker ends without waiting for answers
        threading.Thread(target=self._loop.run_forever, name="model-server", daemon=True).start()
        try:
            listed = self._run(self._send("GET", "models", None))
            self.served_as = served_name(listed, e.model, e.revision)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Cancels what is in flight, from whichever thread, and disconnects."""
        loop, self._loop = self._loop, None
        if loop is None:
            return
        for future in tuple(self._in_flight):
            future.cancel()
        asyncio.run_coroutine_threadsafe(self._client.aclose(), loop).result(timeout=5)
        loop.call_soon_threadsafe(loop.stop)

    def gather(self, path: str, bodies: Sequence[Answer]) -> list[Answer | RecordError]:
        """Returns the server's answer to each body, or why that one has none; `concurrency` are in flight at once.

        Raises:
            ShardError: The server is down or overloaded, or was closed meanwhile: trying the shard again may help.
            ConfigError: It refuses the key or the model.
        """
        return self._run(self._gather(path, bodies))

    async def _gather(self, path: str, bodies: Sequence[Answer]) -> list[Answer | RecordError]:
        free = asyncio.Semaphore(self._endpoint.concurrency)

        async def one(body: Answer) -> Answer | RecordError:
            async with free:
                try:
                    return await self._send("POST", path, {"model": self.served_as, **body})
                except RecordError as error:
                    return error

        tasks = [asyncio.ensure_future(one(body)) for body in bodies]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:  # one that ends the shard ends its neighbours
                task.cancel()

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Returns what the coroutine returns; whatever interrupts the wait cancels it."""
        if self._loop is None:
            work.close()
            raise ShardError(f"the client of '{self._endpoint.model}' is closed")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        self._in_flight.add(future)
        try:
            return future.result()
        except CancelledError as error:
            raise ShardError(f"the client of '{self._endpoint.model}' was closed while it waited") from error
        finally:
            future.cancel()
            self._in_flight.discard(future)

    async def _send(self, method: str, path: str, body: Answer | None) -> Answer:
        """Returns one answer, after as many attempts as it takes and are allowed."""
        backoff, failed = self._endpoint.backoff, 0
        while True:
            problem = await self._attempt(method, path, body)
            if isinstance(problem, dict):
                return problem
            failed += 1
            if failed >= backoff.attempts:
                raise await self._given_up(problem, failed, path)
            pause = backoff.pause(failed, random.random())  # noqa: S311 spreads requests, decides nothing
            await asyncio.sleep(max(pause, min(problem.wait_seconds, backoff.longest_seconds)))

    async def _attempt(self, method: str, path: str, body: Answer | None) -> Answer | Failure:
        import httpx2

        try:
            async with asyncio.timeout(self._endpoint.timeout_seconds):
                response = await self._client.request(method, path, json=body)
                if response.status_code == 200:
                    return dict(response.json())
        except TimeoutError:
            return Failure(f"no answer within {self._endpoint.timeout_seconds:g} s")
        except httpx2.ConnectError as error:
            return Failure(describe(error), is_down=True)
        except (httpx2.TransportError, ValueError, TypeError) as error:
            return Failure(describe(error))
        return refusal(response.status_code, response.text, response.headers.get("retry-after", ""), self._endpoint)

    async def _given_up(self, problem: Failure, attempts: int, path: str) -> RecordError | ShardError:
        """Returns whose fault it is: the server's, or, while that is well, the request's."""
        what = f"'{self._endpoint.model}' did not answer {path} in {attempts} attempts; the last: {problem.detail}"
        if not problem.is_down and path != "models" and await self._is_well():
            return RecordError("BACKEND_FAILED", f"{what} The server is well otherwise.")
        return ShardError(f"{what} Start or relieve the server and run again: committed shards are kept.")

    async def _is_well(self) -> bool:
        root = self._endpoint.url().removesuffix("v1/")
        checks = ((f"{root}health", (200, 404)), ("models", (200,)))  # `health` is vLLM's: says when its engine died
        try:
            async with asyncio.timeout(self._endpoint.connect_seconds):
                return all([(await self._client.get(url)).status_code in fine for url, fine in checks])
        except Exception:
            return False


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that failed in a way that may pass.

    Attributes:
        detail: For a person.
        is_down: The server as a whole is unreachable or overloaded.
        wait_seconds: For which the server asks.
    """

    detail: str
    is_down: bool = False
    wait_seconds: float = 0.0


def refusal(status: int, text: str, retry_after: str, endpoint: Endpoint) -> Failure:
    """Returns a failure that may pass, by the status of an answer.

    Raises:
        ConfigError: The key or the model is refused: no other request would fare better.
        RecordError: BACKEND_FAILED, the request itself is refused, such as a prompt that is too long.
    """
    shown = redact(" ".join(text.split()))[:_SHOWN]
    if status in _MAY_PASS:
        wait = float(retry_after) if retry_after.isdigit() else 0.0
        return Failure(f"status {status}: {shown}", status in _OVERLOADED, wait)
    if status in (401, 403):
        raise ConfigError(
            f"'{endpoint.model}': status {status}; set the key in the environment, {endpoint.api_key_env}"
        )
    if status == 404:
        raise ConfigError(f"'{endpoint.model}' is not served at {redact(endpoint.url())}: {shown}")
    raise RecordError("BACKEND_FAILED", f"the model server refused the request with status {status}: {shown}")


def served_name(listed: Answer, model: str, revision: str) -> str:
    """Returns the name to ask for, `MODEL@REVISION` where the server has that.

    Raises:
        ConfigError: The server has not the model, or has another revision of it.
    """
    names = [str(entry.get("id")) for entry in listed.get("data") or ()]
    exact = f"{model}@{revision}"
    if exact in names:
        return exact
    if model in names:
        return model
    raise ConfigError(f"the model server has no '{exact if revision else model}'; it serves: {', '.join(names) or '-'}")
