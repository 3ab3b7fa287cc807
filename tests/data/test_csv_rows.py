"""CSV and TSV: every text of a sound file as Python's csv reads it; a bad row costs only itself."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import pytest

import jielong
from jielong.cli.main import main
from jielong.config.load import load_config
from jielong.data.prepare.provenance import Sources
from jielong.data.sources.csv_rows import read_csv
from jielong.data.sources.documents import (
    BadLine,
    Document,
    Item,
    expand_sources,
    find_sources,
    read_documents,
)
from jielong.data.sources.file_kinds import further_suffixes
from jielong.errors import ConfigError, DataError
from jielong.tokenization.tokenizer import Tokenizer

TEXTS = [
    'She said "no", twice.',
    "two\nlines, and\n\nmore",
    "床前明月光，疑是地上霜。",
    "tab\there",
    '"',
    " spaces ",
    "plain",
    "semicolon; and | bar",
]


def written(texts: list[str], delimiter: str, **options: object) -> str:
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, **options)  # type: ignore[arg-type]
    writer.writerow(["id", "text", "note"])
    writer.writerows([i, text, f"n{delimiter}{i}"] for i, text in enumerate(texts))
    return out.getvalue()


def read(path: Path, encoding: str | None = None, field: str = "text") -> list[Item]:
    return list(read_documents(expand_sources([str(path)]), field, encoding))


def texts_of(items: list[Item]) -> list[str]:
    return [item.text for item in items if isinstance(item, Document)]


def bad_of(items: list[Item]) -> list[BadLine]:
    return [item for item in items if isinstance(item, BadLine)]


@pytest.mark.parametrize("name,delimiter", [("a.csv", ","), ("a.csv", ";"), ("a.tsv", "\t")])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
def test_every_text_is_read_as_it_was_written(
    tmp_path: Path, name: str, delimiter: str, quoting: int, encoding: str
) -> None:
    path = tmp_path / name
    path.write_bytes(written(TEXTS * 3, delimiter, quoting=quoting).encode(encoding))
    items = read(path, "gb18030" if encoding == "gb18030" else None)
    assert texts_of(items) == TEXTS * 3 and not bad_of(items)


def test_compressed_and_old_mac_files_are_read_too(tmp_path: Path) -> None:
    data = written(["one", "two, three"], ",").encode()
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(data))
    (tmp_path / "b.csv").write_bytes(data.replace(b"\r\n", b"\r"))
    for name in ("a.csv.gz", "b.csv"):
        assert texts_of(read(tmp_path / name)) == ["one", "two, three"]


def test_rows_know_their_place_and_size(tmp_path: Path) -> None:
    data = b'id,text\n1,"a\nb"\n\n2,c\n'
    (tmp_path / "a.csv").write_bytes(data)
    first, second = read(tmp_path / "a.csv")
    assert isinstance(first, Document) and isinstance(second, Document)
    assert (first.line, second.line) == (2, 5)
    assert first.size + second.size == len(data) - len(b"id,text\n\n")


def test_a_bad_row_costs_itself_and_says_why(tmp_path: Path) -> None:
    lines = [b"id,text", b"1,good one", b"2,not, quoted", b"3,", b"4", b"5,\xff", b"6,good two,"]
    (tmp_path / "a.csv").write_bytes(b"\n".join(lines))
    items = read(tmp_path / "a.csv")
    assert texts_of(items) == ["good one", "good two"]
    assert [(bad.line, bad.size) for bad in bad_of(items)] == [(3, 14), (4, 0), (5, 2), (6, 4)]
    reasons = [bad.reason for bad in bad_of(items)]
    assert "has 3 columns, the first line 2: a text that holds a comma" in reasons[0]
    assert "ends before its column 'text'" in reasons[2] and "invalid UTF-8" in reasons[3]


@pytest.mark.parametrize("bad", ['"begins only', 'a "b" c', '"a" b', 'ends only"'])
@pytest.mark.parametrize("name,delimiter", [("a.csv", ","), ("a.tsv", "\t")])
def test_a_quote_that_does_not_fit_never_swallows_the_rows_after_it(
    tmp_path: Path, bad: str, name: str, delimiter: str
) -> None:
    rows = ["id,text", *(f"{i},row {i}" for i in range(20))]
    rows[5] = f"4,{bad}"
    (tmp_path / name).write_text("\n".join(rows).replace(",", delimiter) + "\n")
    expected = [f"row {i}" for i in range(20)]
    expected[4] = bad
    assert texts_of(read(tmp_path / name)) == expected


def test_rows_of_tabs_with_two_lone_quotes_stay_rows(tmp_path: Path) -> None:
    rows = ["id\ttext", '1\t"begins', "2\tbetween", '3\tends"', "4\tafter"]
    (tmp_path / "a.tsv").write_text("\n".join(rows))
    assert texts_of(read(tmp_path / "a.tsv")) == ['"begins', "between", 'ends"', "after"]


def test_long_lines_and_endless_quotes_are_bounded() -> None:
    data = b'id,text\n1,"never closed\n' + b"2,fine\n" * 30 + b"3," + b"x" * 300 + b"\n4,end\n"
    stream = io.BufferedReader(io.BytesIO(data))  # type: ignore[arg-type]
    items = list(read_csv(stream, "a.csv", "text", False, line_bytes=200, row_bytes=100))
    assert texts_of(items) == ['"never closed', *["fine"] * 30, "end"]
    (bad,) = bad_of(items)
    assert (bad.line, bad.size, bad.kind) == (33, 303, "too long")


@pytest.mark.parametrize(
    "content,said",
    [
        ("id,body\n1,a\n", "columns seen: id, body; choose one with --text-field"),
        ("Once upon a time\nthere was\n", "if the first line is text already, put one with the"),
        ("id;body\n1;a\n", "columns seen: id, body"),
    ],
)
def test_a_file_without_the_column_says_what_it_has(
    tmp_path: Path, content: str, said: str
) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(DataError, match=r"a\.csv: no column 'text'") as error:
        read(tmp_path / "a.csv")
    assert said in str(error.value)


def test_another_column_is_named_by_the_text_field(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,body\n1,a\n")
    assert texts_of(read(tmp_path / "a.csv", field="body")) == ["a"]


def test_a_dataset_is_made_of_tables_and_of_code(
    tmp_path: Path, tokenizer_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "texts"
    (folder / "src").mkdir(parents=True)
    (folder / "a.csv").write_text("id,text\n1,from the table\n")
    code = "def f():\n\treturn 1\n"
    for name in ("b.py", "c.rst", "Makefile", "e.bin"):
        (folder / "src" / name).write_text(f"{code}# {name}\n")
    command = ["prepare", "--data-path", str(folder), "--tokenizer", str(tokenizer_dir)]
    assert main([*command, "--out-dir", str(tmp_path / "some")]) == 0
    said = capsys.readouterr().out
    assert "1 csv" in said and "--text-suffixes py rst reads such as plain text" in said
    asked = ["--text-suffixes", "py,.rst", "none", "--validation-fraction", "0"]
    assert main([*command, "--out-dir", str(tmp_path / "all"), *asked]) == 0
    assert "documents      4 " in capsys.readouterr().out
    train = jielong.data.shards.open_dataset(tmp_path / "all").train
    text = Tokenizer.load(tokenizer_dir).decode(train.read(0, len(train)).tolist())
    assert "from the table" in text and text.count(code) == 3 and "e.bin" not in text


def test_a_file_or_folder_of_other_suffixes_names_the_flag(tmp_path: Path) -> None:
    (tmp_path / "book.tex").write_text("words")
    for path in (tmp_path / "book.tex", tmp_path, tmp_path / "*.tex"):
        with pytest.raises(DataError, match="--text-suffixes tex"):
            find_sources([str(path)])
    config = load_config(data_path=(str(tmp_path),), text_suffixes=("tex",))
    (source,) = Sources.of(config.data).data
    assert source.kind == "text"


@pytest.mark.parametrize("names", [["csv"], ["gz"], ["tar.gz"], [""], ["a/b"]])
def test_suffixes_that_would_not_be_read_as_text_are_refused(names: list[str]) -> None:
    with pytest.raises(ConfigError, match="text_suffixes"):
        further_suffixes(names)


def test_windows_line_ends_in_texts_are_told(tmp_path: Path, tokenizer_dir: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\r\ntwo\r\n")
    report = jielong.prepare(tmp_path / "a.txt", tokenizer_dir, tmp_path / "out")
    assert "1 texts have carriage returns (line ends of Windows)" in "\n".join(report.lines())


@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_24_files_that_were_joined_name_their_columns_again_perhaps_in_another_order(
    delimiter: str, tmp_path: Path
) -> None:
    path = tmp_path / f"a.{'tsv' if delimiter == chr(9) else 'csv'}"
    rows = [["id", "text"], ["1", "one"], ["id", "text"], ["2", "two"], ["text", "id"]]
    rows += [["three", "3"], ["text", "text"]]
    path.write_text("".join(delimiter.join(row) + "\n" for row in rows))
    items = read(path)
    assert texts_of(items) == ["one", "two", "three", "text"]
    assert [(bad.line, bad.size) for bad in bad_of(items)] == [(3, 0), (5, 0)]
    assert "where files were joined" in bad_of(items)[0].reason
