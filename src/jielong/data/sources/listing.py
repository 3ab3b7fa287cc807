"""Paths → the files of text that they name, and the files that are left out, each with the reason.

A folder seldom holds nothing but text. What programs wrote for themselves (runs, prepared datasets,
tokenizers), the README and licence of a dataset, and its test split are not read. Links to folders
are followed, each folder once.
"""

from __future__ import annotations

import difflib
import fnmatch
import glob
import json
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from jielong.data.sources.document_files import is_installed
from jielong.data.sources.file_kinds import (
    ABOUT_A_DATASET,
    DOCUMENTS,
    PROGRAM_FILES,
    READABLE,
    Suffixes,
    kind_of,
    suggested,
)
from jielong.data.sources.held_out_names import held_out_files
from jielong.errors import DataError

RUN_FILES = frozenset({"metrics.jsonl", "holder.json", "stdin.jsonl", "stdin.txt"})
RUN_FOLDERS = frozenset({"checkpoints", "wandb", "swanlab", "tensorboard"})
CARD_FIELDS = re.compile(
    rb"^(license|dataset_info|task_categories|configs|size_categories|pretty_name)\s*:",
    re.MULTILINE,
)
CARD_BYTES = 2**16

RUN, DATASET = "a run of jielong", "a prepared dataset"
PROGRAM, ABOUT = "of a program, not text", "about the dataset, not of it"
NO_TEXT, HIDDEN = "in no text format", "hidden"
BROKEN, CLOSED = "a broken link, or no file", "cannot be opened"
AGAIN = "a link to what is read already"
CACHE = "a cache of the datasets library"
NOT_INSTALLED = "read by pip install 'jielong[documents]'"
CLEANED, DROPPED = "cleaning.json", "dropped"  # of a folder that `jielong clean` made
NOT_WORTH = "dropped by jielong clean"


@dataclass(frozen=True)
class NotRead:
    """A file or folder that is not read, and why."""

    path: PurePath
    reason: str
    bytes: int = 0
    is_folder: bool = False


@dataclass
class Listing:
    """The files of text at a path, in order, and what was left out."""

    files: list[Path] = field(default_factory=list)
    not_read: list[NotRead] = field(default_factory=list)

    def leave_out(self, path: Path, reason: str) -> None:
        """Record a file that is not read."""
        try:
            size = path.stat().st_size
        except OSError:
            size = 0
        self.not_read.append(NotRead(path, reason, size))


def list_files(path: str, for_training: bool = False, suffixes: Suffixes = frozenset()) -> Listing:
    """Find the files of text at a path.

    Args:
        path: a file, a folder (searched recursively, in sorted order) or a glob.
        for_training: leave out files named like the held-out part of others in the same folder.
        suffixes: of further files that are plain text.

    Raises:
        DataError: there is no such path, or no text there.
    """
    here = Path(path).expanduser()
    if here.is_file():
        return Listing([here])
    if here.is_dir():
        if reason := _folder_of_a_program(here):
            refuse(path, reason)
        listing = _select(here, _walk([here], own=here), for_training, suffixes)
        if not listing.files:
            raise DataError(
                f"{path}: no text in this folder{_instead(listing)}; supported: {READABLE}"
            )
        return listing
    if any(char in path for char in "*?["):
        listing = _select(Path(glob_base(str(here))), _glob(str(here)), for_training, suffixes)
        if not listing.files:
            raise DataError(
                f"{path}: matches no readable file{_instead(listing)}; supported: {READABLE}"
            )
        return listing
    if here.exists():
        raise DataError(f"{path}: is no file or folder: for a pipe, give --data-path -")
    parent = here.parent
    names = [p.name for p in parent.iterdir()] if parent.is_dir() else []
    close = difflib.get_close_matches(here.name, names, n=1)
    hint = f"; did you mean {parent / close[0]}?" if close else ""
    raise DataError(f"{path}: no such file or folder{hint}")


