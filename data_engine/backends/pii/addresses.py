"""E-mail and IP addresses in a rendered transcript, written or spoken ("anna dot lee at example dot com")."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import AddressValueError, IPv6Address

from data_engine.backends.pii.numbers import Candidate
from data_engine.backends.pii.spoken import Rendered

_TLD = (
    "com|net|org|edu|gov|mil|io|de|cn|uk|fr|info|biz|me|ai|us|ca|au|eu|co|jp|kr|in|ru|nl|ch|at|tv|dev|app|es|it|br|hk"
)
_WRITTEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._%+-]*@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,24}(?![A-Za-z0-9])")
_SPOKEN = re.compile(
    r"(?:[A-Za-z][A-Za-z0-9._%+-]* (?=\d))?(?P<local>[A-Za-z0-9][A-Za-z0-9._%+-]*)@[A-Za-z0-9-]+(?: [A-Za-z0-9-]+){0,2}"
    rf"(?:\.[A-Za-z0-9-]+)*\.(?:{_TLD})(?![A-Za-z0-9])",
    re.IGNORECASE,
)
_MAIL_WORDS = re.compile(r"mail|邮箱|邮件")
_NO_NAMES = (
    "us me look it find online available more now out live shop visit is was are were website site page sign up read "
    "see go here there store starts starting begins join on and or arrived arrive meet"
)
"""What may stand before "at example dot com" when it is a web site."""
_OCTET = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
_IPV4 = re.compile(rf"(?<![\d.])(?:{_OCTET}\.){{3}}{_OCTET}(?!\.?\d)")
_IPV6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f:]{5,39}(?![\w:])")
_VERSIONS = re.compile(r"version|release|\bv ?$|chapter|section|firmware|版本")
_BEFORE = 30


def find_addresses(rendered: Rendered) -> Iterator[Candidate]:
    """Yields e-mail and IP addresses, overlapping ones included.

    Args:
        rendered: Transcript with digits and signs for the words that mean them.
    """
    text = rendered.text
    for match in _WRITTEN.finditer(text):
        if not rendered.said[match.start() + match[0].index("@")]:
            yield Candidate("EMAIL", match.start(), match.end(), 0.95)
    for match in _SPOKEN.finditer(text):
        if _names_somebody(rendered, match):
            yield Candidate("EMAIL", match.start(), match.end(), 0.85)
    for match in _IPV4.finditer(text):
        if not _VERSIONS.search(text[max(0, match.start() - _BEFORE) : match.start()].lower()):
            yield Candidate("IP", match.start(), match.end(), 0.8)
    for match in _IPV6.finditer(text):
        if _is_ipv6(match[0]):
            yield Candidate("IP", match.start(), match.end(), 0.8)


def _names_somebody(rendered: Rendered, match: re.Match[str]) -> bool:
    """Tells a spoken mail address from "find us at example dot com"."""
    sign = match.start() + match[0].index("@")
    if not any(rendered.said[sign : match.end()]):
        return False
    before = rendered.text[max(0, match.start() - _BEFORE) : match.start()].lower()
    return match["local"].lower() not in _NO_NAMES.split() or _MAIL_WORDS.search(before) is not None


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except AddressValueError:
        return False
    return True
