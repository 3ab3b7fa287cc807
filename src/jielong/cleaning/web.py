"""Lists, menus and notices of web pages.

The rules are those of C4 (Raffel et al. 2020, arXiv:1910.10683) that later work kept, and those of
FineWeb (Penedo et al. 2024, arXiv:2406.17557). They drop poems, code and tables as well, which have
short lines without a mark at their ends: they are for text that was taken from the web.
"""

from __future__ import annotations

import re
from collections import Counter

from jielong.cleaning.outcome import Change, Drop
from jielong.cleaning.words import Words

NOTICE_CHARS = 200  # of a line that may be a notice
NOTICE = re.compile(
    r"javascript|terms of use|privacy policy|cookie policy|(?:use|uses|use of) cookies"
    r"|all rights reserved|版权所有|版權所有|ICP[备備]|扫一扫|掃一掃|微信公众号|隐私政策|隱私政策"
    r"|点击(?:下载|查看|进入)|上一[篇页].{0,60}下一[篇页]|免责声明|免責聲明",
    re.IGNORECASE,
)
PLACEHOLDER = re.compile("lorem ipsum", re.IGNORECASE)
SENTENCE_END = re.compile(r"[.!?。！？…][\"'”’」』)）]*(?=\s|$|[^\x00-\x7f])")
ENDS = (".", "!", "?", "…", "。", "！", "？", "”", "’", "」", "』", '"', "'", "：", ":", "；", ";")
LEAST_SENTENCES = 3
LEAST_ENDED, LEAST_ENDED_CHINESE = 0.12, 0.106  # share of the lines; FineWeb and FineWeb-2
SHORT_CHARS, MOST_SHORT = 30, 0.67  # a short line, and the most of them
SHORT_CHINESE = 8  # Chinese characters say as much as 30 letters, which are 5 words
MOST_LINES, MOST_LINES_CHINESE = 0.3, 0.178  # for each word; FineWeb and FineWeb-2


def web(text: str) -> Drop | Change | None:
    """Take out a page's notices, and drop it if what is left is a list or a menu."""
    if PLACEHOLDER.search(text):
        return Drop("placeholder", "lorem ipsum")
    kept: list[str] = []
    removed: list[str] = []
    for line in text.splitlines(keepends=True):
        is_notice = len(line) <= NOTICE_CHARS and NOTICE.search(line)
        (removed if is_notice else kept).append(line)
    left = "".join(kept)
    if not left.strip():
        return Drop("notices", "nothing but notices")
    if drop := _list(Words.of(left)):
        return drop
    if removed:
        counts = Counter({"notices": len(removed)})
        return Change(left, counts, removed=[line.rstrip("\r\n") for line in removed])
    return None


def _list(words: Words) -> Drop | None:
    if words.kind == "other" or not words.word_count:
        return None
    chinese = words.kind == "chinese"
    sentences = len(SENTENCE_END.findall(words.text))
    if sentences < LEAST_SENTENCES:
        return Drop("few sentences", f"{sentences} sentences, fewer than {LEAST_SENTENCES}")
    lines = words.lines
    least = LEAST_ENDED_CHINESE if chinese else LEAST_ENDED
    ended = sum(line.endswith(ENDS) for line in lines) / len(lines)
    if ended < least:
        return Drop(
            "lines without end", f"{ended:.0%} of the lines end in a mark, below {least:.0%}"
        )
    chars = SHORT_CHINESE if chinese else SHORT_CHARS
    short = sum(len(line) <= chars for line in lines) / len(lines)
    if short > MOST_SHORT:
        return Drop("short lines", f"{short:.0%} of the lines are short, above {MOST_SHORT:.0%}")
    most = MOST_LINES_CHINESE if chinese else MOST_LINES
    share = len(lines) / words.word_count
    if share > most:
        return Drop("a list", f"{share:.2f} lines for each word, above {most}")
    return None
