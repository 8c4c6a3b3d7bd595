"""Numbers that prove themselves: check digits, lengths and ranges of cards, accounts and national ids."""

from __future__ import annotations

import re
from itertools import pairwise

_CARDS = (
    (r"4", {13, 16, 19}), (r"5[1-5]|2(?:22[1-9]|2[3-9]|[3-6]|7[01]|720)", {16}), (r"3[47]", {15}),
    (r"6(?:011|4[4-9]|5)", {16, 19}), (r"62|81", {16, 17, 18, 19}), (r"35", {16, 19}), (r"30[0-5]|3[689]", {14, 19}),
    (r"5[0678]|6", {12, 13, 14, 15, 16, 17, 18, 19}),
)  # fmt: skip
"""Prefix and lengths: Visa, Mastercard, American Express, Discover, UnionPay, JCB, Diners Club, Maestro."""
_IBANS = (
    "AD:24 AE:23 AL:28 AT:20 AZ:28 BA:20 BE:16 BG:22 BH:22 BR:29 BY:28 CH:21 CR:22 CY:28 CZ:24 DE:22 DK:18 "
    "DO:28 EE:20 EG:29 ES:24 FI:18 FO:18 FR:27 GB:22 GE:22 GI:23 GL:18 GR:27 GT:28 HR:21 HU:28 IE:22 IL:23 "
    "IS:26 IT:27 JO:30 KW:30 KZ:20 LB:28 LI:21 LT:20 LU:20 LV:21 MC:27 MD:24 ME:22 MK:19 MR:27 MT:31 MU:30 "
    "NL:18 NO:15 PK:24 PL:28 PS:29 PT:25 QA:29 RO:24 RS:22 SA:24 SE:24 SI:19 SK:24 SM:27 TN:24 TR:26 UA:29 "
    "VA:22 VG:24 XK:20"
)
"""Country and length (SWIFT's IBAN registry)."""
_PROVINCES = {11, 12, 13, 14, 15, 21, 22, 23, 31, 32, 33, 34, 35, 36, 37, 41, 42, 43, 44, 45, 46, 50, 51, 52, 53, 54,
              61, 62, 63, 64, 65, 71, 81, 82, 83}  # fmt: skip
_NINO_PREFIXES = {"BG", "GB", "KN", "NK", "NT", "TN", "ZZ"}
"""Never issued."""


def luhn(digits: str) -> bool:
    """Tells whether a number has the check digit of ISO/IEC 7812-1."""
    doubled = (int(d) * 2 for d in digits[-2::-2])
    return (sum(map(int, digits[::-2])) + sum(d - 9 if d > 9 else d for d in doubled)) % 10 == 0


def payment_card(digits: str) -> bool:
    """Tells whether a number may be a payment card: prefix and length of an issuer, check digit."""
    issued = any(len(digits) in lengths and re.match(prefix, digits) for prefix, lengths in _CARDS)
    return issued and len(set(digits)) > 1 and luhn(digits)


def iban_length(country: str) -> int | None:
    """Returns how many characters the IBANs of a country have; None when it has none."""
    found = re.search(rf"\b{country.upper()}:(\d+)", _IBANS) if re.fullmatch(r"[A-Za-z]{2}", country) else None
    return None if found is None else int(found[1])


def iban(characters: str) -> bool:
    """Tells whether letters and digits are an IBAN: length of the country, mod 97 of ISO 13616."""
    code = characters.upper()
    if len(code) != iban_length(code[:2]) or not code.isalnum() or not code.isascii():
        return False
    return int("".join(str(int(char, 36)) for char in code[4:] + code[:4])) % 97 == 1


def chinese_resident_id(code: str) -> bool:
    """Tells whether 18 characters are a resident id: province, birth date, ISO 7064 mod 11-2 (GB 11643)."""
    if not re.fullmatch(r"\d{17}[\dXx]", code) or int(code[:2]) not in _PROVINCES:
        return False
    if not (1900 <= int(code[6:10]) <= 2099 and 1 <= int(code[10:12]) <= 12 and 1 <= int(code[12:14]) <= 31):
        return False
    total = sum(int(d) * pow(2, 17 - n, 11) for n, d in enumerate(code[:17]))
    return "10X98765432"[total % 11] == code[17].upper()


def german_tax_id(digits: str) -> bool:
    """Tells whether 11 digits are a tax id: one digit two or three times, ISO 7064 mod 11,10 (section 139b AO)."""
    if len(digits) != 11 or digits[0] == "0":
        return False
    counts = sorted((digits[:10].count(d) for d in set(digits[:10])), reverse=True)
    if counts[0] not in (2, 3) or (len(counts) > 1 and counts[1] > 1):
        return False
    product = 10
    for digit in digits[:10]:
        product = ((product + int(digit)) % 10 or 10) * 2 % 11
    return (11 - product) % 10 == int(digits[10])


def social_security_number(digits: str) -> bool:
    """Tells whether 9 digits may be a US social security number; it has no check digit, only numbers never issued."""
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    issued = len(digits) == 9 and area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"
    return issued and len(set(digits)) > 1 and digits != "123456789"


def national_insurance_number(code: str) -> bool:
    """Tells whether a code may be a British national insurance number; it has no check digit."""
    shape = r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]\d{6}[A-D]"
    return re.fullmatch(shape, code.upper()) is not None and code[:2].upper() not in _NINO_PREFIXES


def counted(digits: str) -> bool:
    """Tells whether digits are all equal or somebody counting up or down, which are no numbers of anything."""
    if "1234567891011121314151617181920".startswith(digits):
        return True
    steps = {(int(b) - int(a)) % 10 for a, b in pairwise(digits)}
    return steps <= {0} or steps == {1} or steps == {9}
