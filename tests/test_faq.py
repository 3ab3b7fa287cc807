"""The page of questions: what it shows is what the commands print, in both languages."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import tomli_w

from jielong.cli.main import parse
from jielong.config.aliases import BATCH_ALIASES
from jielong.config.settings import FIELDS
from tiny import TEXTS, TINY_RUN, flags, in_this_process

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "docs" / name for name in ("faq.md", "faq.zh-CN.md")]
SMALL = TINY_RUN | {"vocab_size": 320}


def shown(page: Path) -> list[tuple[str, list[str]]]:
    """The commands of a page's blocks, each with the lines that the page shows of its output."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```console\n\$ jielong (.*?)\n(.*?)^```", text, re.M | re.S)
    return [(command, said.splitlines()) for command, said in blocks]


def test_both_languages_answer_the_same_questions_with_the_same_commands() -> None:
    english, chinese = (page.read_text(encoding="utf-8") for page in PAGES)
    commands = [[command for command, _ in shown(page)] for page in PAGES]
    assert commands[0] == commands[1]
    for what in (r"^###? ", r"`jielong [^`]*`"):
        found = [re.findall(what, text, re.M) for text in (english, chinese)]
        assert sorted(found[0]) == sorted(found[1])


@pytest.mark.parametrize(
    "command", re.findall(r"`jielong ([^`\n]+ [^`\n]+)`", PAGES[0].read_text("utf-8"))
)
def test_commands_within_answers_are_commands(command: str) -> None:
    parse(shlex.split(command))


@pytest.mark.parametrize(("page", "locale"), [(PAGES[0], "C.UTF-8"), (PAGES[1], "zh_CN.UTF-8")])
def test_answers_show_what_the_commands_print(
    page: Path, locale: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gguf")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LC_ALL", locale)
    lines = [f'{{"text": "{text}", "n": {n}}}\n' for n, text in enumerate(TEXTS)]
    Path("corpus.jsonl").write_text("".join(lines) + '{"text": "a line cut o\n')
    tables: dict[str, dict[str, object]] = {}
    for name, value in SMALL.items():
        tables.setdefault((FIELDS | BATCH_ALIASES)[name].section, {})[name] = value
    Path("tiny.toml").write_text(tomli_w.dumps(tables))
    words = ["tokenizer", "--data-path", "corpus.jsonl", *flags({"vocab_size": 320})]
    assert in_this_process([*words, "--out-dir", "runs/mine/tokenizer"])[0] == 0
    for command, said in shown(page):
        printed = in_this_process(shlex.split(command))[1]
        for line in said:
            assert without_numbers(line) in without_numbers(printed), (command, printed)


def without_numbers(text: str) -> str:
    """Losses differ between CPUs and versions of torch, and where lines break between terminals."""
    return " ".join(re.sub(r"\d[\d.,]*", "N", text).split())
