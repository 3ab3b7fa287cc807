"""JSON as people and Python write it: each text that is plainly there; a bad row by its line."""

import gzip
import io
import json

import pytest

from jielong.data.sources import json_rows
from jielong.data.sources.documents import (
    BadLine,
    Document,
    Remark,
    expand_sources,
    read_documents,
)

ROWS = [{"text": f"text {i}\nof 2 lines, {{[,", "of": {"a": [1, {"text": "no"}]}} for i in range(5)]
TEXTS = [row["text"] for row in ROWS]


def read(content, limit=2**28):
    content = content if isinstance(content, bytes) else content.encode()
    return list(json_rows.read_json(io.BufferedReader(io.BytesIO(content)), "a", "text", limit))


def texts(items):
    items = list(items)
    assert all(isinstance(item, Document) for item in items), items
    return [item.text for item in items]


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 400])
def test_numbers_that_only_python_reads_cost_no_text(value):
    assert texts(read(f'{{"text": "a", "score": {value}}}\n{{"text": "b"}}\n')) == ["a", "b"]


def test_a_lone_surrogate_in_another_field_costs_no_text():
    assert texts(read('{"text": "a", "title": "\\ud83d"}')) == ["a"]


def test_a_raw_tab_in_a_string_is_read():
    assert texts(read('{"text": "a\tb"}')) == ["a\tb"]


def test_lines_that_are_strings_are_the_texts():
    assert texts(read('"one"\n"zwei"\n\n"三"\n')) == ["one", "zwei", "三"]


@pytest.mark.parametrize(
    "content",
    [
        "\n".join(json.dumps(row, indent=2) for row in ROWS),
        "\n".join(json.dumps(row, indent="\t", ensure_ascii=False) for row in ROWS) + "\n",
        "\n\n".join(json.dumps(row, indent=0) for row in ROWS).replace("\n", "\r\n"),
        json.dumps(ROWS),
        json.dumps(ROWS, indent=4),
        " \n[\n" + ",\n".join(map(json.dumps, ROWS)) + "\n]\n",
        ",\n".join(map(json.dumps, ROWS)) + ",\n",
        json.dumps(TEXTS),
    ],
)
def test_objects_of_several_lines_and_arrays_are_read(content, monkeypatch):
    assert texts(read(content)) == TEXTS
    for chunk in (1, 7, 100):  # wherever what is read at once ends
        monkeypatch.setattr(json_rows, "CHUNK_BYTES", chunk)
        assert texts(read(content)) == TEXTS


def test_objects_of_several_lines_know_where_they_begin_and_how_long_they_are():
    items = read("\n".join(json.dumps(row, indent=1) for row in ROWS))
    lines, size = len(json.dumps(ROWS[0], indent=1).split("\n")), len(json.dumps(ROWS[0], indent=1))
    assert [(item.line, item.size) for item in items] == [(1 + i * lines, size) for i in range(5)]


def test_a_damaged_object_among_them_costs_itself_alone(monkeypatch):
    content = json.dumps(ROWS, indent=2)
    start, stop = content.index('"text 1'), content.index('"text 2')
    content = content[:start] + content[start:stop].replace('",\n', '"\n', 1) + content[stop:]
    for chunk in (2**20, 1, 50):
        monkeypatch.setattr(json_rows, "CHUNK_BYTES", chunk)
        items = read(content)
        (bad,) = (item for item in items if isinstance(item, BadLine))
        assert texts([item for item in items if item != bad]) == [TEXTS[0], *TEXTS[2:]]
        assert (bad.kind, "invalid JSON" in bad.reason) == ("not JSON", True)
        assert abs(bad.size - len(json.dumps(ROWS, indent=2)) / 5) < 10


def test_an_array_cut_short_is_noticed():
    *whole, part, end = read(json.dumps(ROWS)[:-40])
    assert texts(whole) == TEXTS[:4]
    assert "invalid JSON" in part.reason and part.size > 0
    assert "cut short" in end.reason
    assert "cut short" in read(json.dumps(ROWS).removesuffix("]"))[-1].reason


def test_text_after_an_array_is_not_dropped_unnoticed():
    first, rest = read(json.dumps(ROWS[:1]) + '\n{"text": "more"}\n')
    assert first.text == TEXTS[0]
    assert (rest.line, rest.size) == (2, len('{"text": "more"}\n'))


def test_lists_one_a_line_are_no_array_of_texts():
    items = read('["a", "b"]\n["c"]\n')
    told = "holds a list, not an object: jq -c '.[]' FILE > corpus.jsonl"
    assert [item.reason for item in items] == [told] * 2


def test_an_element_beyond_the_limit_is_left_out_and_counted():
    rows = [{"text": "short"}, {"text": "x" * 3 * 2**20}, {"text": "after"}]
    first, long, last = read(json.dumps(rows, indent=1), limit=2**20)
    assert (first.text, last.text) == ("short", "after")
    assert long.kind == "too long" and long.size > 3 * 2**20


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.txt.gz"])
@pytest.mark.parametrize("form", ["lines", "array", "indented"])
def test_json_under_the_name_of_a_text_is_read_as_json_and_said(tmp_path, name, form):
    content = {
        "lines": "".join(json.dumps(row) + "\n" for row in ROWS),
        "array": json.dumps(ROWS),
        "indented": "\n".join(json.dumps(row, indent=2) for row in ROWS),
    }[form].encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    remark, *items = read_documents(expand_sources([str(path)]), "text")
    assert remark == Remark(str(path), "read as JSON, which it holds")
    assert texts(items) == TEXTS


@pytest.mark.parametrize("text", ['{Enter Hamlet} "Who": he', "[[Link]] {{cite}}", '["x" he said'])
def test_prose_that_begins_with_a_bracket_stays_prose(tmp_path, text):
    (tmp_path / "a.txt").write_text(text)
    assert texts(read_documents(expand_sources([str(tmp_path / "a.txt")]), "text")) == [text]