def refuse(path: str, reason: str) -> None:
    """Raise the error of a folder that was given as text, and is a prepared dataset."""
    if reason == DATASET:
        raise DataError(
            f"{path}: is a prepared dataset, not text: give it to `jielong pretrain` as the only "
            "--data-path, or name the text that it was made from"
        )


def _instead(listing: Listing) -> str:
    """Say what there is where there is no text."""
    reasons = dict.fromkeys(left.reason for left in listing.not_read if left.reason != HIDDEN)
    there = f" (not read: {'; '.join(reasons)})" if reasons else ""
    if not reasons and listing.not_read:
        there = " (only hidden files, which are read if they are named themselves)"
    flag = suggested([left.path for left in listing.not_read if left.reason == NO_TEXT])
    return there + (f"; {flag} reads such files as plain text" if flag else "")


def _select(
    root: Path, found: Iterable[Path | NotRead], for_training: bool, suffixes: Suffixes
) -> Listing:
    """Keep the files that are text; sort them, and drop those that are another one's link."""
    listing, files = Listing(), []
    for item in found:
        if isinstance(item, NotRead):
            listing.not_read.append(item)
        elif not item.is_file():
            listing.leave_out(item, BROKEN)
        elif item.name in PROGRAM_FILES:
            listing.leave_out(item, PROGRAM)
        elif (kind := kind_of(item, suffixes)) is None:
            listing.leave_out(item, NO_TEXT)
        elif kind in DOCUMENTS and not is_installed(kind):
            listing.leave_out(item, NOT_INSTALLED)
        else:
            files.append(item)
    about, caches = _about_a_dataset(files, suffixes), _caches(files)
    held_out = held_out_files(root, files) if for_training else {}
    seen: set[Path] = set()
    for file in sorted(files, key=lambda file: (file.is_symlink(), file)):
        real = file.resolve()
        if file in about:
            listing.leave_out(file, ABOUT)
        elif file in caches:
            listing.leave_out(file, CACHE)
        elif file in held_out:
            listing.leave_out(file, f"a {held_out[file]} split")
        elif real in seen:
            listing.leave_out(file, AGAIN)
        else:
            listing.files.append(file)
        seen.add(real)
    listing.files.sort()
    return listing


def _about_a_dataset(files: list[Path], suffixes: Suffixes) -> set[Path]:
    """Return READMEs, licences and the like of a folder whose text is in rows, or that has a card.

    A dataset's repository has them beside its data. In a folder of notes a README is text too.
    """
    texts = ("text", *DOCUMENTS)
    rows = {p for file in files if kind_of(file, suffixes) not in texts for p in file.parents}
    about = {file for file in files if ABOUT_A_DATASET.fullmatch(file.name)}
    cards = {file.parent for file in about if _is_card(file)}
    if about == set(files):
        return set()
    return {file for file in about if file.parent in rows | cards}


def _caches(files: list[Path]) -> set[Path]:
    """Return the Arrow files in folders of `save_to_disk` that are no part of the dataset."""
    found = set[Path]()
    for folder in {file.parent for file in files if file.suffix == ".arrow"}:
        try:
            state = json.loads((folder / "state.json").read_bytes())
            parts = {part["filename"] for part in state["_data_files"]}
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            continue
        there = {file for file in files if file.parent == folder and file.suffix == ".arrow"}
        if any(file.name in parts for file in there):
            found |= {file for file in there if file.name not in parts}
    return found


def _is_card(file: Path) -> bool:
    """Whether a README begins with the metadata of a dataset on the Hugging Face Hub."""
    if file.name.lower() != "readme.md":
        return False
    try:
        with file.open("rb") as stream:
            head = stream.read(CARD_BYTES)
    except OSError:
        return False
    begins, _, rest = head.partition(b"\n")
    metadata, ends, _ = rest.partition(b"\n---")
    return begins.strip() == b"---" and bool(ends) and bool(CARD_FIELDS.search(metadata))


