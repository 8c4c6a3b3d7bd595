"""Takes credentials out of text that people and files get to see: messages, run.json, rejects, logs, reports.

Two nets: what looks like a credential (passwords in URIs, signatures of signed URLs, key ids, headers), and what is
one: the values of environment variables that are named like one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from data_engine.core.errors import ConfigError

HIDDEN = "***"
_SHORTEST = 8
_QUERY = (
    "X-Amz-Signature|X-Amz-Credential|X-Amz-Security-Token|X-Goog-Signature|X-Goog-Credential|AWSAccessKeyId|"
    "GoogleAccessId|Signature|Key-Pair-Id|Policy|sig|token|access_token|api_key|apikey|key|password|secret"
)
_ASSIGNED = (
    "aws_access_key_id|aws_secret_access_key|secret_access_key|aws_session_token|session_token|account_key|sas_token|"
    "client_secret|connection_string|private_key|api_key|password|passwd|secret"
)
_PATTERNS = (
    # a password may hold slashes; a port before the path is no password
    (re.compile(r"(://)[^/\s:@'\"]+:(?!\d{1,5}[/?#])[^\s'\"@]+@"), rf"\1{HIDDEN}@"),
    (re.compile(rf"([?&](?:{_QUERY})=)[^&\s'\"#]+", re.IGNORECASE), rf"\1{HIDDEN}"),
    (re.compile(rf"(\b(?:{_ASSIGNED})['\"]?\s*[:=]\s*['\"]?)[^\s'\",;}}&]+", re.IGNORECASE), rf"\1{HIDDEN}"),
    (re.compile(r"(\bauthorization['\"]?\s*[:=]\s*['\"]?)[^'\"\n]+", re.IGNORECASE), rf"\1{HIDDEN}"),
    (re.compile(r"(\bbearer\s+)[\w.~+/=-]{8,}", re.IGNORECASE), rf"\1{HIDDEN}"),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"), HIDDEN),
)
_NAMED_LIKE_ONE = re.compile(
    r"SECRET|PASSWORD|PASSWD|ACCESS_KEY|ACCOUNT_KEY|API_KEY|CONNECTION_STRING|SAS_TOKEN|(^|_)TOKEN$|CREDENTIALS?$"
)
_OPTIONS = frozenset(
    f"key secret token password username passphrase account_key sas_token client_secret credential "
    f"connection_string {_ASSIGNED.replace('|', ' ')}".split()
)


def redact(text: str, environ: Mapping[str, str] | None = None) -> str:
    """Returns `text` with everything that is or looks like a credential replaced by `***`.

    Args:
        text: Anything: a message, a URI, a repr of options.
        environ: Environment whose credentials are looked for; none: that of the process.
    """
    for pattern, shown in _PATTERNS:
        text = pattern.sub(shown, text)
    for value in _credentials(os.environ if environ is None else environ):
        text = text.replace(value, HIDDEN)
    return text


def _credentials(environ: Mapping[str, str]) -> Iterator[str]:
    """Yields the values of variables such as AWS_SECRET_ACCESS_KEY; a path or a short word is none."""
    for name, value in environ.items():
        if _NAMED_LIKE_ONE.search(name.upper()) and len(value) >= _SHORTEST and not value.startswith("/"):
            yield value


def holds_credentials(uri: str) -> bool:
    """Tells whether a URI carries a password or a signature."""
    return redact(uri, {}) != uri


def public_uri(uri: str) -> str:
    """Returns a URI as others may see it: without passwords and signatures; a local path as it is."""
    return redact(uri) if "://" in uri else uri


def refuse_secret_uri(uri: str, where: str) -> None:
    """Checks that a URI of a configuration carries no password or signature, since `run.json` repeats it.

    Raises:
        ConfigError: It does.
    """
    if holds_credentials(uri):
        raise ConfigError(
            f"{where}: '{redact(uri)}' holds a password or a signature, which run.json would repeat. Leave it out of "
            "the URI and put credentials in the environment."
        )


def refuse_credentials(options: Mapping[str, Any], where: str) -> None:
    """Checks that options of a configuration hold no credentials, since `run.json` repeats a configuration.

    Args:
        options: Possibly nested.
        where: Key of the configuration, for the message.

    Raises:
        ConfigError: One of them is named like a credential.
    """
    for name, value in options.items():
        key = f"{where}.{name}"
        if isinstance(value, Mapping):
            refuse_credentials(value, key)
        elif str(name).lower() in _OPTIONS and value not in (None, "", "anon", "cloud", "google_default"):
            raise ConfigError(
                f"{key}: credentials do not belong in a configuration, which run.json repeats. Put them in the "
                "environment, for example AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
            )
