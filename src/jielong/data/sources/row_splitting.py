"""Rows that hold several texts, with a separator between them."""

from __future__ import annotations

from collections.abc import Iterator

from jielong.data.sources.items import BadLine, Document, Item
from jielong.data.sources.text_blocks import split_row
from jielong.data.sources.text_units import Splitting, ends_of_separator


def split_rows(items: Iterator[Item], splitting: Splitting) -> Iterator[Item]:
    """Split the rows among the items where a separator is given."""
    if splitting.given is None:
        yield from items
        return
    ends = ends_of_separator(splitting.given)
    for item in items:
        if not isinstance(item, Document) or item.unit != "row":
            yield item
            continue
        parts = split_row(item.text, ends)
        if not parts:
            yield BadLine(item.source, item.line, "holds separators only")
            continue
        sizes = [len(part.encode()) for part in parts]
        if item.size:  # what is around the text counts with its last part
            sizes[-1] += item.size - sum(sizes)
        unit = (ends.unit or splitting.separator) if len(parts) > 1 else "row"
        for text, size in zip(parts, sizes, strict=True):
            yield Document(text, item.source, item.line, size, unit=unit)
