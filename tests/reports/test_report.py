"""report.html: a page of a run, and of several, that is safe, whole by itself and cheap."""

from __future__ import annotations

import json
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from jielong.cli.main import main
from jielong.reports import charts
from jielong.reports.chinese import CHINESE
from jielong.reports.comparison import differing, names_of
from jielong.reports.curves import at
from jielong.reports.history import read_history
from jielong.reports.report import report
from tiny import TINY_RUN, flags, in_this_process

SOURCE = Path(__file__).parents[2] / "src" / "jielong" / "reports"
KNOWN_TAGS = {
    *("html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "h3", "p", "div"),
    *("span", "b", "table", "tr", "th", "td", "details", "summary", "figure", "figcaption"),
    *("footer", "svg", "defs", "g", "path", "use", "text", "tspan", "clippath", "rect"),
}


class Page(HTMLParser):
    """A page as a browser reads it: its tags, attributes and text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.texts)


def records(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_a_page_of_itself(run: Path) -> None:
    page = Page((run / "report.html").read_text(encoding="utf-8"))
    validations = [r for r in records(run) if r["kind"] == "validation"]
    best = min(validations, key=lambda r: r["bits_per_byte"])
    assert "finished" in page.text and "24 of 24" in page.text
    assert f"{best['bits_per_byte']:.4f} ± {best['bits_per_byte_error']:.3f} at step" in page.text
    for record in records(run):
        if record["kind"] == "sample" and record["text"] and record["text"].isprintable():
            assert record["text"] in page.texts
    for fact in ("hidden_size", "learning_rate", "cpu (", "vocabulary", "memory, at most"):
        assert fact in page.text
    assert {"svg", "path"} <= page.tags
    given, default = (page.text.index(name) for name in ("hidden_size", "adam_eps"))
    assert given < page.text.index("settings left at their defaults") < default


def test_no_text_of_a_run_is_markup(run: Path) -> None:
    for runs in ([read_history(run)], [read_history(run)] * 2):
        source = report(runs)
        page = Page(source)
        assert page.tags <= KNOWN_TAGS, page.tags - KNOWN_TAGS
        assert not [name for name, _ in page.attributes if name.startswith("on")]
        assert "<script>alert(1)</script>" in page.text  # it is there to read
    assert "onerror=alert(1)" in Page(report([read_history(run)])).text
    assert "default-src 'none'" in source


def test_a_page_takes_nothing_from_elsewhere(run: Path) -> None:
    source = report([read_history(run)])
    page = Page(source)
    links = [v for name, v in page.attributes if name in ("src", "href", "xlink:href", "action")]
    assert links and all(link.startswith("#") for link in links)  # within a picture
    assert not re.search(r"url\((?!#)|@import", source)
    assert len(source) < 500_000


def test_characters_that_turn_or_hide_text_are_spelled_out(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    record = {
        "kind": "sample",
        "step": 24,
        "time": 1.0,
        "prompt": "a\u202eb",
        "text": "\x1b[2J",
    }
    with (copy / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")
    source = report([read_history(copy)])
    assert "\u202e" not in source and "a&lt;U+202E&gt;b" in source and "␛[2J" in source
    source.encode()


def test_the_command_writes_the_page_again_where_it_is_told(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "new" / "page.html"
    assert main(["report", str(run), "--html", str(file), "--lang", "zh"]) == 0
    assert capsys.readouterr().out == f"{file}\n"
    assert '<html lang="zh">' in file.read_text() and "已完成" in file.read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["missing"], "missing: no such folder"),
        (["empty"], "empty: not a run"),
        (["RUN", "--lang", "fr"], "lang='fr' is not one of auto, en, zh"),
        (["RUN", "--json", "--lang", "fr"], "lang='fr' is not one of auto, en, zh"),
        (["RUN", "--png", "empty"], "--png empty is a folder"),
        (["RUN", "--html", "empty"], "--html empty is a folder"),
    ],
)
def test_a_mistake_is_one_line(
    words: list[str],
    said: str,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    assert main(["report", *(str(run) if word == "RUN" else word for word in words)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {said}") and error.count("\n") == 1


def test_damage_is_named_on_the_page_and_breaks_nothing(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    lines = (copy / "metrics.jsonl").read_bytes().splitlines()
    lines[3:5] = [b"\x00\xff", b'{"kind": "train", "step": "x", "time": 1}']
    (copy / "metrics.jsonl").write_bytes(b"\n".join(lines) + b'\n{"kind": "tr')
    (copy / "config.toml").write_text("[model\n")
    (copy / "data" / "dataset.json").write_text("[]")
    page = Page(report([read_history(copy)]))
    assert "3 of " in page.text and "lines are damaged" in page.text
    assert "config.toml:" in page.text and "the dataset of this run is not here" in page.text


@pytest.mark.parametrize("left", ["config.toml", "metrics.jsonl"])
def test_half_a_run_has_a_page_too(left: str, run: Path, tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    shutil.copy(run / left, tmp_path / "half")
    assert "half" in report([read_history(tmp_path / "half")])
    (tmp_path / "half" / left).write_text("")
    assert "nothing is recorded yet" in report([read_history(tmp_path / "half")])


def test_runs_are_compared_in_bits_per_byte_with_the_settings_that_differ(
    run: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    settings = TINY_RUN | {
        "data_path": run / "data",
        "out_dir": other,
        "tokenizer": run / "data" / "tokenizer",
    }
    status, said = in_this_process(
        ["pretrain", *flags(settings | {"learning_rate": 0.001, "steps": 8})]
    )
    assert status == 0, said
    runs = [read_history(run), read_history(other)]
    rows = {row[0]: row[1:] for row in differing(runs, "none")}
    assert rows["steps"] == ["24", "8"] and rows["learning_rate"][1] == "0.001"
    assert "hidden_size" not in rows and "out_dir" not in rows
    page = Page(report(runs))
    assert "Bits per byte against tokens" in page.text and "cannot be compared" not in page.text
    assert names_of([runs[0], runs[0]]) == [str(run), str(run)]


def test_other_held_out_texts_are_said_not_to_compare(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    manifest = json.loads((copy / "data" / "dataset.json").read_text())
    manifest["sources"]["data"][0]["name"] = "another.txt"
    (copy / "data" / "dataset.json").write_text(json.dumps(manifest))
    assert "cannot be compared: different text" in report([read_history(run), read_history(copy)])


def test_time_between_a_stop_and_the_next_start_does_not_count(tmp_path: Path) -> None:
    times = [("start", 0, 100), ("train", 1, 101), ("train", 2, 103), ("end", 2, 104)]
    times += [("start", 2, 9000), ("train", 3, 9002)]
    lines = [json.dumps({"kind": k, "step": s, "time": t}) for k, s, t in times]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    run = read_history(tmp_path)
    assert run.seconds == [1, 3, 6] and run.end is None


def test_long_curves_are_thinned_to_means_with_their_range() -> None:
    xs = list(range(10_000))
    series = charts.thin(xs, [float(x % 10) for x in xs])
    assert len(series.xs) <= charts.MOST_POINTS and series.xs[-1] == 9999
    assert series.low is not None and series.high is not None
    assert set(series.low) == {0.0} and set(series.high) == {9.0}
    assert sum(series.ys) / len(series.ys) == pytest.approx(4.5)
    assert charts.thin([1, 2, 3], [1.0, None, float("nan")]).xs == [1]


def test_a_long_run_has_a_page_no_larger_than_a_short_one(run: Path, tmp_path: Path) -> None:
    train = next(r for r in records(run) if r["kind"] == "train")
    lines = [json.dumps(train | {"step": n, "time": n, "tokens": n}) for n in range(1, 10_001)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    assert len(report([read_history(tmp_path)])) < 250_000


def test_a_value_between_two_points_lies_on_the_line_through_them() -> None:
    assert [at(x, [0, 10], [0, 100]) for x in (-1, 0, 5, 10, 12)] == [0, 0, 50, 100, 100]


def test_without_matplotlib_the_page_has_no_curves_and_says_how_to_get_them(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = Page(report([read_history(run)]))
    assert "svg" not in page.tags and "pip install 'jielong[plots]'" in page.text
    assert "Validations" in page.text


def test_every_sentence_of_the_page_is_there_in_chinese() -> None:
    said = set()
    for path in SOURCE.glob("*.py"):
        text = re.sub(r'"\s*\n\s*"', "", path.read_text(encoding="utf-8"))
        said |= set(re.findall(r'\b(?:say|add)\(\s*"((?:[^"\\]|\\.)+)"', text))
    assert len(said) > 30
    assert said <= CHINESE.keys(), said - CHINESE.keys()
    for english, chinese in CHINESE.items():
        assert set(re.findall(r"{\w+}", english)) == set(re.findall(r"{\w+}", chinese)), english
