"""A text that is read in parts is the text that is read in one go."""

from __future__ import annotations

import dataclasses
import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jielong.config.settings import Config
from jielong.data.prepare import encoding
from jielong.data.prepare.prepare import prepare
from jielong.data.prepare.small_split import LONGEST_WHOLE, SMALL_TOKENS
from jielong.data.sources.documents import Source, expand_sources, read_documents, reading_of
from jielong.data.sources.items import Document, Item
from jielong.data.sources.parts import Part, PartReader, PartsInOrder, split_sources
from jielong.data.sources.row_text import RowText
from jielong.data.sources.text_units import Splitting
from jielong.errors import DataError
from jielong.tokenization.chat import Chat
from jielong.tokenization.text_pieces import KEYS, sample, sample_key, sample_numbered
from jielong.tokenization.tokenizer import Tokenizer

RANGE = 2**16


def in_parts(
    sources: list[Source], texts: str | RowText, part_bytes: int = RANGE, splitting: str = "auto"
) -> tuple[list[Item], list[Part]]:
    """The items of the parts, put together in this process, and the parts."""
    reading = reading_of(sources, texts, None, Splitting(separator=splitting))
    order, items, parts = PartsInOrder(reading), [], []
    for part in split_sources(sources, reading, part_bytes):
        if order.is_vain(part):
            continue
        parts.append(part)
        for is_sure in (False, True):
            reader = PartReader(part, reading, len(sources) == 1, is_sure)
            read = list(reader.items())
            if not (reader.end.failed and order.is_sure):
                break
        items += [
            dataclasses.replace(i, line=i.line + order.lines_before)
            if isinstance(i, Document)
            else order.placed(i)
            for i in read
        ]
        items += order.end(part, reader.end)
    return items, parts


def in_one_go(sources: list[Source], texts: str | RowText, splitting: str = "auto") -> list[Item]:
    return list(read_documents(sources, texts, None, Splitting(separator=splitting)))


def rows(count: int, longest: int, seed: int, words: str = "床前明月光 word") -> list[bytes]:
    draw = random.Random(seed)
    texts = ("".join(draw.choices(words, k=draw.randrange(1, longest))) for _ in range(count))
    return [json.dumps({"text": text}, ensure_ascii=draw.random() < 0.5).encode() for text in texts]


def test_ranges_of_lines_are_cut_at_any_byte(tmp_path: Path) -> None:
    lines = rows(4000, 300, seed=0)
    lines[7] = b'{"text": "%s"}' % (b"long " * 60_000)  # over several ranges
    lines[50:50] = [
        b"",
        b"  ",
        b"no json",
        b'{"text": "caf\xe9"}',
        b'{"text": ""}',
        b'{"body": "x"}',
    ]
    lines[-30:-30] = [b"[1]", b"", b'{"text": "\xff\xfe"}']
    for ending in (b"", b"\n", b"\r\n"):
        path = tmp_path / "a.jsonl"
        path.write_bytes(b"\n".join(lines) + ending)
        sources = expand_sources([str(path)])
        read, parts = in_parts(sources, "text")
        assert len(parts) > 10
        assert read == in_one_go(sources, "text")


