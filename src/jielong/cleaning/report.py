"""The report of a cleaning: what was read, what each filter dropped, what is left."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jielong.cleaning.accounts import Account
from jielong.config.cleaning import FILTERS
from jielong.data.prepare.left_out import BAD_LINES
from jielong.data.sources.listing import CLEANED, DROPPED
from jielong.data.sources.losses import Losses
from jielong.errors import DataError

FORMAT = 1
RULES_NAMED = 6
MUCH = 0.5  # of the text dropped by one filter is worth a warning

Word = Callable[[str], str]


@dataclass(frozen=True)
class CleanReport:
    """What a cleaning did.

    Attributes:
        folder: of the cleaned text.
        reused: it was there already.
        read_texts, read_bytes: what was read.
        kept_texts, kept_bytes: what is left.
        accounts: what each filter did, by name, in the order in which they ran.
        left_out: what could not be read.
        files: names of the files of text.
        about_files: which files were read and which not, in lines.
        notes: what else to know.
    """

    folder: Path
    reused: bool
    read_texts: int
    read_bytes: int
    kept_texts: int
    kept_bytes: int
    accounts: dict[str, Account]
    left_out: Losses
    files: tuple[str, ...]
    about_files: tuple[str, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the numbers and examples as JSON can hold them."""
        return {
            "folder": str(self.folder),
            "read": {"texts": self.read_texts, "bytes": self.read_bytes},
            "kept": {"texts": self.kept_texts, "bytes": self.kept_bytes},
            "filters": {name: account.record() for name, account in self.accounts.items()},
            "left_out": self.left_out.record(),
            "files": list(self.files),
            "about_files": list(self.about_files),
            "notes": list(self.notes),
        }

    @classmethod
    def of_record(cls, folder: Path, record: dict[str, Any], reused: bool = False) -> CleanReport:
        """Return the report of a finished folder.

        Raises:
            DataError: its record is damaged.
        """
        try:
            return cls(
                folder=folder,
                reused=reused,
                read_texts=record["read"]["texts"],
                read_bytes=record["read"]["bytes"],
                kept_texts=record["kept"]["texts"],
                kept_bytes=record["kept"]["bytes"],
                accounts={n: Account.of_record(a) for n, a in record["filters"].items()},
                left_out=Losses.of_record(record["left_out"]),
                files=tuple(record["files"]),
                about_files=tuple(record["about_files"]),
                notes=tuple(record["notes"]),
            )
        except (KeyError, TypeError, AttributeError):
            raise DataError(
                f"{folder / CLEANED}: is damaged: delete {folder} and clean the text again"
            ) from None

    def lines(self, word: Word = str, example: Word = str) -> list[str]:
        """Format the report.

        Args:
            word, example: say a sentence, or an example, in the language of the reader.
        """
        reused = " (already cleaned: reused)" if self.reused else ""
        lines = [
            word(f"cleaned {self.folder}{reused}"),
            *map(word, self.about_files),
            word(f"  read           {_texts(self.read_texts)}, {self.read_bytes / 1e6:,.2f} MB"),
        ]
        if self.left_out.count:
            where = self.folder / DROPPED / BAD_LINES
            lines.append(word(f"  left out       {self.left_out.summary()}; see {where}"))
        if warning := self.left_out.warning():
            lines.append(word(f"  WARNING        text was left out; the first is {warning}"))
        lines += [word(f"  note           {note}") for note in self.left_out.notes()]
        for name, account in self.accounts.items():
            lines += self._filter_lines(name, account, word, example)
        count = len(self.files)
        lines.append(
            word(
                f"  kept           {_texts(self.kept_texts)}, {self.kept_bytes / 1e6:,.2f} MB "
                f"({self.kept_bytes / self.read_bytes:.1%}), in {count:,} file{'s' * (count > 1)}"
            )
        )
        lines += [word(f"  note           {note}") for note in self.notes]
        off = [name for name in FILTERS if name not in self.accounts]
        return [*lines, word(f"  off            {', '.join(off)}")] if off else lines

    def _filter_lines(
        self, name: str, account: Account, word: Word, example: Word
    ) -> Iterable[str]:
        parts = []
        share = account.dropped_bytes / self.read_bytes
        if account.dropped:
            parts.append(word(f"dropped {_texts(account.dropped)}, {share:.1%} of the text"))
        if account.removed_bytes:
            removed = account.removed_bytes / self.read_bytes
            texts = _texts(account.changed)
            parts.append(word(f"took lines out of {texts}, {removed:.1%} of the text"))
        elif account.changed:
            parts.append(word(f"masked in {_texts(account.changed)}"))
        common = account.rules.most_common(RULES_NAMED)
        rules = [f"{word(rule)} {count:,}" for rule, count in common]
        of = f" ({', '.join(rules)})" if rules else ""
        yield f"  {name:<15}{'; '.join(parts) or word('nothing')}{of}"
        for text in account.examples:
            yield f"    {example(text)}"
        if account.dropped or account.changed:
            yield word(f"    all of them: {self.folder / DROPPED / name}.jsonl")
        if share > MUCH:
            yield word(
                f"  WARNING        {name} dropped more than half of the text: is it of the kind "
                f"that this filter is for? --without {name} leaves it out"
            )


def _texts(count: int) -> str:
    return f"{count:,} text" + "s" * (count != 1)
