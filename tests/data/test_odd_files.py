"""Odd files of users: read as they are meant, or told with a fix that works; never unnoticed."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import jielong
from jielong.cli.main import main
from jielong.data.prepare.left_out import accounts_of
from jielong.data.prepare.text_marks import describe_texts
from jielong.data.sources.documents import (
    BadLine,
    Document,
    Remark,
    expand_sources,
    read_documents,
)
from jielong.errors import DataError

TEXT = "The miller answered the river.\n"


def texts_and_losses(path: Path) -> tuple[list[str], list[BadLine]]:
    items = list(read_documents(expand_sources([str(path)]), "text"))
    texts = [item.text for item in items if isinstance(item, Document)]
    return texts, [item for item in items if isinstance(item, BadLine)]


def test_names_in_other_encodings_or_with_line_breaks_are_read_and_listed(
    tmp_path: Path, tokenizer_dir: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    names = [b"plain name.txt", "新 文件.txt".encode(), b"line\nbreak.txt", b"gbk \xd0\xc2.txt"]
    for name in names:
        (folder / os.fsdecode(name)).write_text(TEXT * 9)
    (folder / os.fsdecode(b"bad \xff.txt")).write_bytes(b"{\n" + bytes(99))
    command = ["prepare", "--data-path", str(folder), "--tokenizer", str(tokenizer_dir)]
    command += ["--out-dir", str(tmp_path / "out")]
    for times in range(2):  # made, and then reused
        assert main(command) == 0
        said = capsysbinary.readouterr().out.decode()
        assert "5 txt" in said and "reused" in said if times else "5 txt" in said
        assert rf"{folder}/bad \xff.txt: holds binary data" in said
    listed = json.loads((tmp_path / "out" / "dataset.json").read_text())["sources"]["data"]
    shown = [r"bad \xff.txt", r"gbk \xd0\xc2.txt", r"line\nbreak.txt", "plain name.txt"]
    assert {Path(source["name"]).name for source in listed} == {*shown, "新 文件.txt"}


@pytest.mark.parametrize(
    ("row", "texts"),
    [
        ({"text": ["one", "two"]}, ["one", "two"]),
        ({"data": [{"text": "one"}, {"text": "two"}]}, ["one", "two"]),
        ({"0": {"text": "one"}, "1": {"text": "two"}}, ["one", "two"]),
        ([{"text": "one"}, {"text": "two"}], ["one", "two"]),
    ],
)
def test_rows_of_another_form_are_told_the_line_that_converts_them(
    tmp_path: Path, row: Any, texts: list[str]
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f"{json.dumps(row)}\n" * 2)
    _, (bad, _) = texts_and_losses(path)
    found = re.search(r"jq -c ('.*') FILE > corpus\.jsonl", bad.reason)
    assert found and bad.size
    if shutil.which("jq") is None:
        pytest.skip("jq is not installed")
    line = found[0].replace("FILE", str(path)).replace("corpus", str(tmp_path / "corpus"))
    subprocess.run(line, shell=True, check=True)
    assert texts_and_losses(tmp_path / "corpus.jsonl") == (texts * 2, [])


def test_the_only_field_that_can_be_the_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": 1, "content": "words"}\n{"title": "x", "content": "words"}')
    _, (one, two) = texts_and_losses(path)
    assert one.reason.endswith("choose one with --text-field content")
    assert two.reason.endswith("choose one with --text-field")


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"id": [1], "content": ["a"]}, "seen: id, content; choose one with --text-field content"),
        ({"title": ["a"], "body": ["a"]}, "seen: title, body; choose one with --text-field"),
        ({"id": [1]}, "columns seen: id; none of them holds strings: convert it to JSON Lines"),
        ({"text": [["a"]], "note": ["b"]}, "holds list<element: string>, not strings; choose one"),
        ({"text": [{"a": "b"}]}, "not strings; none of them holds strings"),
    ],
)
def test_a_table_without_the_column_names_one_that_could_be_it(
    tmp_path: Path, columns: dict[str, Any], told: str
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(DataError) as error:
        texts_and_losses(tmp_path / "a.parquet")
    assert told in str(error.value)


def test_files_that_were_joined_lose_no_line_to_a_mark_in_their_middle(tmp_path: Path) -> None:
    part = "\ufeff" + json.dumps({"text": "words"}) + "\n"
    (tmp_path / "a.jsonl").write_text(part * 3)
    assert texts_and_losses(tmp_path / "a.jsonl") == (["words"] * 3, [])


def test_rows_that_end_in_carriage_returns_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\r".join(json.dumps({"text": t}) for t in ("a", "b\r\nc")))
    assert texts_and_losses(tmp_path / "a.jsonl") == (["a", "b\r\nc"], [])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("春天\ufffd来了\ufffd", "2 × U+FFFD, lost when the text was converted"),
        ("one\n\ufefftwo", "1 × byte order marks, left where files were joined"),
        ("床前明月光".encode().decode("latin-1"), "9 × signs of UTF-8 that was read as Latin-1"),
        ("déjà l’été".encode().decode("cp1252"), "5 × signs of UTF-8 that was read as Latin-1"),
        ("a\0b", "1 × NUL"),
    ],
)
def test_signs_of_damage_in_a_text_are_counted(
    tmp_path: Path, tokenizer_dir: Path, text: str, said: str
) -> None:
    (tmp_path / "a.txt").write_text(text + TEXT * 9)
    report = "\n".join(jielong.prepare(tmp_path / "a.txt", tokenizer_dir, tmp_path / "o").lines())
    assert f"characters that may be damage, and are learnt: {said}" in report
    (tmp_path / "b.txt").write_text("«Ça va ?» — 春天 🙂\n" + TEXT * 9)
    report = "\n".join(jielong.prepare(tmp_path / "b.txt", tokenizer_dir, tmp_path / "p").lines())
    assert "may be damage" not in report


def test_what_loses_nothing_is_not_named_where_something_is_lost(
    tmp_path: Path, tokenizer_dir: Path
) -> None:
    (tmp_path / "in").mkdir()
    for name, data in {"a.txt": b"", "b.parquet": b"", "c.txt": TEXT.encode() * 9}.items():
        (tmp_path / "in" / name).write_bytes(data)
    said = "\n".join(jielong.prepare(tmp_path / "in", tokenizer_dir, tmp_path / "out").lines())
    assert re.search(r"WARNING .*b\.parquet: not a readable Parquet file", said)


def test_a_file_that_grows_while_it_is_read_is_said_to(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one"}\n' * 5)
    items = read_documents(expand_sources([str(path)]), "text")
    assert isinstance(next(items), Document)
    with path.open("a") as file:
        file.write('{"text": "two"}\n')
    (remark,) = [item for item in items if isinstance(item, Remark)]
    assert remark.text == "has changed while it was read: prepare it again"
    assert texts_and_losses(path) == (["one"] * 5 + ["two"], [])


def test_a_file_that_is_named_twice_is_said_to_be(tmp_path: Path, tokenizer_dir: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(TEXT * 9)
    said = "\n".join(jielong.prepare([path, path], tokenizer_dir, tmp_path / "out").lines())
    assert f"note           {path}: named more than once, read as often" in said


def test_pipes_and_hidden_files_are_told_what_to_do(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(DataError, match=r"is no file or folder: for a pipe, give --data-path -"):
        expand_sources([str(tmp_path / "pipe.txt")])
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / ".a.txt").write_text(TEXT)
    with pytest.raises(DataError, match=r"no text in this folder \(only hidden files"):
        expand_sources([str(tmp_path / "in")])
    assert texts_and_losses(tmp_path / "in" / ".a.txt") == ([TEXT], [])


@pytest.mark.parametrize("value", [7, "x", [1], {"a": "b"}, {"a": [1]}])
def test_damaged_counts_of_a_dataset_are_refused(value: Any) -> None:
    for name in ("text_units", "special_tokens_inside", "foreign_marks", "rules", "unsplit_lines"):
        with pytest.raises(DataError, match=r"dataset\.json: its counts are damaged"):
            describe_texts({name: value})
    with pytest.raises(DataError, match="damaged"):
        accounts_of({"left_out": value})


def archive_of(*members: tuple[str, str]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, text in members:
            archive.writestr(name, text)
    return made.getvalue()


def tar_of(name: str, data: bytes) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return made.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.doc", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99), "an old document of Word"),
        ("a.csv", archive_of(("[Content_Types].xml", ""), ("xl/a", "")), "save a table as CSV"),
        ("a.odt", archive_of(("mimetype", "application/vnd.oasis.opendocument")), "LibreOffice"),
        ("a.txt", archive_of(("mimetype", "application/epub+zip")), "is an EPUB"),
        ("a.zip", tar_of("a.txt", b"text"), "is a tar archive: give it a name"),
        ("a.txt.gz", gzip.compress(tar_of("a.txt", b"text")), "is a tar archive: give it a name"),
        ("a.ipynb", b'{\n "cells": [\n {\n "cell_type": "code"}]}', "jupyter nbconvert"),
        ("a.jsonl", b"\x04\x22\x4d\x18" + bytes(99), "is compressed with LZ4"),
    ],
    # not by the data: archives have the time in them
    ids=["doc", "xlsx", "odt", "epub", "tar-as-zip", "tar-as-gzip", "notebook", "lz4"],
)
def test_files_of_formats_that_are_not_read_are_named_with_the_fix(
    tmp_path: Path, name: str, data: bytes, reason: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=reason):
        texts_and_losses(tmp_path / name)


def test_members_of_the_same_name_are_all_read(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        data = archive_of(("a.txt", "one"), ("a.txt", "two"))
    (tmp_path / "a.zip").write_bytes(data)
    assert texts_and_losses(tmp_path / "a.zip") == (["one", "two"], [])


def test_two_columns_of_the_same_name_are_refused(tmp_path: Path) -> None:
    columns = [pa.array(["one"]), pa.array(["two"])]
    pq.write_table(pa.Table.from_arrays(columns, names=["text", "text"]), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: has 2 columns 'text': rename them"):
        texts_and_losses(tmp_path / "a.parquet")


def test_objects_that_were_written_without_line_feeds_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": text}) for text in ("one", "two", "three")))
    assert texts_and_losses(path) == (["one", "two", "three"], [])
