"""The guide's chapters: their commands are ours, their links hold, their code is Python."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path

import pytest

from jielong.cli.main import parse

GUIDE = Path(__file__).parents[1] / "docs" / "guide"
CHAPTERS = sorted(GUIDE.glob("*/[0-9]*.md"))
PAGES = sorted(GUIDE.glob("*/*.md"))
MAKE = runpy.run_path(str(GUIDE / "make.py"))


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_of_the_guide_is_one_of_ours(page: Path) -> None:
    found = re.findall(
        r"^<!-- run[^:\n]*: (.*) -->$", page.read_text(encoding="utf-8"), re.MULTILINE
    )
    for command in found:
        words = shlex.split(command)
        parse(words[words.index("jielong") + 1 :])


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_and_pictures_of_the_guide_are_there(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)[^)\s]*\)", page.read_text(encoding="utf-8")):
        if "://" not in link:
            assert (page.parent / link).exists(), link


@pytest.mark.parametrize("page", CHAPTERS, ids=name_of)
def test_each_chapter_names_lines_of_our_source_that_are_there(page: Path) -> None:
    links = list(MAKE["SOURCE_LINK"].finditer(page.read_text(encoding="utf-8")))
    assert len(links) >= 3
    for link in links:
        assert MAKE["line_of"](MAKE["ROOT"] / link["file"], link["name"]) > 0


@pytest.mark.parametrize("page", CHAPTERS, ids=name_of)
def test_each_chapter_shows_output_and_has_three_exercises_with_answers(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    marks = re.findall(r"^<!-- (run|output)", text, re.MULTILINE)
    shown = re.findall(r"^```(?:console|text)\n", text, re.MULTILINE)
    assert marks and len(shown) == len(marks)
    assert text.count("<details>") == text.count("</details>") == 3
    for code in MAKE["PYTHON"].findall(text):
        compile(code, page.name, "exec")


def test_pictures_of_the_guide_are_small() -> None:
    pictures = list((GUIDE / "pictures").glob("*.png"))
    assert pictures
    assert all(picture.stat().st_size <= 100_000 for picture in pictures)
