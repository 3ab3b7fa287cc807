"""The provenance of a dataset: it is reused as long as nothing it was made from has changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jielong.config.settings import Config, DataConfig, same_setting
from jielong.data.shards import FORMAT
from jielong.data.sources.documents import Source, expand_sources, find_sources
from jielong.data.sources.file_kinds import further_suffixes
from jielong.data.sources.items import shown
from jielong.data.sources.listing import NotRead
from jielong.data.sources.remote import is_remote, shown_address
from jielong.tokenization.tokenizer import Tokenizer

SOURCES = "sources.json"
TEXT_SETTINGS = ("text_unit", "document_separator")
SETTINGS = (
    "text_field",
    "text_template",
    *TEXT_SETTINGS,
    "html_text",
    "encoding",
    "validation_fraction",
)
SAME_FILE = "given as --validation-path"


@dataclass(frozen=True)
class Sources:
    """The sources of a dataset, found once, so that all of a preparation sees the same files.

    Attributes:
        not_read: what is in the folders of `data`, but not read.
        in_both: names of files that are trained on and held out.
    """

    data: list[Source]
    validation: list[Source]
    not_read: list[NotRead] = field(default_factory=list)
    in_both: tuple[str, ...] = ()

    @classmethod
    def of(cls, data: DataConfig) -> Sources:
        """Find the sources that the settings name.

        Held-out files are not trained on, unless they were named as training text themselves.

        Raises:
            DataError: a path does not exist, matches nothing, or is of an unknown kind.
        """
        suffixes = further_suffixes(data.text_suffixes)
        held_out = expand_sources(data.validation_path, suffixes) if data.validation_path else []
        found, not_read = find_sources(data.data_path, for_training=True, suffixes=suffixes)
        held = {source.identity for source in held_out if source.identity}
        named = {_identity(path) for path in data.data_path}
        train, both = [], []
        for source in found:
            same = source.identity in held
            if same and source.place is not None and source.identity not in named:
                not_read.append(NotRead(source.place, SAME_FILE, source.size or 0))
                continue
            train.append(source)
            if same:
                both.append(source.name)
        if not train:  # the whole folder is held out too
            return cls(found, held_out, [], tuple(source.name for source in found))
        return cls(train, held_out, not_read, tuple(both))


def warn_of_same_text(sources: Sources, log: Callable[[str], None]) -> None:
    """Say, before any work is done, that files are both trained on and held out."""
    if names := sources.in_both:
        named = ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
        log(
            f"WARNING: {named}: both trained on and held out (--validation-path), so the held-out "
            "loss will be worthless"
        )


def provenance(config: Config, tokenizer: Tokenizer, sources: Sources) -> dict[str, Any]:
    """Collect what determines a dataset: tokenizer, settings, size and mtime of each source."""
    return {
        "format": FORMAT,
        "tokenizer": tokenizer.fingerprint,
        "special_ids": tokenizer.special_ids,
        "settings": dataset_settings(config) | {"chat_template": _chat_template(tokenizer)},
        "data": [source_record(s) for s in sources.data],
        "validation": [source_record(s) for s in sources.validation],
    }


def dataset_settings(config: Config) -> dict[str, Any]:
    """Return the settings that determine a dataset's content, apart from its sources."""
    values = {name: getattr(config.data, name) for name in SETTINGS}
    if config.data.validation_path:
        values["validation_fraction"] = 0.0  # validation_path supplies the held-out text
    return values


def changes_since(folder: Path, wanted: dict[str, Any]) -> list[str]:
    """List, in words, how the dataset in `folder` differs from the `wanted` provenance."""
    try:
        stored = json.loads((folder / SOURCES).read_text(encoding="utf-8"))
        return _changes(stored, wanted)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return [f"its {SOURCES}, the record of its sources, is missing or damaged"]


def _changes(stored: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    if stored.keys() != wanted.keys():
        raise ValueError("other fields")
    found = []
    if stored["tokenizer"] != wanted["tokenizer"]:
        found.append(f"its tokenizer is {stored['tokenizer'][:12]}, not {wanted['tokenizer'][:12]}")
    elif stored["special_ids"] != wanted["special_ids"]:
        found.append(f"its special tokens are {stored['special_ids']}, not {wanted['special_ids']}")
    only_rows = all(source["kind"] not in ("text", "stdin") for source in wanted["data"])
    for name, value in wanted["settings"].items():
        # earlier versions found no separators, which rows do not have anyway
        former = "auto" if name in TEXT_SETTINGS and only_rows else None
        if name in ("chat_template", "html_text"):  # earlier versions read none of these
            former = value
        then = stored["settings"].get(name, former)
        if not same_setting(name, then, value):
            name = {"chat_template": "tokenizer's chat template"}.get(name, name)
            before, now = ("unset" if v is None else v for v in (then, value))
            found.append(f"its data.{name} is {before}, not {now}")
    for part in ("data", "validation"):
        found += source_changes(stored[part], wanted[part])
    return found


def source_changes(stored: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> list[str]:
    """List, in words, how the sources of two records differ."""
    before, now = ({source["name"]: source for source in s} for s in (stored, wanted))
    found = [f"it was made without {name}" for name in now if name not in before]
    found += [f"it was made with {name}" for name in before if name not in now]
    for name in now.keys() & before.keys():
        if now[name]["kind"] == "stdin":
            found.append("it was made from standard input, which cannot be compared")
        elif now[name] != before[name]:
            found.append(f"{name} has changed since")
    if not found and [s["name"] for s in stored] != [s["name"] for s in wanted]:
        found.append("it was made from the same files in another order or number")
    return sorted(found)


def _chat_template(tokenizer: Tokenizer) -> str | None:
    """A short hash of what makes texts of conversations."""
    template = tokenizer.chat_template
    return None if template is None else hashlib.sha256(template.encode()).hexdigest()[:12]


def source_summaries(sources: Sequence[Source]) -> list[dict[str, Any]]:
    """Return names and sizes of the sources, without mtimes: copies give the same dataset."""
    return [{"name": source.name, "bytes": source.size} for source in sources]


def source_record(source: Source) -> dict[str, Any]:
    """Return what tells whether a source has changed."""
    record = {"name": source.identity or source.name, "kind": source.kind, "bytes": source.size}
    if source.remote is not None:
        return record | {"version": source.remote.info.version}
    return record | {"mtime_ns": source.mtime_ns}


def _identity(path: str) -> str:
    return shown_address(path) if is_remote(path) else shown(Path(path).expanduser().resolve())