def test_a_line_that_begins_where_a_range_does(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    first = b'{"text": "%s"}\n' % (b"a" * (RANGE - 13))
    assert len(first) == RANGE
    path.write_bytes(first * 5 + b'{"text": 1}\n')
    sources = expand_sources([str(path)])
    read, parts = in_parts(sources, "text")
    assert len(parts) == 6
    assert read == in_one_go(sources, "text")
    assert read[-1].line == 6


def test_small_files_are_read_together_and_in_order(tmp_path: Path) -> None:
    for number in range(30):
        path = tmp_path / f"{number:03}.jsonl"
        path.write_bytes(b"\n".join(rows(50, 200, seed=number)))
    (tmp_path / "031.txt").write_text("a story\n" * 20_000)
    (tmp_path / "032.jsonl").write_bytes(b"\n".join(rows(3000, 200, seed=99)))
    (tmp_path / "033.jsonl").write_bytes(b"\n".join(rows(3, 200, seed=98)))
    (tmp_path / "034.jsonl").write_bytes(b"\xff\xfe\x00binary\x00" * 99)
    (tmp_path / "035.jsonl.gz").write_bytes(gzip.compress(b"\n".join(rows(9000, 200, seed=97))))
    sources = expand_sources([str(tmp_path)])
    read, parts = in_parts(sources, "text")
    assert 3 < len({part.sources for part in parts}) < len(sources)
    assert read == in_one_go(sources, "text")


def test_what_is_damage_in_utf8_is_so_in_each_range(tmp_path: Path) -> None:
    """A range that is mostly damaged looks like another encoding, unless it is known to be none."""
    chinese = "春眠不觉晓".encode("gb18030")
    damaged = b'{"text": "%s"}\n' % (chinese * 40)
    plain = b'{"text": "%s"}\n' % (b"plain ascii " * 20)
    utf8 = '{"text": "床前明月光"}\n'.encode()
    for name, lines in {
        "known.jsonl": [utf8, *[plain] * 1500, *[damaged] * 600, *[plain] * 900],
        "other.jsonl": [*[plain] * 1400, *[damaged] * 600, *[plain] * 900],
    }.items():
        path = tmp_path / name
        path.write_bytes(b"".join(lines))
        beside = tmp_path / "beside.txt"
        beside.write_text("beside it")
        sources = expand_sources([str(path), str(beside)])
        read, parts = in_parts(sources, "text")
        assert len(parts) > 4
        assert read == in_one_go(sources, "text")
        if name == "other.jsonl":
            with pytest.raises(DataError, match="not UTF-8 but probably gb18030") as one:
                in_one_go(sources[:1], "text")
            with pytest.raises(DataError) as several:
                in_parts(sources[:1], "text")
            assert str(several.value) == str(one.value)
    assert len([item for item in read if isinstance(item, Document)]) < 2500


@pytest.mark.parametrize("start", [b"\xef\xbb\xbf", b"[", b'{\n"text": "a"}\n'])
def test_files_of_which_only_the_beginning_tells_are_read_whole(
    tmp_path: Path, start: bytes
) -> None:
    path = tmp_path / "a.jsonl"
    separator = b",\n" if start == b"[" else b"\n"
    path.write_bytes(start + separator.join(rows(3000, 200, seed=1)))
    sources = expand_sources([str(path)])
    read, parts = in_parts(sources, "text")
    assert len(parts) == 1
    assert read == in_one_go(sources, "text")


def test_row_groups_conversations_and_separators(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "how?"}, {"role": "assistant", "content": "so " * 40}]
    lines = [json.dumps({"text": turns if i % 700 == 0 else f"a{i}|b"}) for i in range(9000)]
    (tmp_path / "chat.jsonl").write_text("\n".join(lines))
    table = pa.table({"text": [f"row {i} | {'x' * 90}" if i % 9 else None for i in range(9000)]})
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=700, compression="none")
    sources = expand_sources([str(tmp_path)])
    texts = RowText("text", None, Chat(None))
    read, parts = in_parts(sources, texts, splitting="|")
    assert sum(part.sources[0].kind == "parquet" for part in parts) > 3
    assert read == in_one_go(sources, texts, splitting="|")
    assert [item for item in read if "read as plain turns" in getattr(item, "text", "")]


def test_a_dataset_does_not_depend_on_where_batches_end(
    tmp_path: Path,
    corpus: Callable[..., Path],
    config_of: Callable[..., Config],
    tokenizer: Tokenizer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    draw = random.Random(0)
    texts = [f"{i} " + "床前 " * draw.randrange(2000) for i in range(700)]
    for at in (3, 60, 61, 400):
        texts[at] = f"{at} " + "long " * LONGEST_WHOLE
    texts[100:100] = ["no json", "", "zz"]
    path = corpus([t if t != "no json" else b"no json" for t in texts])
    config = config_of(path)
    manifests = []
    for number, chars in enumerate((2**20, 2**12, 2**22)):
        monkeypatch.setattr(encoding, "BATCH_CHARS", chars)
        out = tmp_path / f"out{number}"
        assert prepare(config, tokenizer, out).tokens > SMALL_TOKENS
        manifests.append((out / "dataset.json").read_text() + (out / "bad-lines.jsonl").read_text())
    assert manifests[0] == manifests[1] == manifests[2]


def test_the_sample_of_a_tokenizer_can_be_drawn_from_those_below_a_bound() -> None:
    draw = random.Random(0)
    pieces = ["x" * draw.randrange(1, 3000) for _ in range(3000)]
    for size in (1, 2000, 10**5, 10**6, 10**9):
        whole = sample(iter(pieces), size)
        bound = KEYS
        while bound > 1:
            below = ((n, piece) for n, piece in enumerate(pieces) if sample_key(n) < bound)
            found, last = sample_numbered(below, size, bound)
            if last == bound and bound != KEYS:
                break
            assert found == whole
            bound //= 2
        assert bound < KEYS or size == 10**9
