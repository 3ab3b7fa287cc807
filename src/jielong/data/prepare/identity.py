"""What a dataset was made from, so that it can be used again as long as nothing has changed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jielong.config.settings import Config
from jielong.data.shards import FORMAT
from jielong.data.sources.documents import Source, expand_sources
from jielong.tokenization.tokenizer import Tokenizer

SOURCES = "sources.json"
SETTINGS = ("text_field", "validation_fraction")


def identity(config: Config, tokenizer: Tokenizer) -> dict[str, Any]:
    """All that decides a dataset's content: tokenizer, settings, and size and time of each file."""
    return {
        "format": FORMAT,
        "tokenizer": tokenizer.fingerprint,
        "special_ids": tokenizer.special_ids,
        "settings": settings(config),
        "data": [_source_identity(s) for s in _sources(config.data.data_path)],
        "validation": [_source_identity(s) for s in _sources(config.data.validation_path)],
    }


def settings(config: Config) -> dict[str, Any]:
    """The settings that decide a dataset's content, beside its sources."""
    values = {name: getattr(config.data, name) for name in SETTINGS}
    if config.data.validation_path:
        values["validation_fraction"] = 0.0  # held-out text of its own takes its place
    return values


def differences(folder: Path, wanted: dict[str, Any]) -> list[str]:
    """What speaks against using the dataset in `folder` for `wanted`, in words."""
    try:
        made = json.loads((folder / SOURCES).read_text(encoding="utf-8"))
        return _differences(made, wanted)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return [f"its {SOURCES}, which tells what it was made from, is missing or damaged"]


def _differences(made: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    if made.keys() != wanted.keys():
        raise ValueError("other fields")
    found = []
    if made["tokenizer"] != wanted["tokenizer"]:
        found.append(f"its tokenizer is {made['tokenizer'][:12]}, not {wanted['tokenizer'][:12]}")
    elif made["special_ids"] != wanted["special_ids"]:
        found.append(f"its special tokens are {made['special_ids']}, not {wanted['special_ids']}")
    for name, value in wanted["settings"].items():
        if made["settings"].get(name) != value:
            found.append(f"its data.{name} is {made['settings'].get(name)}, not {value}")
    for part in ("data", "validation"):
        found += _source_differences(made[part], wanted[part])
    return found


def _source_differences(made: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> list[str]:
    before, now = ({source["name"]: source for source in s} for s in (made, wanted))
    found = [f"it was made without {name}" for name in now if name not in before]
    found += [f"it was made with {name}" for name in before if name not in now]
    for name in now.keys() & before.keys():
        if now[name]["kind"] == "stdin":
            found.append("it was made from standard input, which cannot be compared")
        elif now[name] != before[name]:
            found.append(f"{name} has changed since")
    if not found and [s["name"] for s in made] != [s["name"] for s in wanted]:
        found.append("it was made with the same files in another order or number")
    return sorted(found)


def described(paths: Sequence[str]) -> list[dict[str, Any]]:
    """Names and sizes of sources, for people: no times, so that copies give the same dataset."""
    return [{"name": source.name, "bytes": source.size} for source in _sources(paths)]


def _sources(paths: Sequence[str]) -> list[Source]:
    return expand_sources(paths) if paths else []


def _source_identity(source: Source) -> dict[str, Any]:
    name = str(source.path.resolve()) if source.path else source.name
    return {"name": name, "kind": source.kind, "bytes": source.size, "mtime_ns": source.mtime_ns}
