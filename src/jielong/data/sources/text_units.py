"""Where a text ends in a file of plain text: at its end, a separator, a line or a paragraph.

Some separators are plain: tokens such as `<|endoftext|>`, which stand for nothing else, and lines
of `---` or `***` where a file has many of them, close together. They are found without being asked
for. Whether a file is one text or has one in each line is not to be seen from the outside; that has
to be said (`--text-unit`).
"""

from __future__ import annotations

import dataclasses
import re
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from jielong.errors import ConfigError

HEAD_BYTES = 2**20  # of a file, by which its separators are known
LONGEST_SEPARATOR = 2**10
SEPARATED_BYTES = 2**20  # a text longer than that is cut even where separators end texts
WHOLE_BYTES = 64 * 2**20  # the same with the unit file

# tokens that end a text, and those that begin one
ENDS = {
    b"<|endoftext|>": b"<|startoftext|>",
    b"<|end_of_text|>": b"<|begin_of_text|>",
    b"<|im_end|>": b"<|im_start|>",
    b"</s>": b"<s>",
    b"<eos>": b"<bos>",
    b"[EOS]": b"[BOS]",
}
UNMISTAKABLE = (b"<|endoftext|>", b"<|end_of_text|>")  # in chats and markup the others mean more
CHAT = re.compile(rb"<\|im_start\|>(system|user|assistant|tool|human)\b|<s>\s*\[INST\]")
SPACE = rb"[ \t]*"
RULE = re.compile(rb"^[ \t]*([-=*_~#]{3,}|(?:[-*][ ]){2,}[-*]|%{1,2})[ \t]*\r?$", re.MULTILINE)
MOSTLY = 0.9  # of a token's places must be ends of texts, so that it is a separator
LEAST_RULES = 8  # lines of --- in a file, so that they may be separators
RULED_BYTES = 2000  # longest usual text between such; chapters and scenes are longer


class TextSettings(Protocol):
    """The settings that say where a text ends, and what of HTML is text."""

    @property
    def text_unit(self) -> str: ...
    @property
    def document_separator(self) -> str: ...
    @property
    def html_text(self) -> str: ...


@dataclass(frozen=True)
class Splitting:
    """Where texts end, and what of HTML is text, as asked for.

    Attributes:
        unit: auto, file, line or paragraph; of plain text.
        separator: auto, none, or the separator itself; of rows too, unless auto.
        html: all, main, or auto: all of files, main of web archives.
    """

    unit: str = "auto"
    separator: str = "auto"
    html: str = "auto"

    @classmethod
    def of(cls, settings: TextSettings) -> Splitting:
        """Take the settings of a run.

        Raises:
            ConfigError: they contradict each other, or the separator is empty or very long.
        """
        splitting = cls(settings.text_unit, settings.document_separator, settings.html_text)
        given = splitting.given
        if given is not None and not 0 < len(given) <= LONGEST_SEPARATOR:
            raise ConfigError(
                f"data.document_separator has {len(given):,} bytes: give auto, none or a separator "
                f"of at most {LONGEST_SEPARATOR:,}"
            )
        if given is not None and splitting.unit != "auto":
            raise ConfigError(
                f"data.text_unit={splitting.unit} and data.document_separator="
                f"{splitting.separator!r} both say where a text ends: give one"
            )
        return splitting

    @property
    def given(self) -> bytes | None:
        """The separator that was given; `\\n` and `\\t` in it are escapes."""
        if self.separator in ("auto", "none"):
            return None
        return self.separator.replace("\\n", "\n").replace("\\t", "\t").encode()


AUTOMATIC = Splitting()


@dataclass(frozen=True)
class Ends:
    """How texts end in one file.

    Attributes:
        pattern: matches what stands between two texts; None if nothing does.
        unit: what ends a text, in words: file, line, paragraph or a separator; empty: the match.
        begins: what may stand before a text, and is no part of it.
        limit: bytes from which on a text is cut; None leaves it to the caller.
    """

    pattern: re.Pattern[bytes] | None
    unit: str = ""
    begins: tuple[bytes, ...] = ()
    limit: int | None = SEPARATED_BYTES


