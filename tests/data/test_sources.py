import gzip
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from jielong.data.sources import json_rows
from jielong.data.sources.documents import BadLine, Document, expand_sources, read_documents
from jielong.errors import DataError


def read(*paths, field="text"):
    return list(read_documents(expand_sources([str(path) for path in paths]), field))


def texts(*paths, field="text"):
    items = read(*paths, field=field)
    assert all(isinstance(item, Document) for item in items), items
    return [item.text for item in items]


def one_bad(path):
    (item,) = read(path)
    assert isinstance(item, BadLine)
    return item


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def jsonl(*rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


ROWS = jsonl({"text": "one"}, {"text": "二"}, {"text": "three\x00"})


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", ROWS),
        ("a.json", ROWS),
        ("a.ndjson", b"\xef\xbb\xbf" + ROWS.rstrip()),
        ("a.JSONL", ROWS.replace(b"\n", b"\r\n\r\n")),
        ("a.jsonl.gz", gzip.compress(ROWS, mtime=0)),
        ("a.jsonl.zst", zstandard.compress(ROWS)),
        ("two.frames.jsonl.zst", zstandard.compress(ROWS[:20]) + zstandard.compress(ROWS[20:])),
        (
            "two.members.jsonl.gz",
            gzip.compress(ROWS[:20], mtime=0) + gzip.compress(ROWS[20:], mtime=0),
        ),
    ],
)
def test_json_lines_are_read_whatever_their_wrapping(write, name, content):
    assert texts(write(name, content)) == ["one", "二", "three\x00"]


def test_documents_know_their_file_and_line(write):
    path = write("a.jsonl", b"\n" + ROWS)
    assert [(d.source, d.line) for d in read(path)] == [(str(path), n) for n in (2, 3, 4)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "cut', "invalid JSON"),
        (b"{'text': 'a'}", "a dict as Python prints it; write it with json.dumps"),
        (b"{", "an object of several lines; jq -c"),
        (b'{"data": [{"text": "a"}]}', "data holds such objects: jq -c '.data[]'"),
        (b'{"text": "\xff"}', "invalid UTF-8"),
        (b'{"text": "\\ud800"}', "surrogate"),
        (b"[" * 100_000, "invalid JSON"),
        (b'["text"]', "holds a list, not an object"),
        (b"null", "holds a null, not an object"),
        (b'{"content": "a", "id": 1}', "no field 'text'; fields seen: content, id"),
        (b'{"' + b"k" * 100_000 + b'": 1}', "no field 'text'; fields seen: kkk"),
        (b'{"text": 3}', "holds a number, no text"),
        (b'{"text": null}', "holds a null, no text"),
        (b'{"text": ["a"]}', "holds a list, no text"),
        (b'{"text": ""}', "empty text"),
        (b'{"text": " \\n\\u3000"}', "empty text"),
    ],
)
def test_a_bad_line_is_reported_and_its_neighbours_survive(write, line, reason):
    path = write("a.jsonl", b'{"text": "before"}\n' + line + b'\n{"text": "after"}\n')
    before, bad, after = read(path)
    assert (before.text, after.text) == ("before", "after")
    assert isinstance(bad, BadLine)
    assert (bad.source, bad.line) == (str(path), 2)
    assert reason in bad.reason
    assert len(bad.reason) < 200


@pytest.mark.parametrize("length", [5000, 3 * 2**20])
def test_a_line_beyond_the_limit_is_skipped_and_its_bytes_are_counted(length):
    lines = jsonl({"text": "x" * length}, {"text": "short"}, {"text": "y" * length})
    stream = io.BufferedReader(io.BytesIO(lines))
    first, short, last = json_rows.read_json(stream, "a", "text", length)
    assert f"longer than {length:,}:" in first.reason
    assert (short.text, short.line, last.line) == ("short", 2, 3)
    assert (first.kind, first.size, last.size) == ("too long", length + 13, length + 13)
    kept = json_rows.read_json(io.BufferedReader(io.BytesIO(lines)), "a", "text", length + 13)
    assert [document.text[:1] for document in kept] == ["x", "s", "y"]


