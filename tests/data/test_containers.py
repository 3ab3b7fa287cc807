"""Containers that lie or are rare: read by what they hold, or refused with what to do."""

import gzip
import io
import json
import os
import random
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from jielong.data.sources import containers
from jielong.data.sources.arrow_sizes import CheckedMessages
from jielong.data.sources.documents import BadLine, Document, expand_sources, read_documents
from jielong.data.sources.row_text import RowText
from jielong.data.sources.tables import read_table
from jielong.errors import DataError
from tiny import environment

TEXTS = ["one", "二", "three\nlines"]
JSONL = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS).encode()
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:%b\nsize 98765\n" % (b"0" * 64)


def read(*paths):
    return list(read_documents(expand_sources([str(path) for path in paths]), "text"))


def texts(*paths):
    items = read(*paths)
    assert all(isinstance(item, Document) for item in items), items
    return [item.text for item in items]


def zstd(data, **options):
    parameters = zstandard.ZstdCompressionParameters.from_level(3, **options)
    compress = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return compress.compress(data) + compress.flush()


@pytest.mark.parametrize("window_log", [27, 28, 31])
def test_zstd_with_long_windows_is_read(tmp_path, window_log):
    packed = zstd(JSONL, window_log=window_log)
    assert zstandard.get_frame_parameters(packed).window_size == 2**window_log
    (tmp_path / "a.jsonl.zst").write_bytes(packed)
    assert texts(tmp_path / "a.jsonl.zst") == TEXTS


def test_zstd_that_begins_with_a_skippable_frame_is_read(tmp_path):
    skippable = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"note"
    (tmp_path / "a.jsonl.zst").write_bytes(skippable + zstandard.compress(JSONL))
    assert texts(tmp_path / "a.jsonl.zst") == TEXTS


