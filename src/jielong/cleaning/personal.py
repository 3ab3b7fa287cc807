"""Personal data, masked: e-mail and IP addresses, telephone, identity and card numbers.

What has a checksum is checked by it, so that other long numbers stay. What is found this way is
never all there is: names and postal addresses stay.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from jielong.cleaning.outcome import Change

# a number may stand right after a Chinese character, but is no part of a longer name or number
EMAIL = re.compile(
    r"(?<![\w.%+-])[a-z0-9][\w.%+-]{0,63}@(?:[a-z0-9-]{1,63}\.){1,8}[a-z]{2,24}(?![\w-])",
    re.ASCII | re.IGNORECASE,
)
IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?!\.?\w)", re.ASCII)
IPV6 = re.compile(r"(?<![\w:.])[23][\da-f]{3}(?::[\da-f]{0,4}){2,7}(?![\w:.])", re.ASCII | re.I)
# Chinese mobile numbers begin with 13 to 19, and landlines with 0 and the code of a city
PHONE = re.compile(
    r"(?<![\w.+-])(?:"
    r"(?:(?:\+|00)?86[- ]?)?1[3-9]\d(?:\d{8}|[- ]\d{4}[- ]\d{4})"
    r"|(?:\+?86[- ]?)?(?:\(0(?:10|2\d|[3-9]\d{2})\) ?|0(?:10|2\d|[3-9]\d{2})[- ])\d{7,8}"
    r"|\+[1-9]\d{0,2}[- .]?\(?\d{1,4}\)?(?:[- .]?\d{2,4}){2,4}"  # with the code of a country
    r"|(?:1[- .])?(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[- .])[2-9]\d{2}[- .]\d{4}"  # North America
    r")(?![\w-]|\.\d)",
    re.ASCII,
)
ID = re.compile(r"(?<![\w.])[1-9]\d{16}[\dXx](?!\w)", re.ASCII)
CARD = re.compile(r"(?<![\w.-])[3-6]\d{3}(?:[ -]?\d{4}){2,3}(?:[ -]?\d{1,4})?(?![\w-])", re.ASCII)
AMEX = re.compile(r"(?<![\w.-])3[47]\d{2}[ -]?\d{6}[ -]?\d{5}(?![\w-])", re.ASCII)
_ID_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_ID_DIGITS = "10X98765432"


def is_chinese_id(number: str) -> bool:
    """Whether 18 characters are a Chinese identity number: by its date and checksum (GB 11643)."""
    try:
        born = datetime.date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        return False
    total = sum(int(digit) * weight for digit, weight in zip(number, _ID_WEIGHTS, strict=False))
    return born.year >= 1850 and number[-1].upper() == _ID_DIGITS[total % 11]


def is_card(number: str) -> bool:
    """Whether a number is that of a payment card: 13 to 19 digits with Luhn's checksum."""
    digits = [int(digit) for digit in number if digit.isdigit()]
    doubled = [2 * d - 9 * (d > 4) for d in digits[-2::-2]]
    return 13 <= len(digits) <= 19 and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def is_public_ip(address: str) -> bool:
    """Whether this is an address of the internet: others, such as 127.0.0.1, name no one."""
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False


def _is_any(found: str) -> bool:
    return bool(found)


# longer numbers first, as a part of one may look like another
KINDS: dict[str, Sequence[tuple[re.Pattern[str], Callable[[str], bool]]]] = {
    "email": [(EMAIL, _is_any)],
    "id": [(ID, is_chinese_id)],
    "card": [(CARD, is_card), (AMEX, is_card)],
    "ip": [(IPV4, is_public_ip), (IPV6, is_public_ip)],
    "phone": [(PHONE, _is_any)],
}


class Mask:
    """Replaces personal data by its kind: <EMAIL>, <IP>, <PHONE>, <ID>, <CARD>.

    Args:
        kinds: which; names of KINDS.
    """

    def __init__(self, kinds: Sequence[str]) -> None:
        self._kinds = [kind for kind in KINDS if kind in kinds]

    def __call__(self, text: str) -> Change | None:
        """Return the text with its personal data masked, or None if there is none."""
        found = sorted(self._find(text))  # of two that begin together, the longer
        if not found:
            return None
        parts, counts, end = [], Counter[str](), 0
        masked = []
        for begin, minus_stop, rank in found:
            if begin < end:  # within the one before
                continue
            kind, stop = self._kinds[rank], -minus_stop
            parts += [text[end:begin], f"<{kind.upper()}>"]
            masked.append((kind, begin, stop))
            counts[kind] += 1
            end = stop
        return Change("".join([*parts, text[end:]]), counts, masked=masked)

    def _find(self, text: str) -> Iterator[tuple[int, int, int]]:
        has_digits = any(digit in text for digit in "0123456789")
        for rank, kind in enumerate(self._kinds):
            if ("@" in text) if kind == "email" else has_digits:
                for pattern, is_one in KINDS[kind]:
                    for match in pattern.finditer(text):
                        if is_one(match[0]):
                            yield match.start(), -match.end(), rank
