"""The page of file formats: both languages name the same files, fields, flags and numbers."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
PAGES = [(DOCS / name).read_text(encoding="utf-8") for name in ("formats.md", "formats.zh-CN.md")]


def test_both_languages_name_the_same_files_fields_and_flags() -> None:
    named = [sorted(re.findall(r"`[^`\n]+`", FENCE.sub("", page))) for page in PAGES]
    assert named[0] == named[1]
    for what in (r"^#+ ", r"^\|", r"^```"):
        found = [re.findall(what, page, re.MULTILINE) for page in PAGES]
        assert found[0] == found[1]


def test_both_languages_list_the_same_files_of_a_folder() -> None:
    """Of a listing, what stands before two spaces is a name; the rest says what it is."""
    listings = [re.findall(r"^```\n(.*?)^```", page, re.MULTILINE | re.DOTALL) for page in PAGES]
    names = [
        [re.split(r"  +", line.strip())[0] for text in found for line in text.splitlines()]
        for found in listings
    ]
    english, chinese = (
        {name.replace(" 或 ", " or ") for name in found if re.match(r"[\w.]+[/.]", name)}
        for found in names
    )
    assert len(english) > 15
    assert english == chinese


def test_both_languages_have_the_same_numbers() -> None:
    text = [FENCE.sub("", page) for page in PAGES]
    numbers = [set(re.findall(r"(?<![\w`])\d[\d,]*\d(?![\w`])", page)) for page in text]
    assert numbers[0] == numbers[1]
