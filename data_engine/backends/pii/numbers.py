"""Phone numbers, payment cards, bank accounts and national ids in a rendered transcript."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from data_engine.backends.pii import checks
from data_engine.backends.pii.runs import Run, slices
from data_engine.backends.pii.spoken import Rendered

_PHONE_WORDS = re.compile(
    r"\bphone|\bcall\b|\bcalling\b|\bdial|\btext (?:me|us|him|her)\b|\bring\b|\bmobile|\bcell\b|\btel\b|\bfax|whatsapp|"
    r"\breach (?:me|us|him|her)\b|\b(?:my|his|her|our|their|your|contact) number|电话|手机|打给|拨打|联系|微信|"
    r"telefon|\bhandy|rufnummer|meine nummer|anrufen"
)
_OTHER_NUMBERS = re.compile(
    r"\border|invoice|tracking|referen|serial|ticket|confirmation|\bcase\b|\bmodel|version|\bisbn|\bitem|product|\bpart\b|"
    r"population|订单|编号|单号|货号|发票|bestell|rechnung|artikel|sendung"
)
_SSN_WORDS = re.compile(r"social security|\bssn\b|\bsocial\b")
_TAX_WORDS = re.compile(r"steuer|\btax\b|identifikationsnummer|\bidnr\b")
_DATE = re.compile(r"(?:19|20)\d\d \d\d? \d\d?|\d\d? \d\d? (?:19|20)\d\d")
_COUNTRY = re.compile(
    r"1|7|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]|2[1-689]\d|3[578]\d|42\d|5[09]\d|6[7-9]\d|8[0578]\d|"
    r"9[679]\d"
)
"""Calling codes of ITU-T E.164."""
_NANP = re.compile(r"1?([2-9](?!11)\d\d)([2-9](?!11)\d\d)\d{4}")
_NINO = re.compile(r"(?<![A-Za-z0-9])([A-Za-z])( ?)([A-Za-z])[ -]?((?:\d[ ,-]{0,2}){6})([A-Da-d])(?![A-Za-z0-9])")
_IBAN_HEAD = re.compile(r"(?<![A-Za-z0-9])(?=[A-Za-z] ?[A-Za-z][ ,-]{0,2}\d[ ,-]{0,2}\d)")
_IBAN_NEXT = re.compile(r"[ ,-]{0,2}([A-Za-z0-9])")
_FORMATS = {(3, 3, 4), (3, 7), (1, 3, 3, 4), (1, 3, 7), (1, 10)}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A find in a rendered text, characters [start, end)."""

    kind: str
    start: int
    end: int
    score: float


def find_numbers(rendered: Rendered, language: str | None) -> Iterator[Candidate]:
    """Yields every number that is personal, overlapping ones included.

    Args:
        rendered: Transcript with digit words as digits.
        language: Decides between national forms; None: unknown.
    """
    for run in slices(rendered):
        for kind, score, length in (*_cards(run), *_ids(run, language), *_phones(run)):
            yield Candidate(kind, run.start, _end_after(rendered, run, length), score)
    yield from _ibans(rendered.text)
    yield from _ninos(rendered)


def _end_after(rendered: Rendered, run: Run, length: int) -> int:
    """Returns where the first `length` characters of a run end; those after its digits are letters such as X."""
    if length == len(run.digits):
        return run.end
    found = list(re.finditer(r"[0-9A-Za-z叉]", rendered.text[run.start : run.end + 4]))
    return run.start + found[length - 1].end()


def context(before: str) -> int:
    """Returns what the words before a number make of it: 1 a phone number, -1 a number of something else, 0 nothing."""
    phone = max((m.end() for m in _PHONE_WORDS.finditer(before)), default=-1)
    other = max((m.end() for m in _OTHER_NUMBERS.finditer(before)), default=-1)
    return (phone > other) - (other > phone)


def _cards(run: Run) -> Iterator[tuple[str, float, int]]:
    digits = run.digits
    lengths = [len(digits)] if not run.said else [n for n in (19, 16, 15, 14, 13, len(digits)) if n <= len(digits)]
    # Spoken, the date of expiry may follow without a pause, so a card may be the beginning of a run.
    for length in lengths:
        if length in (len(digits), 15, 16) and checks.payment_card(digits[:length]):
            yield "CARD", 0.95, length


def _ids(run: Run, language: str | None) -> Iterator[tuple[str, float, int]]:
    digits = run.digits
    tail = re.match(r"\s*[xX叉]", run.after)
    code = digits + "X" if len(digits) == 17 and tail else digits
    if checks.chinese_resident_id(code):
        yield "NATIONAL_ID", 0.97, len(code)
    if checks.social_security_number(digits):
        if _SSN_WORDS.search(run.before):
            yield "NATIONAL_ID", 0.85, 9
        elif run.sizes == (3, 2, 4) and context(run.before) >= 0:
            yield "NATIONAL_ID", 0.7, 9
    german = (language or "").lower().startswith("de")
    if checks.german_tax_id(digits) and (german or _TAX_WORDS.search(run.before)):
        yield "NATIONAL_ID", 0.85, 11


def _phones(run: Run) -> Iterator[tuple[str, float, int]]:
    score = phone_score(run)
    if score:
        yield "PHONE", score, len(run.digits)


def phone_score(run: Run) -> float:
    """Returns how likely a run of digits is a phone number, 0..1; below 0.5 nothing but its length speaks for it."""
    digits, about = run.digits, context(run.before)
    if not 7 <= len(digits) <= 15 or _DATE.fullmatch(" ".join(run.groups)):
        return 0.0
    if run.plus and len(digits) >= 8 and _COUNTRY.match(digits):
        return 0.9
    if about < 0 or (about == 0 and (checks.counted(digits) or set(run.sizes) == {4})):
        return 0.0
    return max(_national_score(run), 0.6 if about > 0 and run.whole else 0.0)


def _national_score(run: Run) -> float:
    digits, grouped = run.digits, len(run.groups) > 1 and len(run.groups[0]) > 1
    if re.fullmatch(r"(?:86)?1[3-9]\d{9}", digits):
        return 0.8
    if _NANP.fullmatch(digits):
        return 0.7 if run.said or run.sizes in _FORMATS else 0.4
    if not run.whole:
        return 0.0
    if re.fullmatch(r"00[1-9]\d{8,12}", digits) and _COUNTRY.match(digits[2:]):
        return 0.7 if run.said or grouped else 0.4
    if re.fullmatch(r"0[1-9]\d{7,10}", digits):
        return 0.65 if run.said or grouped or re.fullmatch(r"07\d{9}", digits) else 0.4
    return 0.0


def _ibans(text: str) -> Iterator[Candidate]:
    for head in _IBAN_HEAD.finditer(text):
        code, end, wanted = "", head.start(), 4
        while len(code) < wanted and (char := _IBAN_NEXT.match(text, end)):
            code, end = code + char[1], char.end()
            if len(code) == 2:
                wanted = checks.iban_length(code) or 0
        if checks.iban(code):
            yield Candidate("IBAN", head.start(), end, 0.95)


def _ninos(rendered: Rendered) -> Iterator[Candidate]:
    for match in _NINO.finditer(rendered.text):
        code = match[1] + match[3] + re.sub(r"\D", "", match[4]) + match[5]
        # Two small letters together are a word: "at 12 34 56 a".
        letters = match[2] or (match[1] + match[3]).isupper()
        if letters and checks.national_insurance_number(code):
            yield Candidate("NATIONAL_ID", match.start(), match.end(), 0.8)
