"""A page is drawn in a terminal, as HTML and as a picture, whatever text is on it."""

from __future__ import annotations

import html.parser
import io
import itertools
import shutil
import struct
from pathlib import Path

import pytest
import rich.console
from rich.cells import cell_len

from jielong.present.blocks import (
    Bars,
    Curve,
    Facts,
    Heatmaps,
    Mark,
    Note,
    Page,
    Panel,
    Strip,
    Table,
)
from jielong.present.html import document
from jielong.present.terminal import print_page
from jielong.present.visible import spelled, visible

HOSTILE = "<script>alert(1)</script>\x1b[31mred\u202e$x^2$&lt;"
STRIP = Strip(
    ("X", "Y"),
    [(Mark(f"token{n}", heat=n / 40), Mark("龙" * (n % 3), muted=True)) for n in range(40)],
    "strip",
    frozenset({7}),
)
WORDS = Page(
    HOSTILE,
    [
        Note(HOSTILE, "warning"),
        Facts([(HOSTILE, HOSTILE)], HOSTILE),
        Table((HOSTILE, "n"), [(HOSTILE, "1")], HOSTILE),
        Strip((HOSTILE,), [(Mark(HOSTILE, group=1),)], HOSTILE),
        Bars([(HOSTILE, 1.0, HOSTILE), ("none", 0.0, "0")], HOSTILE),
    ],
)
PICTURES = Page(
    "",
    [
        Curve([0.0, 1.0, 2.0], [0.0, 2.0, 1.0], "step", HOSTILE),
        Heatmaps([Panel(HOSTILE, [[0.0, 1.0], [0.5, 0.2]])], HOSTILE, ("a", "b"), ("c", HOSTILE)),
        Heatmaps([Panel(str(n), [[n / 30] * 30] * 30) for n in range(20)], "many", more="see more"),
    ],
)


def printed(page: Page, width: int = 80, coloured: bool = False) -> str:
    out = io.StringIO()
    options = {"force_terminal": True, "color_system": "truecolor"} if coloured else {}
    print_page(page, rich.console.Console(file=out, width=width, highlight=False, **options))
    return out.getvalue()


class Elements(html.parser.HTMLParser):
    """The names of a page's elements, their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("width", [40, 80, 120])
def test_a_strip_is_wrapped_to_the_width_and_keeps_every_token_above_its_own(width: int) -> None:
    lines = printed(Page("", [STRIP]), width).splitlines()
    assert all(cell_len(line) <= width for line in lines)
    tokens = [word for line in lines if line.startswith("X") for word in line[1:].split()]
    assert [t.removeprefix("┃") for t in tokens] == [f"token{n}" for n in range(40)]
    assert [t for t in tokens if t.startswith("┃")] == ["┃token7"]
    for above, below in itertools.pairwise(lines):
        if above.startswith("X") and "token2 " in above:
            assert below[: len(below) - len(below.lstrip("Y "))].startswith("Y")
            at = cell_len(above[: above.index("token2")])
            assert cell_len(below[: below.index("龙龙")]) == at


def test_text_of_models_cannot_act_on_a_terminal() -> None:
    said = printed(WORDS)
    assert "\x1b" not in said and "\u202e" not in said
    assert "␛[31mred<U+202E>" in said


def test_text_of_models_is_never_markup() -> None:
    page = Elements(document(WORDS))
    assert "script" not in page.names
    assert "<script>alert(1)</script>␛[31mred<U+202E>$x^2$&lt;" in page.text
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert ("http-equiv", "Content-Security-Policy") in page.attributes


def test_a_page_needs_no_network() -> None:
    pytest.importorskip("matplotlib")
    page = Elements(document(PICTURES))
    sources = [value or "" for name, value in page.attributes if name in ("src", "srcset", "href")]
    assert len(sources) == 6  # each picture for light and dark screens
    assert all(source.startswith("data:image/png;base64,") for source in sources)


def test_a_picture_has_the_colours_of_its_screen() -> None:
    pytest.importorskip("matplotlib")
    from PIL import Image

    from jielong.present.picture import DARK, LIGHT, png

    for dark, ink in ((False, LIGHT), (True, DARK)):
        drawn = png(Page(HOSTILE, [*WORDS.blocks, *PICTURES.blocks]), dark)
        assert drawn.startswith(b"\x89PNG")
        width, height = struct.unpack(">II", drawn[16:24])
        image = Image.open(io.BytesIO(drawn)).convert("RGB")
        assert image.size == (width, height)
        assert image.getpixel((2, 2)) == tuple(bytes.fromhex(ink.paper[1:]))
        assert len(image.getcolors(2**24) or []) > 50  # and something is on it


def test_a_terminal_shows_the_first_panels_and_says_how_to_see_the_rest() -> None:
    said = printed(PICTURES)
    assert "… 4: see more" in said
    assert printed(PICTURES, coloured=True).count("\x1b[") > 100


def test_a_curve_is_as_high_as_its_values() -> None:
    rows = printed(Page("", [Curve([0, 1, 2, 3], [0, 0, 4, 4], "x")])).splitlines()[1:-1]
    rows = [row.partition("┤")[2] for row in rows]
    half = len(rows[0].rstrip()) // 2
    assert len(rows) == 8
    assert all(row[half + 1 :].strip("█ ") == "" and "█" in row[half + 1 :] for row in rows)
    assert all(row[:half].strip() == "" for row in rows)


@pytest.mark.parametrize(
    ("piece", "shown"),
    [
        (b" the", "␣the"),
        (b"\n\n", "⏎⏎"),
        ("龙".encode(), "龙"),
        ("龙".encode()[:2], "‹E9›‹BE›"),
        (b"a\xff", "a‹FF›"),
        (b"", "∅"),
    ],
)
def test_tokens_are_spelled_so_that_all_of_them_can_be_seen(piece: bytes, shown: str) -> None:
    assert spelled(piece) == shown


def test_what_has_no_width_or_acts_is_written_as_its_sign() -> None:
    assert visible("a\tb\x00\u200b\x7f\ue000") == "a⇥b␀<U+200B>␡<U+E000>"


def test_a_font_that_was_installed_since_matplotlib_made_its_list_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    font_manager = pytest.importorskip("matplotlib.font_manager")
    from jielong.present import plotting

    manager = font_manager.fontManager
    (tmp_path / "no-font.ttf").write_text("no font")
    shutil.copy(font_manager.findfont("DejaVu Serif"), tmp_path / "installed.ttf")
    installed = [str(tmp_path / name) for name in ("no-font.ttf", "installed.ttf")]
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: installed)
    before = [font for font in manager.ttflist if font.name != "DejaVu Serif"]
    monkeypatch.setattr(manager, "ttflist", before)
    monkeypatch.setattr(plotting, "CHINESE_FONTS", ("DejaVu Serif",))
    try:
        plotting.fonts.cache_clear()
        assert plotting.fonts() == ["DejaVu Sans Mono", "DejaVu Serif"]
        monkeypatch.setattr(plotting, "CHINESE_FONTS", ("A font of nobody",))
        plotting.fonts.cache_clear()
        assert plotting.fonts() == ["DejaVu Sans Mono"]
    finally:
        plotting.fonts.cache_clear()
