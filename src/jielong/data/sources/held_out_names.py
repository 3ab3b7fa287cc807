"""File names that say which split of a dataset a file is: train, test, validation and the like."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePath

TRAIN = frozenset({"train", "training"})
HELD_OUT = {
    "test": "test",
    "testing": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "eval": "validation",
    "evaluation": "validation",
}
FORMATS = re.compile(
    r"(\.(jsonl|ndjson|json|txt|text|md|csv|tsv|html|htm|xhtml|warc|wet|epub|docx|pdf|parquet|arrow|feather|gz|zst|xz|bz2|zip|tar|tgz|raw|tokens))+$"
)

# what a name without its split has in common with those of the other splits
Rest = tuple[str, ...]


def held_out_files(root: Path, files: Sequence[Path]) -> dict[Path, str]:
    """Find the files that are the test or validation split of others among `files`.

    `data/test-00000-of-00001.parquet` is one if there is a `data/train-….parquet`, `wiki.valid.txt`
    if there is a `wiki.train.txt`, all files in `test/` if there is a `train/`.

    Returns:
        The split, test or validation, of each such file.
    """
    parsed = {file: _split_of(_below(root, file)) for file in files}
    trained = {rest for split, rest in parsed.values() if split in TRAIN}
    return {
        file: HELD_OUT[split]
        for file, (split, rest) in parsed.items()
        if split in HELD_OUT and rest in trained
    }


def named_as_held_out(file: PurePath) -> bool:
    """Whether a file's whole name says test or validation, as in `test.jsonl`."""
    split, rest = _split_of((file.name,))
    return split in HELD_OUT and rest == ("",)


def _below(root: Path, file: Path) -> tuple[str, ...]:
    return file.relative_to(root).parts if file.is_relative_to(root) else file.parts


def _split_of(parts: Sequence[str]) -> tuple[str | None, Rest]:
    """Return the split that a path names, in a folder's name or the file's, and what is left."""
    *folders, name = (part.lower() for part in parts)
    words = [w for w in re.split(r"[\W_]+", FORMATS.sub("", name)) if w and not w.isdecimal()]
    words = [word for word in words if word != "of"]  # as in test-00000-of-00004
    for at in dict.fromkeys((0, len(words) - 1)):
        if words and (words[at] in TRAIN or words[at] in HELD_OUT):
            rest = words[:at] + words[at + 1 :]
            return words[at], (*folders, " ".join(rest))
    for at, folder in enumerate(folders):
        if folder in TRAIN or folder in HELD_OUT:
            return folder, (*folders[:at], *folders[at + 1 :])
    return None, ()
