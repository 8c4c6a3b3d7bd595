"""One set of phones for every teacher: the 41 of flite for English, espeak-ng's own for Mandarin.

English phones are those of CMU's US dictionary with a reduced vowel `ax`; other accents are written with the same
phones (a British "bath" is `b ae th`), so that one lexicon fits them all. Mandarin phones carry the prefix `z:`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

PAUSE = "pau"
ENGLISH = (
    PAUSE, "aa", "ae", "ah", "ao", "aw", "ax", "ay", "b", "ch", "d", "dh", "eh", "er", "ey", "f", "g", "hh", "ih",
    "iy", "jh", "k", "l", "m", "n", "ng", "ow", "oy", "p", "r", "s", "sh", "t", "th", "uh", "uw", "v", "w", "y", "z",
    "zh",
)  # fmt: skip
_MANDARIN = (
    "@", "@r", "A", "Au", "N", "S;", "X", "a", "ai", "ei", "f", "i", "i.", "iA", "iE", "i[", "iou", "j", "k", "kh",
    "l", "m", "n", "o", "o-", "ong", "ou", "p", "ph", "s", "s.", "t", "tS;", "tS;h", "th", "ts", "ts.", "ts.h", "tsh",
    "u", "u@", "ua", "uai", "uei", "uo", "w", "y", "y&", "y@", "yE", "z.",
)  # fmt: skip
MANDARIN = tuple(f"z:{name}" for name in _MANDARIN)
SPECIALS = ("<blank>", "<s>", "</s>")
"""What FunASR's token lists begin with; `<unk>` ends them."""

TOKENS = (*SPECIALS, *ENGLISH, *MANDARIN, "<unk>")
TOKEN_IDS = {name: index for index, name in enumerate(TOKENS)}

_STRESS = "',%="
_SILENT = {"", "_", "_:", "_!", ";", "_|"}
_FROM_ESPEAK = {
    "I": "ih", "I2": "ih", "I#": "ax", "IR": "er", "VR": "er", "i": "iy", "i:": "iy", "E": "eh", "V": "ah",
    "a": "ae", "aa": "ae", "a#": "ax", "0": "aa", "O2": "ao", "O:": "ao", "O": "ao", "A:": "aa", "A@": "aa r",
    "e@": "eh r", "o@": "ao r", "O@": "ao r", "U@": "uh r", "i@": "iy ax", "i@3": "ih r", "aI@": "ay ax",
    "aI3": "ay er", "3:": "er", "3": "er", "@": "ax", "@2": "ax", "@5": "ax", "@L": "ax l", "@-": "ax", "u:": "uw",
    "U": "uh", "eI": "ey", "oU": "ow", "OI": "oy", "aU": "aw", "aI": "ay", "aI2": "ay", "p": "p", "b": "b", "t": "t",
    "t#": "t", "t2": "t", "t[": "t", "?": "t", "d": "d", "k": "k", "x": "k", "g": "g", "f": "f", "v": "v", "s": "s",
    "z": "z", "S": "sh", "Z": "zh", "T": "th", "D": "dh", "tS": "ch", "dZ": "jh", "h": "hh", "m": "m", "n": "n",
    "n-": "ax n", "N": "ng", "l": "l", "r": "r", "r-": "r", "w": "w", "w#": "w", "j": "y",
}  # fmt: skip
_PAUSES = {"_", "_:"}


@dataclass(frozen=True, slots=True)
class TimedPhone:
    """A phone of TOKENS with its first sample and the first sample after it."""

    name: str
    start: int
    end: int


def from_espeak(phonemes: Sequence[tuple[str, int]], num_samples: int, mandarin: bool) -> list[TimedPhone] | None:
    """Returns the phones of an utterance of espeak-ng, or None when one of them is not in the set.

    Args:
        phonemes: (mnemonic, first sample) in order.
        num_samples: Length of the utterance.
        mandarin: The voice is Mandarin.
    """
    starts = [start for _, start in phonemes] + [num_samples]
    phones: list[TimedPhone] = []
    for index, (mnemonic, start) in enumerate(phonemes):
        follower = phonemes[index + 1][0].lstrip(_STRESS) if index + 1 < len(phonemes) else ""
        names = _names(mnemonic.lstrip(_STRESS), follower, mandarin)
        if names is None:
            return None
        edges = [start + (starts[index + 1] - start) * n // max(len(names), 1) for n in range(len(names) + 1)]
        phones += [TimedPhone(name, edges[n], edges[n + 1]) for n, name in enumerate(names)]
    return merged([phone for phone in phones if phone.end > phone.start])


def _names(mnemonic: str, follower: str, mandarin: bool) -> list[str] | None:
    if mnemonic in _PAUSES:
        return [PAUSE]
    if mnemonic in _SILENT:
        return []
    if mandarin:
        known = {"N-": "N", "yi": "i"}.get(mnemonic, mnemonic)
        return [f"z:{known}"] if f"z:{known}" in TOKEN_IDS else None
    if mnemonic == "i@" and follower in ("r", "r-"):
        return ["ih"]
    return _FROM_ESPEAK[mnemonic].split() if mnemonic in _FROM_ESPEAK else None


def merged(phones: Sequence[TimedPhone]) -> list[TimedPhone]:
    """Joins neighbouring pauses, and an `r` with the `r` or `er` it only lengthens."""
    joined: list[TimedPhone] = []
    for phone in phones:
        last = joined[-1].name if joined else None
        if last is not None and (last == phone.name == PAUSE or (phone.name == "r" and last in ("r", "er"))):
            joined[-1] = TimedPhone(joined[-1].name, joined[-1].start, phone.end)
        else:
            joined.append(phone)
    return joined


def warped(phones: Sequence[TimedPhone], factor: float, num_samples: int) -> list[TimedPhone]:
    """Returns the phones at `factor` times their times, none beyond `num_samples`."""
    edges = [(min(round(p.start * factor), num_samples), min(round(p.end * factor), num_samples)) for p in phones]
    return [TimedPhone(p.name, *edge) for p, edge in zip(phones, edges, strict=True) if edge[1] > edge[0]]
