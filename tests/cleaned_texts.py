"""Texts to clean, and what a cleaning left and listed."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jielong.api import clean
from jielong.cleaning.report import CleanReport


def write_texts(folder: Path, texts: Sequence[str], name: str = "corpus.jsonl") -> Path:
    """A JSONL file of the texts."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    (folder / name).write_text("".join(rows), encoding="utf-8")
    return folder / name


def clean_texts(folder: Path, texts: Sequence[str], **settings: Any) -> CleanReport:
    """Cleans texts into the folder `out`."""
    return clean(write_texts(folder, texts), folder / "out", **settings)


def kept(report: CleanReport) -> list[str]:
    """The texts that are left, as a reader of JSONL sees them."""
    files = [report.folder / name for name in report.files]
    return [json.loads(line)["text"] for path in files for line in path.read_bytes().splitlines()]


def dropped(report: CleanReport, name: str) -> list[dict[str, Any]]:
    """What a filter listed."""
    path = report.folder / "dropped" / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def prose(seed: int, words: int = 120) -> str:
    """Words in sentences and paragraphs; two seeds share next to no runs of words."""
    rng = random.Random(seed)
    stock = [a + b + c for a in "bdfgk" for b in ("a", "e", "o", "an") for c in "lmnrst"]
    text = ""
    for number in range(words):
        word = rng.choice(("the", "of", "and", "to", *stock))
        text += word.capitalize() if text[-2:] in ("", ". ", "\n\n") else word
        text += ".\n\n" if number % 60 == 59 else ". " if number % 12 == 11 else " "
    return text.strip()


def edited(text: str, count: int, seed: int = 0) -> str:
    """The text with as many words, one after another, changed."""
    words = text.split(" ")
    begin = random.Random(seed).randrange(len(words) - count)
    words[begin : begin + count] = [f"other{number}" for number in range(count)]
    return " ".join(words)
