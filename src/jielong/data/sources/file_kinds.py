"""What a file is read as, by its name, and the names that hold no text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath

from jielong.errors import ConfigError

KINDS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".csv": "csv",
    ".tsv": "tsv",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".warc": "warc",
    ".wet": "warc",
    ".epub": "epub",
    ".docx": "docx",
    ".pdf": "pdf",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".zip": "zip",
    ".tar": "tar",
    ".tgz": "tar",
    ".tbz2": "tar",
    ".txz": "tar",
}
TABLES = ("parquet", "arrow")
ARCHIVES = ("zip", "tar")
STREAMED = ("jsonl", "text", "csv", "tsv")  # read from beginning to end, also within an archive
PACKED_DOCUMENTS = ("epub", "docx", "pdf")
DOCUMENTS = ("html", "warc", *PACKED_DOCUMENTS)  # read with the extra `documents`, likewise
COMPRESSIONS = (".gz", ".zst", ".xz", ".bz2")
READABLE = (
    f"{', '.join(KINDS)}; text, HTML, web archives and tar optionally followed by "
    ".gz, .zst, .xz or .bz2"
)
# further names of what is often plain text, and may be asked for
_OFTEN_TEXT = """
    py pyi js ts jsx tsx java c h cc cpp hpp cs go rs rb php swift kt scala lua pl r jl hs ml lisp
    clj sh bash sql css html htm xml svg yaml yml toml ini cfg rst tex org adoc markdown mdx log
    srt vtt lrc bib textile wiki
"""
OFTEN_TEXT = frozenset("." + name for name in _OFTEN_TEXT.split())

# what tools write for themselves, under names that look like text
PROGRAM_FILES = frozenset(
    {
        "added_tokens.json",
        "best.json",
        "chat_template.json",
        "cleaning.json",
        "config.json",
        "dataset_dict.json",
        "dataset_info.json",
        "dataset_infos.json",
        "generation_config.json",
        "manifest.json",
        "merges.txt",
        "model.safetensors.index.json",
        "model_index.json",
        "package-lock.json",
        "package.json",
        "preprocessor_config.json",
        "pytorch_model.bin.index.json",
        "requirements.txt",
        "shards.json",
        "special_tokens_map.json",
        "state.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "trainer_state.json",
        "training_state.json",
        "tsconfig.json",
        "vocab.json",
        "vocab.txt",
    }
)
ABOUT_A_DATASET = re.compile(
    r"(readme|licen[cs]e|copying|notice|citation|changelog|contributing|code_of_conduct|security)"
    r"([._-].*)?\.(md|txt)",
    re.IGNORECASE,
)

Suffixes = frozenset[str]  # of further files that are read as plain text; with their dots


def further_suffixes(names: Sequence[str]) -> Suffixes:
    """Return the suffixes that `--text-suffixes` names, such as `py`, `.rst` or `py,rst`.

    Raises:
        ConfigError: one has a format of its own, so it is not read as plain text.
    """
    found = set()
    for name in (part.strip().lower() for word in names for part in word.split(",")):
        suffix = "" if name == "none" else "." + name.removeprefix("*").removeprefix(".")
        own = KINDS.get(suffix, "text")  # of HTML, the source may be wanted
        if suffix in COMPRESSIONS or own not in ("text", "html"):
            raise ConfigError(f"data.text_suffixes: {suffix} files are read as what they are")
        if suffix == "." or "." in suffix[1:] or "/" in suffix:
            raise ConfigError(f"data.text_suffixes={name!r}: give suffixes such as py rst tex")
        found.add(suffix)
    return frozenset(found)


def kind_of(path: PurePath, further: Suffixes = frozenset()) -> str | None:
    """Return how a file is read, by its name: a value of `KINDS`; None if it cannot be."""
    name = path
    if path.suffix.lower() in COMPRESSIONS:
        name = path.with_suffix("")
    suffix = name.suffix.lower()
    kind = "text" if suffix in further else KINDS.get(suffix)
    is_whole = kind in (*TABLES, *PACKED_DOCUMENTS, "zip")  # compressed within, if at all
    return None if is_whole and name is not path else kind


def unknown_kind(path: PurePath) -> str:
    """Say that a file is of no kind that is read, with the flag that reads it as plain text."""
    name = path.with_suffix("") if path.suffix.lower() in COMPRESSIONS else path
    suffix = name.suffix[1:] or "none"
    return (
        f"unknown file type; supported: {READABLE}; if it is plain text: --text-suffixes {suffix}"
    )


def suggested(paths: Sequence[PurePath]) -> str:
    """Return the flag that would read the files among `paths` that are often plain text."""
    found = sorted({p.suffix.lower() for p in paths} & OFTEN_TEXT)
    return f"--text-suffixes {' '.join(suffix[1:] for suffix in found[:8])}" if found else ""
