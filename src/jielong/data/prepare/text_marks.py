"""What the texts of a dataset are, and the marks in them that training would take literally.

Special tokens inside a text are trained as what they are, padding or the end of a text, and those
of another tokenizer as plain characters. Neither should happen without the user's knowledge.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from jielong.data.sources.documents import Document
from jielong.data.sources.row_text import CONVERSATION
from jielong.data.sources.text_units import RULE
from jielong.errors import DataError
from jielong.tokenization.tokenizer import Tokenizer

MARKUP = re.compile(r"<\|[a-z_]{2,30}\|>|</?s>|<(?:bos|eos|pad|unk|mask)>|\[/?INST\]")
ODD = {  # characters that hardly any text has on purpose, and where they come from
    "\0": "NUL",
    "\ufffd": "U+FFFD, lost when the text was converted",
    "\ufeff": "byte order marks, left where files were joined",
}
MISREAD = re.compile("[\x80-\x9f]|Ã[\xa0-\xbf]|â€")
MOJIBAKE = "signs of UTF-8 that was read as Latin-1 (mojibake)"
RULES = re.compile(RULE.pattern.decode(), re.MULTILINE)
NAMED = 6  # marks that a note names
LEAST_RULES = 4  # lines of --- that a note is made of
LEAST_LINES, LEAST_LINE_BYTES = 20, 80  # of a file that may have one text a line
UNITS = {
    "row": "{:,} row{s}",
    CONVERSATION: "{:,} conversation{s}",
    "file": "{:,} whole file{s}",
    "piece": "{:,} piece{s} of long texts",
    "line": "{:,} line{s}",
    "paragraph": "{:,} paragraph{s}",
}


@dataclass
class MarkCounts:
    """What makes some texts, and the marks inside them, as counts."""

    units: Counter[str] = field(default_factory=Counter)
    inside: Counter[str] = field(default_factory=Counter)
    foreign: Counter[str] = field(default_factory=Counter)
    rules: Counter[str] = field(default_factory=Counter)
    odd: Counter[str] = field(default_factory=Counter)  # characters, by what they are
    returns: int = 0  # texts with carriage returns
    # of files that are not split
    lines: int = 0
    blank_lines: int = 0
    line_bytes: int = 0

    def add(self, more: MarkCounts) -> None:
        """Add the counts of later texts."""
        for each in fields(self):
            ours, theirs = getattr(self, each.name), getattr(more, each.name)
            if isinstance(ours, Counter):
                ours.update(theirs)
            else:
                setattr(self, each.name, ours + theirs)

    def record(self) -> dict[str, Any]:
        """Return the counts, for the manifest."""
        return {
            "text_units": dict(self.units),
            "special_tokens_inside": dict(self.inside),
            "foreign_marks": dict(self.foreign),
            "rules": dict(self.rules),
            "texts_with_carriage_returns": self.returns,
            "odd_characters": dict(+self.odd),
            "unsplit_lines": [self.lines, self.blank_lines, self.line_bytes],
        }


class TextMarks:
    """Counts what makes a text, and the marks inside the texts."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._special = np.array(sorted(tokenizer.special_tokens), dtype=np.int64)
        self._names = {i: tokenizer.decode([i]) for i in self._special.tolist()}
        self._known = set(self._names.values())

    def count(
        self, documents: Sequence[Document], tokens: np.ndarray, lengths: np.ndarray
    ) -> MarkCounts:
        """Count those of some documents.

        Args:
            tokens: (N,) of all documents, without the bos and eos that are added to them.
            lengths: (documents,) tokens of each.
        """
        counts = MarkCounts(inside=self._special_inside(tokens, lengths[lengths > 0]))
        for document in documents:
            counts.units[document.unit] += 1
            counts.returns += "\r" in document.text
            for char, name in ODD.items():
                counts.odd[name] += document.text.count(char)
            if not document.text.isascii():
                counts.odd[MOJIBAKE] += len(MISREAD.findall(document.text))
            found = MARKUP.findall(document.text) if "<" in document.text else ()
            counts.foreign.update(mark for mark in found if mark not in self._known)
            if document.unit in ("file", "piece"):
                counts.rules.update(rule.strip() for rule in RULES.findall(document.text))
                lines = document.text.split("\n")
                # a piece need not end where a line does
                counts.lines += len(lines) - (document.unit == "piece")
                counts.blank_lines += sum(not line.strip() for line in lines[:-1])
                counts.line_bytes += len(document.text.encode())
        return counts

    def _special_inside(self, tokens: np.ndarray, lengths: np.ndarray) -> Counter[str]:
        special = np.isin(tokens, self._special)
        if special.any():
            ends = np.cumsum(lengths)
            last, first = ends - 1, ends - lengths
            special[first[tokens[first] == self._tokenizer.bos_id]] = False  # not added again
            special[last[tokens[last] == self._tokenizer.eos_id]] = False
        return Counter(self._names[i] for i in tokens[special].tolist())


