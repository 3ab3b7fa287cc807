"""What a filter says of one text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

HEAD_CHARS = 2**20  # a longer text is judged by its beginning, which bounds time and memory


@dataclass(frozen=True, slots=True)
class Drop:
    """A text is dropped.

    Attributes:
        rule: why, in a few words by which the report counts.
        detail: the same with the numbers.
    """

    rule: str
    detail: str


@dataclass(frozen=True, slots=True)
class Change:
    """A text stays, but not as it was.

    Attributes:
        text: what it becomes.
        counts: what was changed, and how often.
        removed: the lines that were taken out.
        masked: of each mask what it is, and the characters of the text as it was that it covers.
    """

    text: str
    counts: Counter[str]
    removed: list[str] = field(default_factory=list)
    masked: list[tuple[str, int, int]] = field(default_factory=list)


TextFilter = Callable[[str], Drop | Change | None]  # None: the text stays as it is
