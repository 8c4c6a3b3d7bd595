"""Numbers as people read them."""

from __future__ import annotations

MISSING = "–"


def duration(seconds: float | None) -> str:
    """Returns seconds as `48 s`, `5 min 12 s`, `2 h 05 min` or `1,234 h`."""
    if seconds is None:
        return MISSING
    if 0 < seconds < 0.05:
        return "< 0.1 s"
    if seconds < 60:
        return f"{seconds:.1f} s" if 0 < seconds < 10 else f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    if minutes < 6000:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{seconds / 3600:,.0f} h"


def count(number: float | None) -> str:
    """Returns a count with thousands separated."""
    return MISSING if number is None else f"{number:,.0f}"


def share(part: float | None, whole: float | None) -> str:
    """Returns a percentage; a dash when there is no whole."""
    if part is None or not whole:
        return MISSING
    percent = 100 * part / whole
    return f"{percent:.1f} %" if 0 < percent < 1 or 99 < percent < 100 else f"{percent:.0f} %"


def number(value: float | None, digits: int = 2) -> str:
    """Returns a number with a fixed number of decimals."""
    return MISSING if value is None else f"{value:,.{digits}f}"


def factor(value: float | None) -> str:
    """Returns a factor: `× 1.25`."""
    return MISSING if value is None else f"× {value:.2f}"


def speed(seconds: float | None, wall_seconds: float) -> str:
    """Returns seconds of audio per second of work: `× 120`."""
    if not seconds or wall_seconds <= 0:
        return MISSING
    ratio = seconds / wall_seconds
    return f"× {ratio:,.0f}" if ratio >= 10 else f"× {ratio:.1f}"


def plural(number: int, word: str) -> str:
    """Returns `1 row`, `2 rows`."""
    return f"{number:,} {word}" + ("" if number == 1 else "s")


def short(identifier: str) -> str:
    """Returns the start of a hash, enough to find it again."""
    return identifier[:10]
