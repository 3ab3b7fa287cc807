"""What a run prints is there in Chinese, and what it records stays English."""

from __future__ import annotations

import ast
import io
import json
import re
import string
from pathlib import Path

import pytest
import rich.console

from jielong.cli.main import main
from jielong.observe.chinese import CHINESE
from jielong.observe.chinese_errors import ERRORS
from jielong.observe.live import View
from jielong.present.finished import in_chinese
from tiny import SOURCE, TINY_RUN, flags

ROOMS = ("observe", "training")
SAYS = ("line", "log", "_tell", "Finding")  # the calls whose last words are shown
# what is not said in words of ours
LEFT = {"   7", "7", "7: 7", "── 7", ""}


def said() -> set[str]:
    """The lines that are printed, from the syntax trees, with 7 for every value."""
    lines = set()
    for room in ROOMS:
        for path in (SOURCE / "jielong" / room).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and node.args:
                    name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                    if name in SAYS:
                        words = node.args[1 if name in ("_tell", "Finding") else 0]
                        lines |= {text for text in (sevens(words),) if text is not None}
    return lines - LEFT


def sevens(node: ast.expr) -> str | None:
    """A text with 7 for its values; None where it is no text that stands there."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        parts = node.values
        return "".join(str(p.value) if isinstance(p, ast.Constant) else "7" for p in parts)
    return None


def is_chinese(text: str) -> bool:
    return any("\u4e00" <= char <= "\u9fff" for char in text)


def test_every_line_that_a_run_prints_has_its_chinese() -> None:
    lines = said()
    assert len(lines) > 35
    assert not [line for line in lines if not is_chinese(in_chinese(line, CHINESE))]


def notes_on_text() -> set[str]:
    """The notes in the report on a dataset, from the syntax trees, with 7 for every value."""
    folder, notes = SOURCE / "jielong" / "data" / "prepare", set()
    for name in ("report", "files_read", "text_marks"):
        for node in ast.walk(ast.parse((folder / f"{name}.py").read_text(encoding="utf-8"))):
            text = sevens(node) if isinstance(node, ast.expr) else None
            if text and re.match(r"  note +(?!7?$)", text):
                notes.add(text)
    parts = {node for node in notes if any(other != node and node in other for other in notes)}
    return notes - parts


def test_every_note_on_a_text_has_its_chinese() -> None:
    notes = notes_on_text()
    assert len(notes) > 10
    for note in notes:
        said = in_chinese(note, CHINESE)
        assert said.startswith("  注意           "), note
        assert is_chinese(said.removeprefix("  注意")), note


def test_a_row_of_a_report_is_no_sentence_that_begins_with_a_value() -> None:
    note = "  note           3 training documents also occur in the held-out text: its loss will "
    assert in_chinese(note + "be too low", CHINESE).startswith("  注意           有 3 篇训练文档")


@pytest.mark.parametrize(
    ("english", "table"), [(line, table) for table in (CHINESE, ERRORS) for line in table]
)
def test_a_line_in_chinese_has_the_same_values(english: str, table: dict[str, str]) -> None:
    def fields(text: str) -> set[str]:
        return {name for _, name, _, _ in string.Formatter().parse(text) if name}

    assert fields(table[english]) == fields(english)
    values = {name: f"{number}.5" for number, name in enumerate(sorted(fields(english)), start=1)}
    assert in_chinese(english.format(**values), table) == table[english].format(**values)


def test_texts_of_users_are_not_translated() -> None:
    assert in_chinese("  sample         held-out", CHINESE) == "  样本           held-out"
    assert in_chinese("what a user wrote", CHINESE) == "what a user wrote"


def test_a_run_speaks_chinese_and_records_english(
    tmp_path: Path, corpus_file: Path, tokenizer_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = TINY_RUN | {"data_path": corpus_file, "tokenizer": tokenizer_dir, "steps": 40}
    settings |= {"out_dir": tmp_path / "run", "learning_rate": 1.0, "warmup_steps": 1}
    assert main(["pretrain", *flags(settings), "--lang", "zh"]) == 0
    said = capsys.readouterr().out
    for words in ("设备  ", "第 40/40 步", "留出文本损失", "检查点  ", "续写一段文本"):
        assert words in said, said
    for words in (" loss ", "held-out", "per byte", "checkpoint  "):
        assert words not in said, said
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    warnings = [r["text"] for r in map(json.loads, lines) if r["kind"] == "warning"]
    assert warnings and not any(map(is_chinese, warnings))
    for text in warnings:
        assert in_chinese(text, CHINESE) in said


def test_the_live_view_is_in_chinese_and_its_columns_stand_under_one_another() -> None:
    view = View(10, 5, [3.0, 2.0], [2.0, 1.5], word=lambda text: in_chinese(text, CHINESE))
    view.status, view.tokens_per_second, view.left_s = "lr 1e-03 · grad 1.00", 1000.0, 60.0
    view.mfu, view.memory_bytes, view.samples = 0.3, 10**9, [("held-out ▸", "held-out")]
    out = io.StringIO()
    rich.console.Console(width=120, file=out).print(view)
    shown = out.getvalue()
    for words in (
        "步数",
        "损失",
        "学习率 1e-03 · 梯度 1.00",
        "1,000 token/秒",
        "峰值的 30%",
        "还剩",
    ):
        assert words in shown
    assert "样本     held-out ▸held-out" in shown


def test_a_language_that_is_not_there_is_told_before_anything_is_made(
    tmp_path: Path, corpus_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = ["--data-path", str(corpus_file), "--out-dir", str(out), "--lang", "fr"]
    assert main(["pretrain", *words]) == 2
    assert capsys.readouterr().err == "error: lang='fr' is not one of auto, en, zh\n"
    assert not out.exists()


@pytest.mark.parametrize("of", ["", "older text, ", "my-source, "])
@pytest.mark.parametrize("label", ["held-out", "whole held-out split:"])
def test_a_validation_says_in_chinese_of_which_text_it_is(of: str, label: str) -> None:
    line = f"── step 7 · {of}{label} loss 1.5 · perplexity 4.5 · 2.5 ± 0.1 bits/byte"
    shown = in_chinese(line, CHINESE)
    words = shown.replace("my-source", "")
    assert not re.search("[a-z]", words) and ("my-source" in shown) == ("my-source" in of)


@pytest.mark.parametrize(
    "line",
    [
        "budget     235 steps of 1 to 3 × 256 tokens = 162,816 tokens (5.6 epochs, 0.72 per "
        "parameter)",
        "  texts          1 whole file",
        "  texts          2 whole files, 3 pieces of long texts",
        "  held out       8 pieces of documents, 3,280 tokens (10.2%)",
        "  note           too little text to hold any out, or all of it repeated: nothing tells "
        "learning from memorising; add text, or give --validation-path",
        "  WARNING        about 43% of the held-out text also stands in the training text: its "
        "loss will be too low",
    ],
)
def test_what_a_run_says_of_its_text_has_no_english_left(line: str) -> None:
    words = re.sub(r"--[a-z-]+|token", "", in_chinese(line, CHINESE))
    assert is_chinese(words) and not re.search("[A-Za-z]", words), words
