"""The moving picture of the demo: recorded in a terminal, drawn as text, small and whole."""

from __future__ import annotations

import re
import runpy
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from jielong.cli.main import parse

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
FILMS = sorted(PICTURES.glob("demo*.svg"))


@pytest.fixture(scope="module")
def demo() -> dict[str, Any]:
    pytest.importorskip("pyte")
    return runpy.run_path(str(PICTURES / "demo.py"))


def test_what_a_command_prints_is_recorded_and_drawn(demo: dict[str, Any], tmp_path: Path) -> None:
    said = demo["record"]("jielong --version", tmp_path, "C.UTF-8")
    assert "jielong 0." in "".join(text for _, text in said)
    film = list(demo["frames"](demo["after"]([demo["typed"]("jielong --version"), said])))
    assert [at for at, _ in film] == sorted(at for at, _ in film)
    drawn = ET.fromstring(demo["svg"](film, "title & <tag>", "note"))
    text = "".join(drawn.itertext())
    assert "title & <tag>" in text and "jielong 0." in text
    with pytest.raises(SystemExit, match="unknown flag --no-such"):
        demo["record"]("jielong runs --no-such", tmp_path, "C.UTF-8")


def test_wide_characters_and_colours_stand_in_their_cells(demo: dict[str, Any]) -> None:
    film = list(demo["frames"]([(0.0, "\x1b[32m接龙\x1b[0m ok"), (1.0, "!")]))
    ((x, text, colour, _), (after, _, _, _)) = film[-1][1][0]
    assert (x, text, colour, after) == (0, "接龙", demo["COLOURS"]["green"], 4)
    assert 'textLength="33.6"' in demo["svg"](film, "", "")


@pytest.mark.parametrize("film", FILMS, ids=lambda film: film.name)
def test_the_films_are_small_run_no_script_and_show_commands_of_ours(film: Path) -> None:
    text = film.read_text(encoding="utf-8")
    assert len(text.encode()) < 1_000_000
    assert not re.search(r"<script|href=\"http|/(tmp|home|root)/", text)
    title = ET.fromstring(text).findtext("{http://www.w3.org/2000/svg}title") or ""
    parse(title.removeprefix("$ jielong ").split())
