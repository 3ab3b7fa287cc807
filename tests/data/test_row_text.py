"""What the text of a row is: a nested field, several by a template, or a conversation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jielong.cli.main import main
from jielong.config.load import load_config
from jielong.data.sources.documents import (
    BadLine,
    Document,
    Item,
    Remark,
    expand_sources,
    read_documents,
)
from jielong.data.sources.row_text import RowText
from jielong.errors import ConfigError
from jielong.tokenization.chat import Chat
from jielong.tokenization.tokenizer import Tokenizer

TURNS = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]
ROW = {"title": "On", "body": {"text": "and on", "parts": ["a", "b"]}, "n": 7, "none": None}
TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"


def read(path: Path, text: RowText | str) -> list[Item]:
    return list(read_documents(expand_sources([str(path)]), text))


def written(folder: Path, form: str, rows: list[dict[str, Any]]) -> Path:
    path = folder / f"a.{form}"
    if form == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif form == "json":
        path.write_text(json.dumps(rows, indent=1))
    elif form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        table = pa.Table.from_pylist(rows)
        with pa.ipc.new_stream(str(path), table.schema) as writer:
            writer.write_table(table)
    return path


@pytest.mark.parametrize("form", ["jsonl", "json", "parquet", "arrow"])
def test_nested_fields_templates_and_conversations_are_read_from_every_form(
    tmp_path: Path, form: str
) -> None:
    path = written(tmp_path, form, [ROW | {"messages": TURNS}] * 2)
    for text, expected in (
        (RowText("body.text"), "and on"),
        (RowText("body.parts.1"), "b"),
        (RowText(template=r"{title} {body.text}\n{{{n}}}{none}"), "On and on\n{7}"),
        (RowText("messages.1.content"), "Because."),
    ):
        items = read(path, text)
        assert [i.text for i in items if isinstance(i, Document)] == [expected] * 2, items
    *items, remark = read(path, RowText("messages", chat=Chat(None)))
    assert [i.text for i in items if isinstance(i, Document)] == [
        "user\nWhy?\nassistant\nBecause."
    ] * 2
    assert remark == Remark(str(path), "conversations in 'messages' read as plain turns")


def test_a_field_with_a_dot_in_its_name_is_itself(tmp_path: Path) -> None:
    path = written(tmp_path, "jsonl", [{"body.text": "flat", "body": {"text": "nested"}}])
    (item,) = read(path, "body.text")
    assert isinstance(item, Document) and item.text == "flat"


def test_columns_of_a_csv_are_joined_by_a_template(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('id,title,text\n1,On,"a, b"\n2,,\n')
    first, second = read(tmp_path / "a.csv", RowText(template="{title}: {text}"))
    assert isinstance(first, Document) and first.text == "On: a, b"
    assert isinstance(second, BadLine) and second.reason == "empty text"


@pytest.mark.parametrize(
    ("text", "row", "says"),
    [
        (RowText("body.tex"), ROW, "no field 'body.tex'; fields seen: title, body"),
        (RowText("text"), ROW, "body holds such an object: --text-field body.text"),
        (RowText("text"), {"messages": TURNS}, "a conversation: --text-field messages"),
        (RowText("text"), {"c": [{"from": "human", "value": "a"}]}, "--text-field c reads"),
        (RowText(template="{title} {x}"), ROW, "no field 'x'; fields seen: title, body, n, none"),
        (RowText(template="{body}"), ROW, "field 'body' holds a object, no text"),
        (RowText("m", chat=Chat(None)), {"m": [*TURNS, {"role": "user"}]}, "turn 3 of the conv"),
        (RowText("m", chat=Chat(None)), {"m": [*TURNS, "hello"]}, "turn 3 of the conversation"),
    ],
)
def test_a_row_without_that_text_costs_itself_and_says_why(
    tmp_path: Path, text: RowText, row: dict[str, Any], says: str
) -> None:
    (bad,) = read(written(tmp_path, "jsonl", [row]), text)
    assert isinstance(bad, BadLine) and says in bad.reason and bad.line == 1 and bad.size


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("no field", "names no field"),
        ("{}", "braces hold the name"),
        ("{a", "expected '}'"),
        ("{a!r}", "braces hold the name"),
        ("{a:>9}", "braces hold the name"),
    ],
)
def test_a_template_that_means_nothing_is_refused(template: str, says: str) -> None:
    with pytest.raises(ConfigError, match=r"data\.text_template") as error:
        load_config(text_template=template)
    assert says in str(error.value)
    with pytest.raises(ConfigError, match="give one"):
        load_config(text_template="{a}", text_field="b")


def prepared(
    folder: Path, tokenizer: Path, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str]:
    path = written(folder, "jsonl", [{"id": str(i), "messages": TURNS} for i in range(20)])
    given = ["--data-path", str(path), "--tokenizer", str(tokenizer), "--text-field", "messages"]
    status = main(["prepare", *given, "--out-dir", str(folder / "out"), *words])
    said = capsys.readouterr()
    return status, said.out + said.err


def test_conversations_become_chatml_or_what_the_template_says_and_the_report_says_which(
    tmp_path: Path, tokenizer_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, said = prepared(tmp_path, tokenizer_dir, capsys)
    assert status == 0 and "conversations in 'messages' read as ChatML" in said
    turns = "<|im_start|>user⏎Why?<|im_end|>⏎<|im_start|>assistant⏎Because.<|im_end|>"
    assert f"sample         {turns}\n" in said and "20 conversations" in said
    pytest.importorskip("jinja2")
    own = tmp_path / "own"
    Tokenizer.load(tokenizer_dir).save(own)
    (own / "chat_template.jinja").write_text(TEMPLATE)
    status, said = prepared(tmp_path, own, capsys)
    assert status != 0 and "its data.tokenizer's chat template is unset" in said
    status, said = prepared(tmp_path, own, capsys, "--out-dir", str(tmp_path / "templated"))
    assert status == 0 and "read by the tokenizer's chat template" in said
    assert "sample         <|im_start|>[user] Why?⏎[assistant] Because.<|im_end|>\n" in said


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ raise_exception('roles must alternate') }}", "ValueError: roles must alternate"),
        ("{% for i in range(10**9) %}{% for j in range(10**9) %}{% endfor %}{% endfor %}", "fails"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
    ],
)
def test_33_a_hostile_or_failing_template_costs_its_conversations_and_nothing_else(
    tmp_path: Path, tokenizer_dir: Path, template: str, says: str
) -> None:
    pytest.importorskip("jinja2")
    Tokenizer.load(tokenizer_dir).save(tmp_path / "own")
    (tmp_path / "own" / "chat_template.jinja").write_text(template)
    chat = Chat(Tokenizer.load(tmp_path / "own"))
    path = written(tmp_path, "jsonl", [{"messages": TURNS}])
    (bad,) = read(path, RowText("messages", chat=chat))
    chat.close()
    assert isinstance(bad, BadLine) and "chat template fails" in bad.reason and says in bad.reason
