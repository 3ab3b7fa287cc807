"""Which files a dataset is made of and which not, in a few lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePath

from jielong.data.sources.documents import Source
from jielong.data.sources.file_kinds import suggested
from jielong.data.sources.held_out_names import named_as_held_out
from jielong.data.sources.items import shown
from jielong.data.sources.listing import HIDDEN, NO_TEXT, NotRead

NAMED = 3  # files or folders that a line names
KINDS_NAMED = 5


def describe_files(
    sources: Sequence[Source], not_read: Sequence[NotRead], for_training: bool = True
) -> list[str]:
    """List kinds, numbers and sizes of the files that are read; the others with the reason.

    Args:
        for_training: warn of what is named like held-out text.
    """
    files = [source for source in sources if source.place is not None]
    places = [source.place for source in files if source.place is not None]
    lines = []
    if files:
        size = sum(source.size or 0 for source in files)
        lines.append(f"  files          {_kinds(places)} ({_size(size)})")
    for number, reason in enumerate(sorted({item.reason for item in not_read}, key=_last)):
        items = [item for item in not_read if item.reason == reason]
        label = "not read" if number == 0 else ""
        lines.append(f"  {label:<15}{_items(items)}: {reason}{_instead(items, reason)}")
    again = Counter(places)
    repeated = [place for place, count in again.items() if count > 1]
    if repeated:
        lines.append(f"  note           {_paths(repeated)}: named more than once, read as often")
    named = [place for place in places if named_as_held_out(place)]
    if named and for_training:
        lines.append(
            f"  note           {_paths(named)}: trained on, although named like held-out text; to "
            f"measure on it instead, leave it out and give --validation-path {shown(named[0])}"
        )
    return lines


def _last(reason: str) -> tuple[int, str]:
    """Sort what hardly matters to the end."""
    return (reason == NO_TEXT) + 2 * (reason == HIDDEN), reason


def _items(items: Sequence[NotRead]) -> str:
    folders = [item.path for item in items if item.is_folder]
    files = [item for item in items if not item.is_folder]
    parts = [_paths(folders)] if folders else []
    if files:
        size = sum(item.bytes for item in files)
        names = f" {_paths([i.path for i in files])}" if len(files) <= NAMED else ""
        parts.append(f"{_kinds(item.path for item in files)}{names} ({_size(size)})")
    return ", ".join(parts)


def _instead(items: Sequence[NotRead], reason: str) -> str:
    if reason == NO_TEXT and (flag := suggested([item.path for item in items])):
        return f"; {flag} reads such as plain text"
    if not reason.endswith("split"):
        return ""
    return f"; to measure on it: --validation-path {shown(items[0].path)}"


def _paths(paths: Sequence[PurePath]) -> str:
    more = f" and {len(paths) - NAMED:,} more" if len(paths) > NAMED else ""
    return ", ".join(map(shown, paths[:NAMED])) + more


def _kinds(paths: Iterable[PurePath]) -> str:
    counts = Counter("".join(p.suffixes[-1:]).lower().lstrip(".") or "other" for p in paths)
    named = [f"{count:,} {kind}" for kind, count in counts.most_common(KINDS_NAMED)]
    rest = counts.total() - sum(count for _, count in counts.most_common(KINDS_NAMED))
    return ", ".join(named) + (f", {rest:,} others" if rest else "")


def _size(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"