def ends_in(head: bytes, name: str, splitting: Splitting) -> Ends:
    """Decide where texts end in a file of plain text.

    Args:
        head: its first HEAD_BYTES.
        name: its name; in Markdown, lines of `---` are markup.
    """
    if splitting.given is not None:
        return ends_of_separator(splitting.given)
    if splitting.unit == "file":
        return Ends(None, "file", limit=WHOLE_BYTES)
    found = _tokens_in(head) if splitting.separator == "auto" else None
    if splitting.unit in ("line", "paragraph"):
        blank = rb"(?:(?:[ \t]|\xe3\x80\x80)*\r?\n)+"  # U+3000 is a space too
        pattern = rb"\n" + (blank if splitting.unit == "paragraph" else b"")
        if found is not None and found.pattern is not None:
            pattern += b"|" + found.pattern.pattern
        begins = () if found is None else found.begins
        return Ends(re.compile(pattern, re.MULTILINE), splitting.unit, begins)
    if found is not None:
        return found
    if splitting.separator == "none":
        return Ends(None, "file", limit=None)
    rule = None if ".md" in name.lower() else _rule_in(head)
    if rule is not None:
        return _ends_of_lines([rule])
    return dataclasses.replace(_ends_of_lines(UNMISTAKABLE), limit=None)  # in case one comes later


def ends_of_separator(separator: bytes) -> Ends:
    """Return the ends that a given separator makes.

    One of punctuation only, such as `---`, counts only where it has a line of its own.
    """
    if re.fullmatch(rb"[-=*_~#%.+^&@!\xa7 ]+", separator):
        return _ends_of_lines([separator.strip()])
    pattern = re.escape(separator).replace(b"\\\n", rb"\r?\n")
    shown = separator.decode().replace("\n", "\\n").replace("\t", "\\t")
    begin = ENDS.get(separator.strip())
    return Ends(re.compile(SPACE + pattern), shown, (begin,) if begin else ())


def _ends_of_lines(separators: Sequence[bytes]) -> Ends:
    """Return the ends made by separators that have a line of their own."""
    either = b"|".join(map(re.escape, separators))
    return Ends(re.compile(rb"^[ \t]*(?:" + either + rb")[ \t]*(?:\r?\n|\Z)", re.MULTILINE))


def _tokens_in(head: bytes) -> Ends | None:
    """Find the tokens in ENDS that stand where texts end; None if there are none."""
    patterns, begins = [], []
    is_chat = bool(CHAT.search(head))
    for end, begin in ENDS.items():
        total = head.count(end)
        token, opener = re.escape(end), re.escape(begin)
        if not total or (is_chat and end not in UNMISTAKABLE):
            continue
        if end in UNMISTAKABLE:
            pattern = rb"(?<![\"'`])" + token + rb"(?![\"'`])"
        else:
            pattern = token + rb"(?=\s*(?:\Z|" + opener + rb")|[ \t]*\r?\n)"
            opened = re.findall(rb"(?:^|" + token + rb")\s*" + opener, head, re.MULTILINE)
            if len(opened) < MOSTLY * head.count(begin):
                continue
            if total == 1 and not head.rstrip().endswith(end):
                continue
        if len(re.findall(pattern, head)) >= MOSTLY * total:
            patterns.append(SPACE + pattern + SPACE)
            begins.append(begin)
    if not patterns:
        return None
    return Ends(re.compile(b"|".join(patterns), re.MULTILINE), begins=tuple(begins))


def _rule_in(head: bytes) -> bytes | None:
    """Find the line of `---` or the like that ends texts: there are many, close together."""
    rules = Counter(rule.strip() for rule in RULE.findall(head))
    if not rules:
        return None
    rule, count = rules.most_common(1)[0]
    if count < LEAST_RULES:
        return None
    pattern = _ends_of_lines([rule]).pattern
    assert pattern is not None
    sizes = [len(text.strip()) for text in pattern.split(head)]
    inner = sizes[1:-1]  # the last may be cut, the first may be a title
    if min(inner) == 0 or statistics.median(inner) > RULED_BYTES:
        return None
    return rule
