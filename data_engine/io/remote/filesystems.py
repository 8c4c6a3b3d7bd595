"""Opens fsspec file systems: the one place that knows what object stores need beside a URI.

Credentials come from the environment, through each library's own chain. An S3-compatible server is named there too:
AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL. Neither botocore nor s3fs retries on its own here, see `io.retry`; libraries
of other stores keep what retries they have inside one attempt. Nothing caches listings.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import fsspec

from data_engine.core.errors import ConfigError, MissingExtraError
from data_engine.core.redaction import public_uri
from data_engine.io.retry import Backoff, Result, describe, retry, shown_cause, within

S3 = frozenset({"s3", "s3a"})
OBJECT_STORES = S3 | {"gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "memory"}
"""Protocols of stores without folders, where an object is seen when its upload is complete."""
PART_BYTES = 16 << 20
"""Length of the parts of an upload to S3; files shorter than two parts are uploaded with one request."""
_SUFFIX_READERS = S3 | {"gs", "gcs", "memory"}
_ONE_ATTEMPT = {"retries": {"mode": "standard", "total_max_attempts": 1}}


class Remote:
    """A file system and how its operations are retried; opened again after a fork.

    Args:
        uri: Local path or any fsspec URI.
        options: Options of the file system. `retry` is ours: fields of `Backoff`.

    Attributes:
        root: The URI's path as the file system writes it.
        protocols: What the file system calls itself.
        is_local: It is the local disk.

    Raises:
        ConfigError: Nobody knows the protocol, or its library is not installed.
    """

    def __init__(self, uri: str, options: Mapping[str, Any] | None = None) -> None:
        self._uri, self._options = uri, dict(options or {})
        self.backoff = _backoff(self._options.pop("retry", {}))
        self._pid, (self._fs, self.root) = os.getpid(), _open(uri, self._options)
        self.protocols = frozenset({self._fs.protocol} if isinstance(self._fs.protocol, str) else self._fs.protocol)
        self.is_local = "file" in self.protocols

    @property
    def fs(self) -> Any:
        """The file system of this very process."""
        if os.getpid() != self._pid:  # connections do not survive a fork
            self._pid, (self._fs, _) = os.getpid(), _open(self._uri, self._options)
        return self._fs

    @property
    def is_object_store(self) -> bool:
        """Folders need not be made, and uploads are seen when they are complete."""
        return bool(self.protocols & OBJECT_STORES)

    @property
    def reads_suffixes(self) -> bool:
        """One request can ask for the last bytes of an object of unknown length."""
        return bool(self.protocols & _SUFFIX_READERS)

    @property
    def upload_options(self) -> dict[str, int]:
        """Keeps the memory of an upload small: s3fs alone would hold ten parts of 50 MiB."""
        return {"chunksize": PART_BYTES, "max_concurrency": 4} if self.protocols & S3 else {}

    def ask(self, path: str, operation: Callable[[Any], Result]) -> Result:
        """Returns what `operation(fs)` returns, retried; raises what `io.retry.retry` raises."""
        return retry(lambda: within(self.backoff.attempt_seconds, lambda: operation(self.fs)), path, self.backoff)

    def size(self, path: str) -> int:
        """Returns the length of a file in bytes."""
        return int(self.ask(path, lambda fs: fs.info(path))["size"])

    def read(self, path: str, start: int | None = None, stop: int | None = None) -> bytes:
        """Returns a file or a stretch of it with one request; a negative `start` alone counts from the end."""
        return self.ask(path, lambda fs: _cat(fs, path, start, stop, bool(self.protocols & S3)))


def _cat(fs: Any, path: str, start: int | None, stop: int | None, is_s3: bool) -> bytes:
    if start is None and is_s3:
        return bytes(fs.cat_file(path, max_concurrency=1))  # else it asks for the size first
    return bytes(fs.cat_file(path, start=start, end=stop))


def _backoff(fields: Any) -> Backoff:
    try:
        return fields if isinstance(fields, Backoff) else Backoff(**fields)
    except TypeError as error:
        raise ConfigError(f"retry: {error}; it has {', '.join(Backoff.__slots__)}") from error


def _open(uri: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    protocol = uri.partition("://")[0].lower() if "://" in uri and "::" not in uri else ""
    try:
        fs, root = fsspec.core.url_to_fs(uri, **_with_defaults(protocol, options, os.environ))
    except ImportError as error:
        if protocol in S3:
            raise MissingExtraError("s3fs", "s3", f"storage '{public_uri(uri)}'") from error
        raise ConfigError(f"cannot open '{public_uri(uri)}': {error}") from error
    except (ValueError, TypeError) as error:
        raise ConfigError(f"cannot open '{public_uri(uri)}': {describe(error)}") from shown_cause(error)
    if protocol in S3:
        fs.retries = 1
        if fs.session is None:
            fs.session, fs._session_is_owned = _session_without_expect(fs.kwargs), False  # not owned: never replaced
    return fs, root


def _session_without_expect(settings: Mapping[str, Any]) -> Any:
    """Returns a session whose uploads do not ask for leave: aiohttp waits for "100 Continue" without any time limit."""
    from aiobotocore.session import AioSession
    from botocore.handlers import add_expect_header

    session = AioSession(**settings)
    session.unregister("before-call.s3", add_expect_header)
    return session


def _with_defaults(protocol: str, options: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """Returns the options with ours where they say nothing, and fsspec's own configuration between the two."""
    if protocol in S3:
        configured = {**fsspec.config.conf.get("s3", {}), **options}
        client = {**_ONE_ATTEMPT, **configured.get("config_kwargs", {})}
        # named here, so that file systems of two servers are never taken for one another in fsspec's cache
        endpoint = environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL")
        own = {"endpoint_url": endpoint} if endpoint and "endpoint_url" not in configured else {}
        return {"use_listings_cache": False, **own, **options, "config_kwargs": client}
    return {"use_listings_cache": False, **options} if protocol in OBJECT_STORES - {"memory"} else dict(options)