def describe_texts(counts: Mapping[str, Any]) -> list[str]:
    """Say what one text is, where that is not a row, and what marks are in the texts.

    Raises:
        DataError: the counts, which come from a dataset's manifest, are damaged.
    """
    try:
        return _described(counts)
    except (TypeError, ValueError, AttributeError, LookupError):
        raise DataError("dataset.json: its counts are damaged: prepare the text again") from None


def _described(counts: Mapping[str, Any]) -> list[str]:
    units: dict[str, int] = counts.get("text_units", {})
    lines = []
    if units.keys() - {"row"}:
        each = [UNITS.get(u, "{:,} ended by " + u.replace("{", "")) for u in units]
        said = ", ".join(
            text.format(n, s="" if n == 1 else "s")
            for text, n in zip(each, units.values(), strict=True)
        )
        lines.append(f"  texts          {said}")
    inside: dict[str, int] = counts.get("special_tokens_inside", {})
    if inside:
        fix = f" --document-separator '{max(inside, key=inside.__getitem__)}' ends a text there"
        lines.append(
            f"  note           special tokens inside texts: {_named(inside)}; they are trained as "
            f"such.{'' if CONVERSATION in units else fix}"
        )
    foreign: dict[str, int] = counts.get("foreign_marks", {})
    if foreign:
        lines.append(
            f"  note           {_named(foreign)} in the texts look like special tokens of another "
            "tokenizer; they are learnt as plain characters. --document-separator ends texts at one"
        )
    if returns := counts.get("texts_with_carriage_returns", 0):
        lines.append(
            f"  note           {returns:,} texts have carriage returns (line ends of Windows); "
            "they are learnt, and a prompt has none; for text files: tr -d '\\r' < FILE"
        )
    odd: dict[str, int] = counts.get("odd_characters", {})
    if odd:
        said = "; ".join(f"{count:,} × {name}" for name, count in odd.items())
        lines.append(f"  note           characters that may be damage, and are learnt: {said}")
    return lines + _maybe_separated(counts)


def _maybe_separated(counts: Mapping[str, Any]) -> list[str]:
    """Say what could separate texts in files that were taken as one text each."""
    rules: dict[str, int] = counts.get("rules", {})
    rule = max(rules, key=rules.__getitem__, default="")
    if rules.get(rule, 0) >= LEAST_RULES:
        return [
            f"  note           {rules[rule]:,} lines of {rule} are taken as part of the texts; if "
            f"they separate texts: --document-separator='{rule}'"
        ]
    total, blank, size = counts.get("unsplit_lines", [0, 0, 0])
    if total >= LEAST_LINES and not blank and size / total >= LEAST_LINE_BYTES:
        return [
            f"  note           {total:,} lines of {size / total:.0f} bytes on average, none blank; "
            "if each is a text of its own: --text-unit line"
        ]
    return []


def _named(counts: Mapping[str, int]) -> str:
    most = sorted(counts, key=lambda name: (-counts[name], name))
    more = f" and {len(most) - NAMED} others" if len(most) > NAMED else ""
    return ", ".join(f"{name} {counts[name]:,} times" for name in most[:NAMED]) + more