def _folder_of_a_program(folder: Path) -> str | None:
    """Return what a folder is if a program wrote all of it."""
    try:
        names = {path.name for path in folder.iterdir()}
    except OSError:
        return CLOSED
    if folder.name == DROPPED and (folder.parent / CLEANED).is_file():
        return NOT_WORTH
    if are_of_dataset(names):
        return DATASET
    written = {"metrics.jsonl", "holder.json", ".lock", "checkpoints", "chosen.toml"}
    if "config.toml" in names and names & written:
        return RUN
    if "pyvenv.cfg" in names or folder.name in ("node_modules", "__pycache__"):
        return PROGRAM
    return None


def are_of_dataset(names: Collection[str]) -> bool:
    """Return whether the names in a folder are those of a prepared dataset."""
    return "dataset.json" in names and any(name.endswith(".documents.bin") for name in names)


def _walk(roots: list[Path], own: Path | None = None) -> Iterator[Path | NotRead]:
    """Yield all files below some folders; links to folders last, and no folder twice.

    Args:
        own: a folder that was named itself: if it is a run, its files are left out one by one.
    """
    folders, links = roots[::-1], list[Path]()
    seen: set[Path] = set()
    within = [root.resolve() for root in roots]
    while folders or links:
        is_link = not folders
        folder = links.pop(0) if is_link else folders.pop()
        real = folder.resolve()
        around = any(root.is_relative_to(real) for root in within)  # such a link leads to itself
        if real in seen or (is_link and around):
            yield NotRead(folder, AGAIN, is_folder=True)
            continue
        seen.add(real)
        what = _folder_of_a_program(folder)
        if what is not None and not (what == RUN and folder == own):
            yield NotRead(folder, what, is_folder=True)
            continue
        for path in sorted(folder.iterdir(), reverse=True):
            name = path.name
            if name.startswith("."):
                yield NotRead(path, HIDDEN, is_folder=path.is_dir())
            elif what == RUN and name in RUN_FILES | RUN_FOLDERS:
                yield NotRead(path, RUN, is_folder=path.is_dir())
            elif path.is_dir():
                (links if path.is_symlink() else folders).append(path)
            else:
                yield path


def glob_base(pattern: str) -> str:
    """Return the folder that a glob searches: its parts before the first wildcard."""
    parts = Path(pattern).parts
    fixed = next(i for i, part in enumerate(parts) if any(char in part for char in "*?["))
    return str(Path(*parts[:fixed])) if fixed else "."


def _glob(pattern: str) -> Iterator[Path | NotRead]:
    """Yield the files that match, and those in folders that do, as a shell would pass them on."""
    parts = Path(pattern).parts
    if "**" not in parts:
        found = sorted(map(Path, glob.glob(pattern)))  # noqa: PTH207
        yield from (path for path in found if not path.is_dir())
        yield from _walk([path for path in found if path.is_dir()])
        return
    base = Path(glob_base(pattern))
    wanted = parts[len(base.parts) :]
    for item in _walk([base]) if base.is_dir() else ():
        path = item.path if isinstance(item, NotRead) else item
        names = path.relative_to(base).parts
        if any(matches(names[:count], wanted) for count in range(1, len(names) + 1)):
            yield item
        elif isinstance(item, NotRead) and item.is_folder and item.reason != HIDDEN:
            yield item  # something in it may have matched


def matches(names: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """Return whether a path's parts match a glob's, of which `**` stands for any number."""
    if not pattern:
        return not names
    if pattern[0] == "**":
        rest = pattern[1:]
        return not rest or any(matches(names[skip:], rest) for skip in range(len(names)))
    return (
        bool(names)
        and fnmatch.fnmatchcase(names[0], pattern[0])
        and matches(names[1:], pattern[1:])
    )
