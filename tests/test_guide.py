"""The guide's chapters: their commands are ours, their links hold, their code is Python."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path

import pytest

from jielong.cli.main import parse
from jielong.config.load import load_config

GUIDE = Path(__file__).parents[1] / "docs" / "guide"
CHAPTERS = sorted(GUIDE.glob("*/[0-9]*.md"))
PAGES = sorted(GUIDE.glob("*/*.md"))
FLAGS = re.MULTILINE | re.DOTALL
MAKE = runpy.run_path(str(GUIDE / "make.py"))
SOURCE = runpy.run_path(str(GUIDE / "source_lines.py"))


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
    links = list(SOURCE["LINK"].finditer(page.read_text(encoding="utf-8")))
    assert len(links) >= 3
    for link in links:
        assert SOURCE["line_of"](SOURCE["ROOT"] / link["file"], link["name"]) > 0


def without_numbers(text: str) -> str:
    """A page without the numbers of lines, which `make.py --lines` renews."""
    return re.sub(r"#L\d+(-L\d+)?\)|(?<=\.py):\d+(-\d+)?(?=`\]\(\.\.)", "", text)


@pytest.mark.parametrize("page", CHAPTERS, ids=name_of)
def test_each_chapter_shows_lines_of_our_source_as_they_are(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert len(SOURCE["LINES"].findall(text)) == text.count("<!-- source: ") >= 1
    renewed = SOURCE["with_lines"](text)
    assert without_numbers(renewed) == without_numbers(text), "run docs/guide/make.py --lines"


def test_lines_of_the_source_that_are_gone_are_missed() -> None:
    mark = "<!-- source: src/jielong/model/feedforward.py FeedForward.forward: {} -->\n"
    shown = SOURCE["with_lines"](mark.format('"""Apply … return'))
    assert re.search(r"feedforward\.py#L\d+-L\d+\)\n\n```py\n\"\"\"Apply [^`]*\nreturn self", shown)
    assert SOURCE["with_lines"](shown) == shown
    for gone in ("no such words", "return … Apply"):
        with pytest.raises(LookupError, match="no line of the source"):
            SOURCE["with_lines"](mark.format(gone))
    with pytest.raises(LookupError, match=r"has no FeedForward\.backward"):
        SOURCE["with_lines"](mark.format("return").replace("forward:", "backward:"))


