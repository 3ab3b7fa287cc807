"""Which of the names in an archive, or at a remote address, are read: as in folders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from jielong.data.sources.document_files import is_installed
from jielong.data.sources.file_kinds import (
    ABOUT_A_DATASET,
    DOCUMENTS,
    PROGRAM_FILES,
    STREAMED,
    Suffixes,
    kind_of,
)
from jielong.data.sources.held_out_names import held_out_files

NO_TEXT, HIDDEN = "in no text format", "hidden"
PROGRAM, ABOUT = "of a program, not text", "about the dataset, not of it"
OUTSIDE = "with names that lead out of the archive"
NOT_INSTALLED = "that pip install 'jielong[documents]' reads"


@dataclass(frozen=True)
class MemberRules:
    """Which members are read: as in folders.

    Attributes:
        suffixes: of further members that are plain text.
        for_training: the test and validation splits are left out.
    """

    suffixes: Suffixes = frozenset()
    for_training: bool = False


@dataclass
class Chosen:
    """The kinds of the names that are read, and why the others are not."""

    kinds: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)


def choose(
    members: Iterable[tuple[str, str]],
    rules: MemberRules,
    formats: Sequence[str] = (*STREAMED, *DOCUMENTS),
) -> Chosen:
    """Choose the members that are read.

    Args:
        members: each one's name and why it is no plain file, or nothing.
        formats: kinds that can be read.
    """
    chosen = Chosen()
    for member, problem in members:
        path = PurePosixPath(member)
        kind = kind_of(Path(path), rules.suffixes)
        if problem:
            chosen.reasons[member] = problem
        elif path.is_absolute() or ".." in path.parts:
            chosen.reasons[member] = OUTSIDE
        elif any(part.startswith(".") or part == "__MACOSX" for part in path.parts):
            chosen.reasons[member] = HIDDEN
        elif path.name in PROGRAM_FILES:
            chosen.reasons[member] = PROGRAM
        elif kind not in formats:
            chosen.reasons[member] = NO_TEXT
        elif kind in DOCUMENTS and not is_installed(kind):
            chosen.reasons[member] = NOT_INSTALLED
        else:
            assert kind is not None
            chosen.kinds[member] = kind
    reasons = _held_out(chosen.kinds) if rules.for_training else {}
    if set(chosen.kinds.values()) - {"text", *DOCUMENTS}:
        about = [m for m in chosen.kinds if ABOUT_A_DATASET.fullmatch(PurePosixPath(m).name)]
        reasons |= dict.fromkeys(about, ABOUT)
    for member in reasons:
        del chosen.kinds[member]
    chosen.reasons |= reasons
    return chosen


def _held_out(kinds: Mapping[str, str]) -> dict[str, str]:
    files = {Path(member): member for member in kinds}
    return {files[f]: f"a {split} split" for f, split in held_out_files(Path(), [*files]).items()}