def test_zstd_that_needs_a_dictionary_is_not_called_damaged(tmp_path):
    dictionary = zstandard.train_dictionary(1000, [b"hello %d world" % i * 5 for i in range(999)])
    packed = zstandard.ZstdCompressor(dict_data=dictionary).compress(JSONL)
    (tmp_path / "a.jsonl.zst").write_bytes(packed)
    with pytest.raises(DataError, match=r"cannot be decompressed here .*ictionary.* zstd -d"):
        read(tmp_path / "a.jsonl.zst")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", gzip.compress(JSONL, mtime=0)),
        ("a.jsonl", zstandard.compress(JSONL)),
        ("a.jsonl.gz", JSONL),  # as some browsers store what they decompressed
        ("a.jsonl.zst", gzip.compress(JSONL, mtime=0)),
    ],
)
def test_what_a_file_holds_decides_how_it_is_decompressed(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert texts(tmp_path / name) == TEXTS


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.jsonl.gz", "a.parquet", "a.arrow"])
@pytest.mark.parametrize(
    ("pointer", "fix"), [(POINTER, "git lfs pull"), (b"/annex/objects/SHA256E-s9", "git annex get")]
)
def test_a_pointer_in_place_of_the_data_says_how_to_fetch_it(tmp_path, name, pointer, fix):
    (tmp_path / name).write_bytes(pointer)
    with pytest.raises(DataError, match=fix):
        read(tmp_path / name)


def test_a_pointer_counts_as_the_bytes_that_are_missing(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(JSONL)
    (tmp_path / "b.jsonl").write_bytes(POINTER)
    *good, bad = read(tmp_path)
    assert [document.text for document in good] == TEXTS
    assert (bad.source, bad.line, bad.size) == (str(tmp_path / "b.jsonl"), 0, 98765)


@pytest.mark.parametrize(
    ("head", "fix"),
    [
        (b"PAR1", r"\.parquet"),
        (b"ARROW1", r"\.arrow"),
        (b"PK\x03\x04", r"ends in \.zip"),
        (b"%PDF-1.7", "ends in .pdf"),
        (b"Rar!", "extract it"),
        (b'<mediawiki xmlns="x">', "hf://wikimedia/wikipedia:20231101.en"),
    ],
)
def test_another_format_under_the_name_of_text_is_named(tmp_path, head, fix):
    packed = gzip.compress(head)
    for name, content in (
        ("a.txt", head + b" more"),
        ("a.jsonl.gz", packed),
        ("a.xml.gz", packed),  # no name of text: what it holds says more
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=fix):
            read(tmp_path / name)


KINDS = [
    *(pa.string(), pa.large_string(), pa.string_view()),
    *(pa.binary(), pa.large_binary(), pa.binary_view()),
    pa.dictionary(pa.int32(), pa.string()),
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("form", ["parquet", "arrow", "arrow stream"])
def test_tables_give_strings_of_every_kind(tmp_path, kind, form):
    table = pa.table({"id": range(4), "text": pa.array([*TEXTS, None]).cast(kind)})
    path = tmp_path / f"a.{form.split()[0]}"
    if form == "parquet":
        pq.write_table(table, path)
    else:
        new = pa.ipc.new_stream if "stream" in form else pa.ipc.new_file
        with new(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    *good, null = read(path)
    assert [(document.text, document.line) for document in good] == [
        (text, number) for number, text in enumerate(TEXTS, 1)
    ]
    assert (null.line, null.reason) == (4, "field 'text' holds a null, no text")


def test_a_file_of_an_unknown_kind_is_told_the_flag_that_reads_it(tmp_path):
    for name, suffix in (("a.py", "py"), ("a.log.bz2", "log"), ("notes", "none")):
        (tmp_path / name).write_bytes(b"plain text")
        with pytest.raises(DataError, match=rf"{name}: unknown .*: --text-suffixes {suffix}$"):
            read(tmp_path / name)


READ = """
import resource, sys
from jielong.data.sources.documents import Document, expand_sources, read_documents
import pyarrow.parquet
path, truncated = sys.argv[1], len(sys.argv) > 2
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before, count = peak(), 0
try:
    for item in read_documents(expand_sources([path]), "text"):
        count += isinstance(item, Document)
        if truncated and count == 1:
            open(path, "r+b").truncate(5000)
except Exception as error:
    print(type(error).__name__, error, file=sys.stderr)
print(count, peak() - before)
"""


def read_apart(*words):
    """The documents that another process reads of a file, the MiB it grows by, and what it says."""
    command = [sys.executable, "-c", READ, *map(str, words)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return (*map(int, done.stdout.split()), done.stderr)


@pytest.mark.parametrize("form", ["parquet", "repeated parquet", "arrow"])
def test_23_long_texts_of_a_table_take_bounded_memory(tmp_path, form):
    path = tmp_path / f"a.{form.split()[-1]}"
    texts = [f"{number} {'word ' * 400_000}" for number in range(1 if "repeated" in form else 8)]
    rows = [texts[number % len(texts)] for number in range(200)]  # 2 MB each
    if form == "arrow":
        schema = pa.schema({"image": pa.string(), "text": pa.string()})
        with pa.ipc.new_file(str(path), schema) as writer:
            for start in range(0, 200, 40):
                few = pa.table({"image": rows[start : start + 40], "text": ["a text"] * 40})
                writer.write_table(few)
    else:
        pq.write_table(pa.table({"text": rows}), path, compression="zstd", row_group_size=200)
    count, grown_mib, _ = read_apart(path)
    assert count == 200 and grown_mib < 150


def test_27_a_parquet_file_cut_short_while_it_is_read_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "a.parquet"
    noise = random.Random(0)
    rows = ["".join(noise.choices("abcdefgh ", k=2000)) for _ in range(3000)]
    pq.write_table(pa.table({"text": rows}), path, row_group_size=500, use_dictionary=False)
    count, _, said = read_apart(path, "truncated")
    assert 1 <= count < 3000
    assert f"{path}: cannot be read: File too short" in said


def test_23_a_parquet_file_that_says_it_grows_without_measure_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(containers, "FREE_BYTES", 2**20)
    path = tmp_path / "a.parquet"
    table = pa.table({"text": ["word " * 2_000_000]})
    pq.write_table(table, path, compression="zstd", use_dictionary=False, write_statistics=False)
    with pytest.raises(DataError, match=r"a\.parquet: grows to more than 2,000 times its size"):
        read(path)


@pytest.mark.parametrize("form", ["file", "stream"])
@pytest.mark.parametrize("where", ["text", "dictionary", "other"])
@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_23_an_arrow_bomb_is_refused_before_it_grows(
    tmp_path, monkeypatch, form, where, compression
):
    monkeypatch.setattr(containers, "FREE_BYTES", 2**10)
    monkeypatch.setattr(containers, "GROWTH", 10)
    long = pa.array(["word " * 200_000])
    columns = {"text": pa.array(["short"])}
    columns["text" if where == "text" else "b"] = long
    if where == "dictionary":
        columns["text"] = long.dictionary_encode()
    table, path = pa.table(columns), tmp_path / "a.arrow"
    new = pa.ipc.new_stream if form == "stream" else pa.ipc.new_file
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with new(str(path), table.schema, options=options) as writer:
        writer.write_table(table)
    allocated = pa.total_allocated_bytes()
    with pytest.raises(DataError, match=r"a\.arrow: grows to more than 10 times its size"):
        read(path)
    assert pa.total_allocated_bytes() - allocated < 10**5


@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
def test_arrow_says_what_its_batches_grow_to(tmp_path, compression):
    rows = {"text": ["a" * 1000] * 100, "kind": pa.array(["x", "y"] * 50).dictionary_encode()}
    table, path = pa.table(rows), tmp_path / "a.arrow"
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(str(path), table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=40)
    sizes: list[int] = []
    with pa.OSFile(str(path)) as file:
        again = CheckedMessages(file, sizes.append)
        assert pa.ipc.open_stream(again).read_all() == table
    dictionary, *sizes = sizes
    assert 10 <= dictionary <= 64  # two words, two offsets
    assert [round(size / 40_000, 1) for size in sizes] == [1.0, 1.0, 0.5]


@pytest.mark.parametrize("form", ["file", "stream"])
def test_an_arrow_file_is_read_once(tmp_path, form):
    class Counting(io.BytesIO):
        mode, count = "rb", 0

        def read(self, size=-1):
            self.count += len(data := super().read(size))
            return data

    class Remote:
        def open(self, mode="rb"):
            files.append(Counting(content.getvalue()))
            return files[-1]

        def stat(self):
            return os.stat_result((len(content.getvalue()),) * 10)

    rows = [f"text {number}" * 20 for number in range(2000)]
    content, files = io.BytesIO(), []
    table = pa.table({"n": range(2000), "text": pa.array(rows).dictionary_encode()})
    new = pa.ipc.new_stream if form == "stream" else pa.ipc.new_file
    with new(content, table.schema) as writer:
        writer.write_table(table, max_chunksize=300)
    assert [item.text for item in read_table(Remote(), "a.arrow", "arrow", "text")] == rows
    assert sum(file.count for file in files) < 1.1 * len(content.getvalue())


def test_only_the_columns_of_the_text_are_needed_of_a_table(tmp_path):
    rows = {"id": [1, 2], "text": ["one", "two"], "meta": [{"url": "a"}, {"url": "b"}]}
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    with pa.ipc.new_stream(str(tmp_path / "b.arrow"), pa.table(rows).schema) as writer:
        writer.write_table(pa.table(rows))
    assert texts(tmp_path) == ["one", "two", "one", "two"]
    asked = RowText(template="{id} {text} {meta.url}")
    for name in ("a.parquet", "b.arrow"):
        items = read_documents(expand_sources([str(tmp_path / name)]), asked)
        assert [item.text for item in items] == ["1 one a", "2 two b"]


def test_bytes_in_a_table_that_are_not_utf8_are_counted(tmp_path):
    pq.write_table(pa.table({"text": [b"good", b"\xff\xfe\x00", b"fine"]}), tmp_path / "a.parquet")
    first, bad, last = read(tmp_path / "a.parquet")
    assert (first.text, last.text) == ("good", "fine")
    assert isinstance(bad, BadLine)
    assert (bad.kind, bad.line, bad.size) == ("not UTF-8", 2, 3)


def test_an_arrow_file_that_is_none_is_an_error(tmp_path):
    for content in (b"ARROW1 nothing", b"nothing at all", b""):
        (tmp_path / "a.arrow").write_bytes(content)
        with pytest.raises(DataError, match="not a readable Arrow file"):
            read(tmp_path / "a.arrow")


def test_one_unreadable_file_of_several_costs_itself_alone(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(JSONL)
    line = "第一章 春天来了，我们去公园散步吧。\n".encode("gbk")
    bad_files = {
        "b.txt": line,
        "c.txt.gz": gzip.compress(line * 5000),
        "d.jsonl.zst": zstandard.compress(JSONL * 99)[:50],
        "e.parquet": b"PAR1 nothing",
    }
    for name, content in bad_files.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "f.txt").write_text("the end")
    items = read(tmp_path)
    assert [i.text for i in items if isinstance(i, Document)] == [*TEXTS, "the end"]
    bad = [i for i in items if isinstance(i, BadLine)]
    assert [i.source for i in bad] == [str(tmp_path / name) for name in bad_files]
    sizes = [i.size for i in bad]
    assert sizes[:2] == [len(line), len(line) * 5000]  # of what a compressed file holds
    assert {i.kind for i in bad} == {"unreadable file"} and all(sizes)


@pytest.mark.parametrize("form", [pa.ipc.new_stream, pa.ipc.new_file])
def test_a_damaged_arrow_file_is_refused_or_read_and_never_ends_the_process(tmp_path, form):
    path = tmp_path / "a.arrow"
    table = pa.table({"text": [f"text {i}" for i in range(20)]})
    with form(str(path), table.schema) as writer:
        writer.write_table(table)
    whole = path.read_bytes()
    outcomes = set()
    for start in range(0, len(whole) - 4, 4):
        path.write_bytes(whole[:start] + b"\xff\xff\xff\x7f" + whole[start + 4 :])
        try:
            outcomes.add(len(read(path)) <= 20)
        except DataError as error:
            outcomes.add(str(path) in str(error))
    assert outcomes == {True}
