"""What each filter dropped or changed: counted, listed in a file, and with a few examples."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from jielong.cleaning.outcome import Change, Drop
from jielong.cleaning.staging import Place
from jielong.data.shard_writer import HashedFile

EXAMPLES = 3  # of each filter, in the report
EXAMPLE_CHARS = 80  # of a text that an example shows


@dataclass
class Account:
    """What one filter did.

    Attributes:
        dropped, dropped_bytes: texts that it dropped.
        changed, removed_bytes: texts that it changed, and bytes of the lines that it took out.
        rules: how often each rule dropped a text, or changed one.
        examples: the first of these, each in a line.
    """

    dropped: int = 0
    dropped_bytes: int = 0
    changed: int = 0
    removed_bytes: int = 0
    rules: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """Return it as JSON can hold it; the rules with the commonest first."""
        return asdict(self) | {"rules": dict(self.rules.most_common())}

    @classmethod
    def of_record(cls, record: dict[str, Any]) -> Account:
        """Return the account that `record` made."""
        return cls(**record | {"rules": Counter(record["rules"])})

    def example(self, text: str) -> None:
        """Keep one of the first examples."""
        if len(self.examples) < EXAMPLES:
            self.examples.append(text)


class Accounts:
    """The accounts of all filters, and their lists `dropped/FILTER.jsonl`.

    Args:
        folder: of the lists; one is there only if it holds anything.
        names: of the filters.
    """

    def __init__(self, folder: Path, names: tuple[str, ...]) -> None:
        self.by_filter = {name: Account() for name in names}
        self._folder = folder
        self._files: dict[str, HashedFile] = {}

    def dropped(self, name: str, drop: Drop, place: Place, text: str) -> None:
        """Enter a text that a filter dropped."""
        account = self.by_filter[name]
        account.dropped += 1
        account.dropped_bytes += len(text.encode())
        account.rules[drop.rule] += 1
        account.example(f"{place}: {drop.detail}: {shortened(text)}")
        self._list(name, place, {"rule": drop.rule, "why": drop.detail, "text": text})

    def duplicate(
        self, name: str, place: Place, text: str, first: Place, similarity: float | None
    ) -> None:
        """Enter a text that another one repeats; its text is listed unless they are the same."""
        account = self.by_filter[name]
        account.dropped += 1
        account.dropped_bytes += len(text.encode())
        row: dict[str, Any] = {"like": str(first)}
        says = f"{place}: the same as {first}"
        if similarity is not None:
            row |= {"similarity": round(similarity, 4), "text": text}
            says = f"{place}: {similarity:.0%} like {first}"
        account.example(f"{says}: {shortened(text)}")
        self._list(name, place, row)

    def changed(self, name: str, change: Change, place: Place) -> None:
        """Enter a change of a text. Personal data is not repeated: only where it was."""
        account = self.by_filter[name]
        account.changed += 1
        account.rules.update(change.counts)
        if change.removed:
            account.removed_bytes += sum(len(line.encode()) + 1 for line in change.removed)
            account.example(f"{place}: {shortened(change.removed[0])}")
            self._list(name, place, {"removed": change.removed})
        if change.masked:
            kinds = ", ".join(dict.fromkeys(kind for kind, _, _ in change.masked))
            account.example(f"{place}: {kinds}")
            masked = [{"kind": k, "begin": b, "end": e} for k, b, e in change.masked]
            self._list(name, place, {"masked": masked})

    def close(self) -> None:
        """Finish the lists."""
        for file in self._files.values():
            file.close()

    def _list(self, name: str, place: Place, row: dict[str, Any]) -> None:
        if name not in self._files:
            self._folder.mkdir(exist_ok=True)
            self._files[name] = HashedFile(self._folder / f"{name}.jsonl")
        where = {"file": place.source, "line": place.line}
        self._files[name].write(orjson.dumps(where | row) + b"\n")


def shortened(text: str) -> str:
    """Return the beginning of a text in one line that any terminal can show."""
    line = " ".join(text[: 4 * EXAMPLE_CHARS].split())
    line = "".join(char if char.isprintable() else "\ufffd" for char in line)
    return line if len(line) <= EXAMPLE_CHARS else line[:EXAMPLE_CHARS] + " …"
