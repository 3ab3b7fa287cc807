"""The documentation site: what its scripts make of pages, docstrings and `--help`."""

from __future__ import annotations

import inspect
import re
import shlex
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import jielong
from jielong.cli.main import parse

ROOT = Path(__file__).parents[1]
COMMANDS = ROOT / "docs" / "commands"


@pytest.fixture(scope="module")
def site() -> Iterator[ModuleType]:
    """The script that makes the site."""
    folder = str(ROOT / "docs" / "site")
    sys.path.insert(0, folder)
    yield import_module("make")
    sys.path.remove(folder)
    for name in ("make", "links", "sources", "flowchart"):
        sys.modules.pop(name, None)


def test_pages_of_the_commands_say_what_their_help_says() -> None:
    import runpy

    made = runpy.run_path(str(COMMANDS / "make.py"))["pages"]()
    there = {path.name: path.read_text(encoding="utf-8") for path in COMMANDS.glob("*.md")}
    assert there == made, "run `make commands`"
    assert all("| |\n" not in re.sub(r"^\| \| \|$", "", text, flags=re.M) for text in made.values())


@pytest.mark.parametrize("page", sorted(COMMANDS.glob("[a-z]*.md")), ids=lambda page: page.stem)
def test_examples_on_the_pages_of_commands_are_commands(page: Path) -> None:
    (line,) = re.findall(r"^```bash\njielong (.*)\n```", page.read_text(encoding="utf-8"), re.M)
    assert line.split()[0] == page.stem
    assert parse(shlex.split(line)).command


@pytest.mark.parametrize("name", jielong.__all__)
def test_docstrings_name_each_argument_what_comes_back_and_the_errors(name: str) -> None:
    function = getattr(jielong, name)
    if inspect.isclass(function):
        function = function.stream
    said = inspect.getdoc(function)
    assert said
    for argument in inspect.signature(function).parameters:
        assert argument == "self" or re.search(rf"^    .*\b{argument}\b.*: ", said, re.M), argument
    assert re.search(r"^(Returns|Yields):$", said, re.M)
    assert re.search(r"^Raises:$", said, re.M) or name == "inspect_model"


def test_pages_of_the_api_have_every_public_function(site: ModuleType) -> None:
    assert sorted(name for names in site.API.values() for name in names) == sorted(jielong.__all__)
    documented = {"Path"}
    for module, names in [*site.RESULTS.items(), *site.VIEWS.items()]:
        for name in names:
            said = getattr(import_module(module), name).__doc__
            assert said and not said.startswith(f"{name}("), name  # which dataclass makes
            documented.add(name)
    for name in jielong.__all__:
        returned = inspect.signature(getattr(jielong, name)).return_annotation
        for word in re.findall(r"[A-Z]\w+", str(returned)):
            assert word in documented | {"Iterator", "None"}, (name, word)


def test_the_sidebar_has_every_page(site: ModuleType) -> None:
    listed = [name for names in site.CONTENTS.values() for name in names]
    pages = {path.relative_to(ROOT).with_suffix("").as_posix() for path in site.markdown()}
    below = {f"docs/commands/{path.stem}" for path in COMMANDS.glob("*.md")}
    assert set(listed) >= pages - below - {"README"}
    assert len(listed) == len(set(listed))


def test_links_to_code_lead_to_pages_that_show_it(site: ModuleType, tmp_path: Path) -> None:
    pages = site.Pages(tmp_path)
    text = (
        "See [`pretrain`](../src/jielong/errors.py#L12), [lines](../src/jielong/errors.py#L3-L5), "
    )
    text += "[a page](formats.md) and [all](../README.md).\n"
    code = "```text\n[`x`](../src/jielong/errors.py)\n```\n`[y](../src/jielong/errors.py)`\n"
    assert pages.linked("docs/gpu.md", text + code) == (
        'See <a href="../source/src/jielong/errors.py.html#L-12">`pretrain`</a>, '
        '<a href="../source/src/jielong/errors.py.html#L-3">lines</a>, '
        "[a page](formats.md) and [all](../index.md).\n" + code
    )
    assert pages.shown == {"src/jielong/errors.py"}


