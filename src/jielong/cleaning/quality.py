"""Does a text read as prose? The rules of Gopher (Rae et al. 2021, arXiv:2112.11446, table A1).

They were made for English pages of the web. Where they count words, Chinese has a counterpart that
counts characters: see `_chinese`. Other languages that write no spaces are judged by their lines
and symbols alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from jielong.cleaning.outcome import Change, Drop
from jielong.cleaning.shingles import UNIT
from jielong.cleaning.words import HAN, LETTER, Words

LEAST_WORDS, MOST_WORDS = 50, 100_000
LEAST_MEAN, MOST_MEAN = 3, 10  # characters of a word
MOST_SYMBOLS = 0.1  # of # or of ellipses, for each word
MOST_BULLETS, MOST_ELLIPSES = 0.9, 0.3  # shares of the lines
LEAST_WITH_LETTERS = 0.8  # share of the words
LEAST_COMMON = 2  # different ones of the commonest words
BULLETS = ("-", "*", "•", "·", "●", "○", "■", "□", "▪", "◆", "★", "–")
ELLIPSES = ("...", "…", "。。。")
# the commonest function words; a text has some of one of these languages, if it is prose
COMMON = [
    frozenset(words.split())
    for words in (
        "the be to of and that have with",  # those of Gopher
        "der die und in den von zu das mit sich ist nicht",
        "de la le et les des en un du une est que",
        "de la que el en y los se del las un por",
        "di e il la che in per un del con non",
        "de a o que e do da em um para com não",
        "de en van te dat die in een het niet",
        "и в не на я что с он как по это",
        "w i na z do się nie to że jest",
        "och i att det som en på är av för",
        "ve bir bu da de için ile",
        "yang dan di ini itu dengan untuk",
        "và của là có cho không được",
    )
]
# Chinese ones, simplified and traditional, modern and classical
COMMON_HAN = frozenset(
    "的是了在不和有我他这這也就人一们們为為与與之其而以于於者曰无無所乃何來来自如"
)
# A Chinese clause has some characters between two marks; keywords in a row have fewer or no marks.
LEAST_CLAUSE, MOST_CLAUSE = 2.5, 40
MARK = re.compile(r"[，。！？；：、…—“”‘’「」『』（）《》〈〉]|[,.!?;:](?=\s|$)")


def quality(text: str) -> Drop | Change | None:
    """Judge a text by Gopher's rules of quality, or by their Chinese counterparts."""
    words = Words.of(text)
    if drop := _length(words) or _symbols(words) or _lines(words):
        return drop
    if words.kind == "spaced":
        return _spaced(words)
    return _chinese(words) if words.kind == "chinese" else None


def _length(words: Words) -> Drop | None:
    count = words.word_count
    about = "" if words.kind == "spaced" else "about "
    if count < LEAST_WORDS:
        return Drop("few words", f"{about}{count:.0f} words, fewer than {LEAST_WORDS}")
    if count > MOST_WORDS:
        return Drop("very many words", f"{about}{count:,.0f} words, more than {MOST_WORDS:,}")
    return None


def _symbols(words: Words) -> Drop | None:
    text = words.text.replace("……", "…")  # how Chinese writes one
    for name, count in (("#", text.count("#")), ("…", text.count("...") + text.count("…"))):
        share = count / words.word_count
        if share > MOST_SYMBOLS:
            return Drop("symbols", f"{share:.2f} {name} for each word, above {MOST_SYMBOLS}")
    return None


def _lines(words: Words) -> Drop | None:
    lines = words.lines
    bullets = sum(line.startswith(BULLETS) for line in lines) / len(lines)
    if bullets > MOST_BULLETS:
        return Drop("bullets", f"{bullets:.0%} of the lines are bullets, above {MOST_BULLETS:.0%}")
    cut = sum(line.endswith(ELLIPSES) for line in lines) / len(lines)
    if cut > MOST_ELLIPSES:
        return Drop("cut lines", f"{cut:.0%} of the lines end in …, above {MOST_ELLIPSES:.0%}")
    return None


def _spaced(words: Words) -> Drop | None:
    if drop := _letters(words.words):
        return drop
    plain = [word for word in words.words if not HAN.search(word)]  # some quote Chinese
    mean = sum(map(len, plain)) / max(len(plain), 1)
    if plain and not LEAST_MEAN <= mean <= MOST_MEAN:
        return Drop(
            "length of words", f"{mean:.1f} characters a word, not {LEAST_MEAN} to {MOST_MEAN}"
        )
    there = {word.strip("\"'.,;:!?()").lower() for word in words.words}
    most = max(len(common & there) for common in COMMON)
    if most < LEAST_COMMON:
        return Drop("no common words", f"{most} of the commonest words, fewer than {LEAST_COMMON}")
    return None


def _letters(words: Sequence[str]) -> Drop | None:
    share = sum(bool(LETTER.search(word)) for word in words) / len(words)
    if share < LEAST_WITH_LETTERS:
        return Drop("no letters", f"{share:.0%} of the words have letters, below 80%")
    return None


def _chinese(words: Words) -> Drop | None:
    """Judge Chinese: its characters, clauses and function words take the place of words.

    A word is a Chinese character, or a run of letters or digits among them; no signs, as they are
    parts of words between spaces. The mean length of a word becomes that of a clause, which tells
    keywords and tables. The function words are single characters, modern and classical.
    """
    units = [unit for unit in UNIT.findall(words.text) if unit[-1].isalnum()]
    if drop := _letters(units):
        return drop
    clause = len(units) / (len(MARK.findall(words.text)) + len(words.lines))
    if not LEAST_CLAUSE <= clause <= MOST_CLAUSE:
        return Drop(
            "length of clauses",
            f"{clause:.1f} characters a clause, not {LEAST_CLAUSE} to {MOST_CLAUSE}",
        )
    common = COMMON_HAN & set(HAN.findall(words.text))
    if len(common) < LEAST_COMMON:
        return Drop(
            "no common words",
            f"{len(common)} of the commonest characters, fewer than {LEAST_COMMON}",
        )
    return None