def test_a_compressed_bomb_takes_bounded_memory(write):
    with io.BytesIO() as packed:
        with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1) as file:
            file.write(b'{"text": "')
            for _ in range(300):
                file.write(b"x" * 2**20)
            file.write(b'"}\n{"text": "good"}\n')
        path = write("bomb.jsonl.gz", packed.getvalue())
    code = (
        "import resource, sys\n"
        "from jielong.data.sources.documents import expand_sources, read_documents\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "bad, good = read_documents(expand_sources([sys.argv[1]]), 'text')\n"
        "print(bad.reason, '|', good.text, '|', (peak() - before) // 1024)"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], env=env, capture_output=True, text=True, check=True
    )
    reason, text, grown_mib = done.stdout.split("|")
    assert "314,572,813 bytes, longer than 268,435,456" in reason
    assert text.strip() == "good"
    assert int(grown_mib) < 350  # a line is held up to 256 MiB


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.txt.zst"])
def test_a_compressed_file_cut_short_is_an_error_that_names_it(write, name):
    pack = gzip.compress if name.endswith("gz") else zstandard.compress
    content = pack(os.urandom(20_000).hex().encode())
    path = write(name, content[: len(content) // 2])
    with pytest.raises(DataError, match="damaged or cut short") as error:
        read(path)
    assert str(path) in str(error.value)


def test_a_short_text_file_is_one_document_kept_exactly(write):
    text = "\n Title\r\n\r\nBody \x00 end\n\n"
    for name in ("a.txt", "a.md", "a.txt.gz"):
        content = gzip.compress(text.encode()) if name.endswith("gz") else text
        assert texts(write(name, content)) == [text]


def test_a_long_text_file_is_cut_at_blank_lines_and_loses_nothing(write):
    paragraphs = [f"paragraph {i}\n" + f"some words {i}\n" * (i % 40) for i in range(2000)]
    documents = texts(write("a.txt", "\n".join(paragraphs)))
    limit = len("\n".join(paragraphs)) // 64
    assert 64 <= len(documents) <= 140
    assert all(len(d) <= limit for d in documents)
    assert all(d.startswith("paragraph") for d in documents)
    kept = "\n\n".join(documents).split()
    assert kept == "\n".join(paragraphs).split()


def test_a_text_without_line_breaks_is_cut_between_characters(write):
    text = "月光🙂" * 5000
    documents = texts(write("a.txt", text))
    assert len(documents) > 5
    assert "".join(documents) == text


def test_stories_in_a_folder_stay_whole(write):
    stories = [f"story {i}\n\n" + "and then\n\n" * 500 for i in range(100)]
    for i, story in enumerate(stories):
        write(f"tales/{i:03d}.txt", story)
    assert texts(write("tales/000.txt", stories[0]).parent) == stories


def test_invalid_utf8_in_a_text_file_is_a_bad_line_with_its_number(write):
    good, bad = read(write("a.txt", b"first\nsecond\n" + "第三".encode("gbk")))
    assert good.text == "first\nsecond\n"
    assert (bad.line, bad.size) == (3, 4)
    assert "gb18030" in bad.reason


def test_an_empty_file_is_reported(write):
    assert read(write("a.jsonl", b"")) == []
    assert one_bad(write("a.txt", b"")).reason == "empty text"
    assert one_bad(write("b.txt", b" \n\n")).reason == "empty text"


def test_parquet_gives_its_strings_and_reports_its_empty_rows(tmp_path):
    path = tmp_path / "a.parquet"
    for column in (
        pa.array(["one", None, "二", ""]),
        pa.array(["one", None, "二", ""], pa.large_string()),
        pa.array(["one", None, "二", ""]).dictionary_encode(),
    ):
        pq.write_table(pa.table({"body": column, "id": [1, 2, 3, 4]}), path)
        one, null, two, empty = read(path, field="body")
        assert (one.text, two.text, two.line) == ("one", "二", 3)
        assert (null.line, null.reason) == (2, "field 'body' holds a null, no text")
        assert (empty.line, empty.reason) == (4, "empty text")


def test_parquet_without_the_column_names_the_columns_it_has(tmp_path):
    pq.write_table(pa.table({"content": ["a"], "id": [1]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"columns seen: content, id; .*--text-field"):
        read(tmp_path)
    with pytest.raises(DataError, match="'id' holds int64, not strings"):
        read(tmp_path, field="id")


def test_a_parquet_file_that_is_none_is_an_error(write):
    with pytest.raises(DataError, match="not a readable Parquet file"):
        read(write("a.parquet", b"PAR1 nothing"))


def test_folders_and_globs_are_searched_in_sorted_order(write, tmp_path):
    for name in ("b.txt", "a/z.md", "a/y.jsonl", "a/.hidden/x.txt", "a/picture.png", ".git/x.txt"):
        write(name, ROWS if name.endswith("jsonl") else name)
    assert texts(tmp_path) == ["one", "二", "three\x00", "a/z.md", "b.txt"]
    assert texts(tmp_path / "**" / "*.md") == ["a/z.md"]
    assert texts(tmp_path / "a" / "?.md", tmp_path / "b.txt") == ["a/z.md", "b.txt"]


def test_what_is_not_there_is_named_with_its_nearest_neighbour(write, tmp_path):
    write("corpus.jsonl", ROWS)
    with pytest.raises(DataError, match=r"did you mean .*corpus\.jsonl"):
        read(tmp_path / "corpsu.jsonl")
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path / "no" / "such.txt")
    with pytest.raises(DataError, match="matches no readable file"):
        read(tmp_path / "*.txt")
    with pytest.raises(DataError, match="no text in this folder"):
        read(write("empty/picture.png", b"").parent)
    with pytest.raises(DataError, match="unknown file type"):
        read(write("corpus.odt", b""))
    with pytest.raises(DataError, match="no text given"):
        read()


def test_a_file_with_glob_characters_in_its_name_is_found(write):
    assert texts(write("a[1].txt", "x")) == ["x"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"\n " + ROWS, ["one", "二", "three\x00"]), (b"just\ntext", ["just\ntext"])],
)
def test_standard_input_is_json_lines_or_text(content, expected):
    reading, writing = os.pipe()
    os.write(writing, content)
    os.close(writing)
    kept = os.dup(0)
    try:
        os.dup2(reading, 0)
        assert texts("-") == expected
    finally:
        os.dup2(kept, 0)
        os.close(kept)
        os.close(reading)


def test_the_hub_without_its_library_says_how_to_install_it():
    try:
        import datasets  # noqa: F401
    except ImportError:
        with pytest.raises(DataError, match=r"pip install 'jielong\[hub\]'"):
            read("hf://someone/something")


def test_sources_tell_size_and_time(write):
    path = write("a.jsonl", ROWS)
    (source,) = expand_sources([str(path)])
    assert (source.size, source.mtime_ns) == (len(ROWS), path.stat().st_mtime_ns)
