"""Rows 20 to 24 and 28 through `jielong clean`: broken, huge and odd text; killed; a full disk."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import jielong
from bad_lines import BAD
from cleaned_texts import kept, prose, write_texts
from jielong.cleaning.report import CleanReport
from jielong.errors import DataError
from tiny import environment, full_disk, kill_when

pytest.importorskip("rensa")
ALL = ("default", "personal", "repetition", "lines")


def content(folder: Path) -> dict[str, bytes]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def clean_lines(folder: Path, lines: list[bytes], **settings: object) -> CleanReport:
    folder.mkdir()
    (folder / "corpus.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    return jielong.clean(folder / "corpus.jsonl", folder / "out", **settings)


def test_20_to_22_bad_lines_are_listed_and_good_texts_unchanged(tmp_path: Path) -> None:
    texts = [*(prose(number, 30) for number in range(20)), "NUL \x00 stays", "\u2028 and \x85 too"]
    good = [json.dumps({"text": text}).encode() for text in texts]
    mixed = [x for i, line in enumerate(good) for x in (line, *BAD[i : i + 1])]
    report = clean_lines(tmp_path / "dirty", mixed, filters=ALL, allow_loss=True)
    assert kept(report) == texts
    listed = (report.folder / "dropped" / "bad-lines.jsonl").read_text().splitlines()
    assert [json.loads(line)["line"] for line in listed] == [2 * i + 2 for i in range(len(BAD))]
    assert any("left out" in line and "bad-lines.jsonl" in line for line in report.lines())
    with pytest.raises(DataError, match=r"corpus\.jsonl:2: .*data\.strict"):
        clean_lines(tmp_path / "strict", mixed, strict=True)
    assert [path.name for path in (tmp_path / "strict").iterdir()] == ["corpus.jsonl"]


@pytest.mark.parametrize("lines", [[], [b""], [b'{"text": ""}'], BAD])
def test_22_nothing_usable_is_an_error_and_leaves_nothing(
    lines: list[bytes], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="no usable text"):
        clean_lines(tmp_path / "run", lines)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["corpus.jsonl"]


CLEAN = """
import resource, sys
import jielong
jielong.clean
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = peak()
report = jielong.clean(sys.argv[1], sys.argv[2], filters=sys.argv[3:], allow_loss=True)
print(report.kept_texts, report.left_out.lost_bytes, peak() - before)
"""


def test_23_a_line_of_300_mb_and_a_text_of_32_mb_take_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    with path.open("wb") as file:
        for millions in (300, 32):
            file.write(b'{"text": "')
            for number in range(millions // 4):
                file.write(b"word%04d and more " % number * (4 * 10**6 // 18))
            file.write(b'"}\n{"text": "after"}\n')
    command = [
        sys.executable,
        "-c",
        CLEAN,
        str(path),
        str(tmp_path / "out"),
        "default",
        "personal",
        "lines",
    ]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    texts, lost, grown_mib = map(int, done.stdout.split())
    assert texts == 2 and lost > 256 * 2**20
    assert (
        grown_mib < 1200
    )  # the longest line that is read, 256 MiB, and the text of one as it is changed


def test_24_parquet_whose_columns_drift_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [prose(1), prose(2)]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"content": ["x"]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"b\.parquet: no column 'text'; columns seen: content"):
        jielong.clean(tmp_path, tmp_path / "out", strict=True)
    report = jielong.clean(tmp_path, tmp_path / "out", allow_loss=True)
    assert report.kept_texts == 2
    assert any("WARNING" in line and "b.parquet" in line for line in report.lines())


def test_28_killed_at_any_moment_it_leaves_nothing_and_reruns_to_the_same_bytes(
    tmp_path: Path,
) -> None:
    write_texts(tmp_path, [prose(number % 700, 60) for number in range(1000)])
    jielong.clean(tmp_path / "corpus.jsonl", tmp_path / "whole", filters=ALL)
    partial = tmp_path / ".killed.partial" / "new"
    moments = [
        lambda: (partial / "scratch" / "texts").exists(),
        lambda: (partial / "dropped" / "near.jsonl").exists(),
        lambda: (partial / "cleaning.json").exists(),
    ]
    code = "import sys, jielong\njielong.clean(sys.argv[1], sys.argv[2], filters=sys.argv[3:])\n"
    words = [str(tmp_path / "corpus.jsonl"), str(tmp_path / "killed"), *ALL]
    for moment in moments:
        process = subprocess.Popen([sys.executable, "-c", code, *words], env=environment())
        kill_when(moment, process)
        if (tmp_path / "killed").exists():  # the kill came too late
            break
    jielong.clean(tmp_path / "corpus.jsonl", tmp_path / "killed", filters=ALL)
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("limit", [1000, 20_000, 45_000])
def test_a_full_disk_is_an_error_and_leaves_nothing(limit: int, tmp_path: Path) -> None:
    corpus = write_texts(tmp_path, [prose(number % 150, 60) for number in range(200)])
    with full_disk(limit), pytest.raises(DataError, match="cannot be written"):
        jielong.clean(corpus, tmp_path / "out", filters=ALL)
    assert [path.name for path in tmp_path.iterdir()] == ["corpus.jsonl"]
