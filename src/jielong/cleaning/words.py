"""What a text is made of: its words, its lines, and whether it is Chinese."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from jielong.cleaning.outcome import HEAD_CHARS

HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
LETTER = re.compile(r"[^\W\d_]")
KANA_OR_HANGUL = re.compile("[\u3040-\u30ff\uac00-\ud7a3\u1100-\u11ff]")
UNSPACED_OTHERS = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]")
CHINESE_SHARE = 0.3  # of the letters: a text with code or English in it is Chinese still
CHARS_OF_WORD = 1.5  # of a Chinese word, about: most are of one or two characters


@dataclass(frozen=True)
class Words:
    """The beginning of a text, as rules of quality see it.

    Attributes:
        text: its first HEAD_CHARS.
        kind: chinese, spaced (words stand between spaces), or other.
    """

    text: str
    kind: str

    @classmethod
    def of(cls, text: str) -> Words:
        """Look at a text."""
        text = text[:HEAD_CHARS]
        letters = len(LETTER.findall(text))
        han = len(HAN.findall(text))
        others = len(KANA_OR_HANGUL.findall(text)) + len(UNSPACED_OTHERS.findall(text))
        if others > 0.1 * letters:
            return cls(text, "other")
        return cls(text, "chinese" if han > CHINESE_SHARE * letters else "spaced")

    @functools.cached_property
    def words(self) -> list[str]:
        """What stands between spaces."""
        return self.text.split()

    @functools.cached_property
    def lines(self) -> list[str]:
        """The lines that are not blank, without the space around them."""
        return [line.strip() for line in self.text.splitlines() if line.strip()]

    @property
    def word_count(self) -> float:
        """Number of words; in Chinese an estimate, by the characters."""
        if self.kind == "spaced":
            return len(self.words)
        return len(LETTER.findall(self.text)) / CHARS_OF_WORD