@pytest.mark.parametrize("page", CHAPTERS, ids=name_of)
def test_each_chapter_shows_output_and_has_three_exercises_with_answers(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    marks = re.findall(r"^<!-- (run|output)", text, re.MULTILINE)
    shown = re.findall(r"^```(?:console|text)\n", text, re.MULTILINE)
    assert marks and len(shown) == len(marks)
    assert "trainer/train_pretrain.py#L" in text  # the script that our users come from
    assert "<!-- run" in text and re.search(r"^!\[.+\]\(\.\./pictures/", text, re.MULTILINE)
    assert text.count("<details>") == text.count("</details>") == 3
    for code in MAKE["PYTHON"].findall(text):
        compile(code, page.name, "exec")


@pytest.mark.parametrize("page", sorted((GUIDE / "en").glob("*.md")), ids=name_of)
def test_both_languages_of_the_guide_show_the_same_code_and_link_to_each_other(page: Path) -> None:
    other = GUIDE / "zh" / page.name
    english, chinese = (p.read_text(encoding="utf-8") for p in (page, other))
    assert english.splitlines()[2] == f"[简体中文](../zh/{page.name})"
    assert chinese.splitlines()[2] == f"[English](../en/{page.name})"
    for shown in (
        r"^<!-- [^\n]* -->$",
        r"^```(?:python|bash|toml)\n.*?^```$",
        r"^\$ [^\n]*$",
        r"\[`[\w.]+`\]\([^)\s]+\)",
        r"https://github[^)\s]+",
    ):
        found = [sorted(re.findall(shown, text, FLAGS)) for text in (english, chinese)]
        assert found[0] == found[1]
    pictures = re.findall(r"\((../pictures/\w+)\.png\)", english)
    assert pictures == re.findall(r"\((../pictures/\w+)\.zh-CN\.png\)", chinese)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_numbers_of_the_prose_are_those_that_are_printed(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert MAKE["with_values"](text, page) == text
    other = GUIDE / ("zh" if page.parent.name == "en" else "en") / page.name
    origins = [
        sorted(
            (found["page"] or "", found["pattern"])
            for found in MAKE["VALUE"].finditer(p.read_text(encoding="utf-8"))
        )
        for p in (page, other)
    ]
    assert origins[0] == origins[1]


def test_a_number_of_the_prose_follows_what_is_printed() -> None:
    page = GUIDE / "en" / "README.md"
    mark = r"<!-- = \nheld-out +loss ([\d.]+) -->"
    (loss,) = re.findall(r"^held-out +loss ([\d.]+)", page.read_text(encoding="utf-8"), re.M)
    filled = MAKE["with_values"](f"about 9.9{mark}, exactly 0.0000{mark}", page)
    assert filled == f"about {float(loss):.1f}{mark}, exactly {loss}{mark}"
    with pytest.raises(LookupError, match="nothing printed"):
        MAKE["with_values"]("9<!-- = no such (words) -->", page)


# what the page on curves says that jielong says of itself
SAID = {
    "healthy": [],
    "high": [],
    "highest": ["the run diverges", "diverged so far", "the run has diverged"],
    "none": ["is still that of a random guess", "the loss has been flat", "has learnt nothing"],
    "heart": ["the text is read for more than the 4th time", "the model memorises the text"],
    "bad": ["the loss has been flat"],
    "twice": ["also occurs in the held-out text", "the text is read for more than the 4th time"],
    "expert": ["no token is sent to expert"],
}


@pytest.mark.parametrize("name", SAID)
def test_runs_that_go_wrong_say_what_the_page_on_curves_tells_of_them(name: str) -> None:
    page = (GUIDE / "en" / "reading-curves.md").read_text(encoding="utf-8")
    (block,) = re.findall(rf"^<!-- wrong: {name} -->\n```console\n(.*?)^```$", page, FLAGS)
    warnings = re.findall(r"^(?:step \d+: |the run |diverged|  note).*$", block, re.MULTILINE)
    assert all(any(words in line for line in warnings) for words in SAID[name])
    assert all(any(words in line for words in SAID[name]) for line in warnings)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_runs_of_the_page_on_curves_are_ones_that_jielong_takes(language: str) -> None:
    page = (GUIDE / language / "reading-curves.md").read_text(encoding="utf-8")
    commands = re.findall(r"^<!-- wrong: \w+ -->\n```console\n\$ jielong (.*)$", page, re.MULTILINE)
    assert len(commands) == page.count("<!-- wrong: ") >= 7
    for command in commands:
        parse(shlex.split(command))


def test_settings_on_the_page_on_curves_are_those_that_its_runs_had(tmp_path: Path) -> None:
    page = (GUIDE / "en" / "reading-curves.md").read_text(encoding="utf-8")
    (settings,) = re.findall(r"^```toml\n(.*?)^```$", page, FLAGS)
    assert f'"""\\\n{settings}"""' in (GUIDE / "wrong.py").read_text(encoding="utf-8")
    (tmp_path / "small.toml").write_text(settings, encoding="utf-8")
    assert load_config(file=tmp_path / "small.toml").model.hidden_size == 64


def test_pictures_of_the_guide_are_small_and_all_shown() -> None:
    pictures = list((GUIDE / "pictures").glob("*.png"))
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert pictures
    for picture in pictures:
        assert f"pictures/{picture.name})" in text
        assert picture.stat().st_size <= (60_000 if "curve_" in picture.name else 100_000)
