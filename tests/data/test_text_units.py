"""Where a text ends in a file of plain text."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import jielong
from jielong.data.shards import open_dataset
from jielong.data.sources.documents import Document, expand_sources, read_documents
from jielong.data.sources.losses import Losses
from jielong.data.sources.text_units import HEAD_BYTES, Splitting
from jielong.errors import ConfigError, DataError

STORIES = [f"Story {i}.\nIt went on for {i} days.\n\nThe end." for i in range(40)]


def texts(path: Path, unit: str = "auto", separator: str = "auto") -> list[str]:
    items = read_documents(
        expand_sources([str(path)]), "text", splitting=Splitting(unit, separator)
    )
    found = [item for item in items if isinstance(item, Document)]
    lines = path.read_bytes().decode().split("\n")
    for item in found:  # each knows its line, whatever stands before it there
        assert item.unit == "row" or item.text.split("\n")[0].strip() in lines[item.line - 1]
    return [item.text for item in found]


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    "between",
    [
        "\n<|endoftext|>\n",
        "<|endoftext|>",
        "\n\n<|endoftext|>\n\n",
        "\r\n<|endoftext|>\r\n",
        "\n</s>\n",
        "</s>\n",
        "\n<|im_end|>\n",
        "<|end_of_text|>\n",
        "\n---\n",
        "\n\n***\n\n",
        "\n* * *\n",
        "\n%\n",
    ],
)
def test_plain_separators_end_texts(tmp_path: Path, between: str) -> None:
    path = write(tmp_path / "a.txt", between.join(STORIES) + between)
    assert texts(path) == STORIES
    assert "".join(texts(path, separator="none")).count(between.strip()) == len(STORIES)


@pytest.mark.parametrize(
    ("begin", "end"), [("<s>", "</s> "), ("<|im_start|>", "<|im_end|>\n"), ("<s>\n", "\n</s>\n")]
)
def test_pairs_around_texts_are_no_part_of_them(tmp_path: Path, begin: str, end: str) -> None:
    assert texts(write(tmp_path / "a.txt", "".join(begin + s + end for s in STORIES))) == STORIES


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.md", "The token `<|endoftext|>` ends a text, and <s>not</s> this.\n"),
        ("a.md", "\n---\n".join(STORIES[:20])),
        ("a.txt", "\n***\n".join("A long scene, which went on. " * 200 for _ in range(3))),
        ("a.txt", "<s>[INST] Hello [/INST] Good day</s>\n" * 5),
        ("a.txt", "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nYes<|im_end|>\n"),
    ],
)
def test_what_is_part_of_a_text_stays_in_it(tmp_path: Path, name: str, text: str) -> None:
    path = write(tmp_path / name, text)
    joined = "\n".join(texts(path))
    for mark in ("<|endoftext|>", "</s>", "<|im_end|>", "---", "***"):
        assert joined.count(mark) == text.count(mark)


def test_a_separator_after_a_long_text_is_found(tmp_path: Path) -> None:
    long = "word " * (HEAD_BYTES // 4) + "end"
    path = write(tmp_path / "a.txt", f"{long}\n<|endoftext|>\nshort\n")
    documents = texts(path)
    assert documents[-1] == "short" and "<|" not in "".join(documents)
    assert "".join(documents[:-1]).split() == long.split()


@pytest.mark.parametrize(
    "separator", ["<|endoftext|>", "END", "=====", "\\n\\n\\n", "月\\n", "</s>"]
)
def test_a_separator_that_is_given_ends_texts_wherever_reads_end(
    tmp_path: Path, separator: str
) -> None:
    """The file is several times what is read at once."""
    stories = [f"Tale {i} " + "so on 月光 " * (i % 60) + "over." for i in range(8000)]
    between = separator.replace("\\n", "\n")
    between = f"\n{between}\n" if between == "=====" else between
    path = write(tmp_path / "a.txt", between.join(stories))
    assert path.stat().st_size > 2 * HEAD_BYTES
    assert texts(path, separator=separator) == stories


def test_a_separator_that_is_given_also_ends_texts_in_rows(tmp_path: Path) -> None:
    row = "<s>one</s> <s>two</s>"
    path = write(tmp_path / "a.jsonl", json.dumps({"text": row}) + "\n")
    assert texts(path) == [row]  # a row is one text, as its author says
    assert texts(path, separator="</s>") == ["one", "two"]


def test_lines_and_paragraphs_are_texts_if_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "one\r\n  two\n\n\u3000\nthree\nfour</s>\n")
    assert texts(path, "line") == ["one", "  two", "three", "four"]
    assert texts(path, "paragraph") == ["one\r\n  two", "three\nfour"]
    whole = "x" * 100_000 + "\n<|endoftext|>\n" + "y" * 100_000
    assert texts(write(tmp_path / "b.txt", whole), "file") == [whole]


def test_each_story_is_a_document_and_no_separator_is_trained(
    tmp_path: Path, tokenizer_dir: Path
) -> None:
    path = write(tmp_path / "a.txt", "\n<|endoftext|>\n".join(STORIES))
    report = jielong.prepare(path, tokenizer_dir, tmp_path / "out", validation_fraction=0)
    assert report.documents == len(STORIES)
    assert "40 ended by <|endoftext|>" in "\n".join(report.lines())
    train = open_dataset(tmp_path / "out").train
    tokens = train.read(0, len(train))
    assert not (tokens == 0).any()  # <|endoftext|>, which is also the padding
    assert np.array_equal(tokens[train.documents], [1] * 40)
    off = jielong.prepare(
        path, tokenizer_dir, tmp_path / "off", validation_fraction=0, document_separator="none"
    )
    assert "special tokens inside texts: <|endoftext|> 39 times" in "\n".join(off.lines())


def test_marks_of_another_tokenizer_are_said(tmp_path: Path, tokenizer_dir: Path) -> None:
    path = write(tmp_path / "a.jsonl", json.dumps({"text": "<s>one</s> <s>two</s>"}) + "\n")
    said = "\n".join(jielong.prepare(path, tokenizer_dir, tmp_path / "out").lines())
    assert "</s> 2 times, <s> 2 times in the texts look like special tokens of another" in said


def test_a_file_that_may_have_a_text_a_line_is_said(tmp_path: Path, tokenizer_dir: Path) -> None:
    path = write(
        tmp_path / "a.txt", "".join(f"Text {i} " + "of words " * 12 + "\n" for i in range(50))
    )
    said = "\n".join(jielong.prepare(path, tokenizer_dir, tmp_path / "out").lines())
    assert "if each is a text of its own: --text-unit line" in said
    report = jielong.prepare(path, tokenizer_dir, tmp_path / "lines", text_unit="line")
    assert report.documents == 50 and "texts          50 lines" in "\n".join(report.lines())


def test_another_unit_or_separator_is_another_dataset(tmp_path: Path, tokenizer_dir: Path) -> None:
    path = write(tmp_path / "a.txt", "\n".join(STORIES))
    jielong.prepare(path, tokenizer_dir, tmp_path / "out")
    assert jielong.prepare(path, tokenizer_dir, tmp_path / "out").reused
    with pytest.raises(DataError, match=r"its data\.text_unit is auto, not paragraph"):
        jielong.prepare(path, tokenizer_dir, tmp_path / "out", text_unit="paragraph")
    with pytest.raises(DataError, match=r"its data\.document_separator is auto, not END"):
        jielong.prepare(path, tokenizer_dir, tmp_path / "out", document_separator="END")


@pytest.mark.parametrize(
    "settings", [{"text_unit": "line", "document_separator": "END"}, {"document_separator": ""}]
)
def test_settings_that_contradict_each_other_are_refused(
    tmp_path: Path, tokenizer_dir: Path, settings: dict[str, str]
) -> None:
    path = write(tmp_path / "a.txt", "text")
    with pytest.raises(ConfigError, match="document_separator"):
        jielong.prepare(path, tokenizer_dir, tmp_path / "out", **settings)


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030", "utf-16"])
def test_separators_end_texts_in_any_encoding_and_damage_costs_its_line_alone(
    tmp_path: Path, encoding: str
) -> None:
    stories = [f"第{i}章\n它走了{i}天。\n完" for i in range(40)]
    joined = "\n<|endoftext|>\n".join(stories)
    path, losses = tmp_path / "a.txt", Losses()
    data = joined.encode(encoding)
    if encoding == "utf-8":
        data = data.replace("它走了7天".encode(), b"\xe5" + "走了7天".encode())
        stories[7] = "第7章\n完"
    path.write_bytes(data)
    items = read_documents(expand_sources([str(path)]), "text", encoding, Splitting())
    found = list(losses.documents(items))
    assert [document.text for document in found] == stories
    assert [document.line for document in found] == [1 + 4 * i for i in range(40)]
    if encoding == "utf-8":
        (line,) = losses.lines()
        assert f"{path}:30: invalid UTF-8" in line
    else:
        assert losses.lines() == [f"{path}: read as {encoding}"]


@pytest.mark.parametrize("kind", ["jsonl", "arrow"])
def test_rows_end_at_a_separator_that_is_given_and_count_all_their_bytes(
    tmp_path: Path, kind: str
) -> None:
    path, losses = tmp_path / f"a.{kind}", Losses()
    rows = ["<sep>".join(STORIES[i : i + 4]) for i in range(0, 40, 4)] + ["<sep><sep>"]
    if kind == "jsonl":
        path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows[:-1]))
    else:
        table = pa.table({"text": rows})
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    items = read_documents(
        expand_sources([str(path)]), "text", splitting=Splitting(separator="<sep>")
    )
    found = list(losses.documents(items))
    assert [document.text for document in found] == STORIES
    assert [document.line for document in found] == [1 + i // 4 for i in range(40)]
    if kind == "jsonl":
        assert losses.read_bytes == path.stat().st_size
    else:
        assert losses.first is not None and "holds separators only" in losses.first.message


def test_one_very_long_line_is_not_taken_for_many(tmp_path: Path, tokenizer_dir: Path) -> None:
    path = write(tmp_path / "a.txt", " ".join(f"word{i}" for i in range(40_000)))
    report = jielong.prepare(path, tokenizer_dir, tmp_path / "out")
    said = "\n".join(report.lines())
    assert "pieces of long texts" in said and "--text-unit line" not in said


def test_one_file_is_told_in_the_singular(tmp_path: Path, tokenizer_dir: Path) -> None:
    path = write(tmp_path / "a.txt", "\n".join(STORIES[:9]))
    assert (
        "  texts          1 whole file"
        in jielong.prepare(path, tokenizer_dir, tmp_path / "out").lines()
    )