def test_links_that_lead_nowhere_are_found(site: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<p id="x"><a href="b.html#y"></a><a href="#x"></a>')
    (tmp_path / "b.html").write_text('<a href="a.html#x"></a><img src="c.png">')
    assert site.broken_links(tmp_path) == [
        "a.html: b.html#y: there is no such place",
        "b.html: c.png: there is no such page",
    ]


def test_what_a_page_would_load_from_elsewhere_is_found(site: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<a href="https://example.org/page"></a><img src="https://example.org/b.png">'
        '<link href="//example.org/c.css"><script type="module">import d from '
        '"https://example.org/d.mjs"</script><p>import x from "https://example.org/e.mjs"</p>'
    )
    found = [line.split(": ")[1] for line in site.loaded_from_elsewhere(tmp_path)]
    assert found == [
        "//example.org/c.css",
        "https://example.org/b.png",
        "https://example.org/d.mjs",
    ]


FLOWCHART = re.compile(r"^```mermaid\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", ["README.md", "README.zh-CN.md", "docs/architecture.md"])
def test_flowcharts_of_the_pages_are_drawn_whole(site: ModuleType, page: str) -> None:
    (source,) = FLOWCHART.findall((ROOT / page).read_text(encoding="utf-8"))
    shown = site.drawn(f"```mermaid\n{source}```")
    picture = ET.fromstring(shown.removeprefix("~~~{raw} html\n").removesuffix("~~~"))
    name = "{http://www.w3.org/2000/svg}"
    texts = " ".join(node.text or "" for node in picture.iter(f"{name}text"))
    for words in re.findall(r'\["?([^"\]]+)"?\]|\|([\w/]+)\|', source):
        assert all(line in texts for line in max(words).split("\\n")), words
    boxes = [
        [float(box.get(key, "")) for key in ("x", "y", "width", "height")]
        for box in picture.iter(f"{name}rect")
    ]
    width, height = map(float, picture.get("viewBox", "").split()[2:])
    for number, (x, y, w, h) in enumerate(boxes):
        assert x >= 0 and y >= 0 and x + w <= width and y + h <= height
        for other_x, other_y, other_w, other_h in boxes[:number]:
            assert (
                x >= other_x + other_w
                or other_x >= x + w
                or y >= other_y + other_h
                or other_y >= y + h
            )
    arrows = source.count("-->") + source.count("-.->")
    assert len(picture.findall(f"{name}path")) == arrows > len(boxes) - 2


@pytest.mark.parametrize(
    "source",
    [
        "sequenceDiagram\n  a ->> b: hello\n",
        "flowchart LR\n  a --> b{choice}\n",
        "flowchart LR\n  a -->\n",
        "flowchart LR\n  a --> b --> c\n  a --> c\n",
    ],
)
def test_flowcharts_that_are_not_drawn_whole_are_refused(site: ModuleType, source: str) -> None:
    with pytest.raises(ValueError, match="not drawn"):
        site.drawn(f"```mermaid\n{source}```")


def test_chinese_is_found_by_pairs_of_characters_and_english_by_words(site: ModuleType) -> None:
    pytest.importorskip("sphinx")
    words = import_module("search").words
    assert words("学习率 of Muon优化器") == [
        *("学", "习", "率", "学习", "习率", "of", "Muon"),
        *("优", "化", "器", "优化", "化器"),
    ]


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    for package in ("sphinx", "furo", "myst_parser"):
        pytest.importorskip(package)
    command = [sys.executable, str(ROOT / "docs/site/make.py"), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "html" / "docs" / "guide" / "zh" / "05-attention-and-rope.html").is_file()


def test_words_of_the_glossary_are_those_of_the_pages() -> None:
    pages = {path: path.read_text(encoding="utf-8") for path in ROOT.glob("docs/**/*.md")}
    texts = {True: "", False: ""}  # of the Chinese pages, and of the others
    for path, text in pages.items():
        if path.name != "glossary.md":
            texts["zh" in path.parts or path.name.endswith(".zh-CN.md")] += text.lower()
    rows = re.findall(r"^\| (.+?) \| (.+?) \| .+ \| .+ \|$", pages[ROOT / "docs/glossary.md"], re.M)
    assert len(rows) > 40
    for english, chinese in rows[1:]:
        for word in english.split(", "):
            assert word.lower() in texts[False], word
        for word in chinese.split("、"):
            assert word.lower() in texts[True], word
    assert [row[0].lower() for row in rows[1:]] == sorted(row[0].lower() for row in rows[1:])
