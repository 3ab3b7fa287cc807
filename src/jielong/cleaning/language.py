"""The language of a text, told by py3langid (after Lui and Baldwin 2012), which has its model."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from jielong.cleaning.outcome import Drop
from jielong.cleaning.words import LETTER
from jielong.errors import ConfigError

LOOKED_AT = 2000  # characters of each part of a text that is looked at
LEAST_LETTERS = 40  # with fewer it cannot be told, and the text stays
SURE = 0.9  # that a text is in none of the languages
NO_LANGUAGE = "zxx"  # code, tables, names
# what is written much like a language, and may be taken for it
RELATED = {"zh": ("wuu", "yue"), "no": ("nn",), "nn": ("no",)}


class Language:
    """Drops the texts that are surely in none of the languages.

    Args:
        codes: ISO 639-1, such as en and zh.

    Raises:
        ConfigError: a language is not known, or the library is not installed.
    """

    def __init__(self, codes: Sequence[str]) -> None:
        try:
            from py3langid.langid import MODEL_FILE, LanguageIdentifier
        except ImportError:
            raise ConfigError(
                "languages are told by py3langid, which is not installed: "
                "pip install 'jielong[clean]', or go on without: leave --languages out"
            ) from None
        logging.getLogger("py3langid").setLevel(logging.WARNING)
        self._rank = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True).rank
        known = {code for code, _ in self._rank("a")}
        for code in codes:
            if code not in known:
                raise ConfigError(
                    f"cleaning.languages={code!r} is no language that py3langid knows: give codes "
                    "of ISO 639-1, such as en and zh"
                )
        related = {other for code in codes for other in RELATED.get(code, ())}
        self._wanted = frozenset(codes) | related | {NO_LANGUAGE}

    def __call__(self, text: str) -> Drop | None:
        """Return why a text is dropped; None if it may be in one of the languages."""
        looked_at = _parts(text)
        if len(LETTER.findall(looked_at)) < LEAST_LETTERS:
            return None
        ranked = self._rank(looked_at)
        others = sum(float(share) for code, share in ranked if code not in self._wanted)
        if others < SURE:
            return None
        return Drop(ranked[0][0], f"in {ranked[0][0]}, with probability {float(ranked[0][1]):.2f}")


def _parts(text: str) -> str:
    """Return the beginning, middle and end of a text."""
    if len(text) <= 3 * LOOKED_AT:
        return text
    middle = len(text) // 2
    return "\n".join((text[:LOOKED_AT], text[middle : middle + LOOKED_AT], text[-LOOKED_AT:]))
