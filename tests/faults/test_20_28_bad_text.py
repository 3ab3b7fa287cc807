"""Rows 20 to 25: text that is broken, huge, empty or hostile, end to end through `jielong prepare`.

Each reader's own cases: tests/data/test_sources.py; killed while it prepares (row 28) and a full
disk: tests/data/test_prepare.py; ids beyond the storage type (row 26): tests/data/test_shards.py.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bad_lines import BAD
from jielong.cli.main import main
from jielong.config.load import load_config
from jielong.data.prepare.prepare import prepare
from jielong.data.shards import open_dataset
from jielong.errors import DataError
from jielong.tokenization.tokenizer import Tokenizer
from tiny import TEXTS, TINY_RUN, environment, flags


def dataset_of(lines: list[bytes], folder: Path, tokenizer: Tokenizer, **values: Any) -> Path:
    folder.mkdir()
    (folder / "corpus.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    config = load_config(data_path=(str(folder / "corpus.jsonl"),), **values)
    prepare(config, tokenizer, folder / "data")
    return folder / "data"


def test_20_to_22_bad_lines_are_listed_by_file_and_line_and_good_tokens_unchanged(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    good = [json.dumps({"text": text}).encode() for text in [*TEXTS, "NUL \x00 stays"]]
    mixed = [x for i, line in enumerate(good) for x in (line, *BAD[i : i + 1])]
    clean = dataset_of(good, tmp_path / "clean", tokenizer)
    dirty = dataset_of(mixed, tmp_path / "dirty", tokenizer, allow_loss=True)
    assert open_dataset(clean).fingerprint == open_dataset(dirty).fingerprint
    listed = [json.loads(line) for line in (dirty / "bad-lines.jsonl").open()]
    assert [row["line"] for row in listed] == [2 * i + 2 for i in range(len(BAD))]
    assert {row["file"] for row in listed} == {str(dirty.parent / "corpus.jsonl")}
    assert all(row["reason"] and len(row["reason"]) < 300 for row in listed)


@pytest.mark.parametrize("lines", [[], [b""], [b'{"text": ""}'], BAD])
def test_22_a_corpus_of_nothing_usable_is_an_error_and_leaves_nothing(
    lines: list[bytes], tmp_path: Path, tokenizer: Tokenizer
) -> None:
    with pytest.raises(DataError, match="no usable text"):
        dataset_of(lines, tmp_path / "run", tokenizer)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["corpus.jsonl"]


SHORT = b'{"text": "before"}\n{"text": "after"}\n'
PREPARE = """
import resource, sys
from jielong.config.load import load_config
from jielong.data.prepare.prepare import prepare
from jielong.tokenization.tokenizer import Tokenizer
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
tokenizer = Tokenizer.load(sys.argv[2])
before = peak()
config = load_config(data_path=(sys.argv[1],), allow_loss=True)
report = prepare(config, tokenizer, sys.argv[3])
lost = report.left_out["data"].lost_bytes
print(report.documents, report.bad_lines, lost, peak() - before)
"""


def test_23_a_line_of_300_mb_takes_bounded_memory_and_is_counted_in_bytes(
    tmp_path: Path, tokenizer_dir: Path
) -> None:
    path = tmp_path / "corpus.jsonl"
    with path.open("wb") as file:
        file.write(b'{"text": "before"}\n{"text": "')
        for _ in range(256):
            file.write(b"word " * 2**18)
        file.write(b'"}\n{"text": "after"}\n')
    done = subprocess.run(
        [sys.executable, "-c", PREPARE, str(path), str(tokenizer_dir), str(tmp_path / "data")],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    documents, bad, lost, grown_mib = map(int, done.stdout.split())
    assert (documents, bad, lost) == (2, 1, path.stat().st_size - len(SHORT))
    assert grown_mib < 400  # a line is held up to 256 MiB
    (row,) = map(json.loads, (tmp_path / "data" / "bad-lines.jsonl").open())
    assert row["line"] == 2 and "longer than" in row["reason"]


def test_24_parquet_whose_columns_drift_names_file_column_and_what_there_is(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    pq.write_table(pa.table({"text": TEXTS}), tmp_path / "a.parquet")
    second = tmp_path / "b.parquet"
    config = load_config(data_path=(str(tmp_path),))
    for columns, message in (
        ({"content": TEXTS}, r"b\.parquet: no column 'text'; columns seen: content"),
        ({"text": [1, 2]}, r"b\.parquet: column 'text' holds int64, not strings"),
        ({"text": [["a"]]}, r"b\.parquet: column 'text' holds list"),
    ):
        pq.write_table(pa.table(columns), second)
        with pytest.raises(DataError, match=message):
            prepare(config.with_values(strict=True), tokenizer, tmp_path / "data")
        assert not (tmp_path / "data").exists()
        report = prepare(config.with_values(allow_loss=True), tokenizer, tmp_path / "data")
        assert report.documents == len(TEXTS)
        (warning,) = (line for line in report.lines() if "WARNING" in line)
        assert re.search(message, warning)
        shutil.rmtree(tmp_path / "data")
    pq.write_table(pa.table({"text": pa.array(["one", None])}), second)
    report = prepare(config, tokenizer, tmp_path / "data")
    assert (report.documents, report.bad_lines) == (len(TEXTS) + 1, 1)


def test_25_another_tokenizer_than_the_datasets_is_refused_with_both_hashes(
    tmp_path: Path, tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [json.dumps({"text": text}).encode() for text in TEXTS]
    data = dataset_of(lines, tmp_path / "made", tokenizer)
    other = tmp_path / "other"
    tokenizer.save(other)
    record = json.loads((other / "tokenizer.json").read_text())
    record["model"]["merges"][-1] = record["model"]["merges"][0]
    (other / "tokenizer.json").write_text(json.dumps(record))
    settings = TINY_RUN | {"data_path": data, "tokenizer": other, "out_dir": tmp_path / "run"}
    assert main(["pretrain", *flags(settings)]) == 2
    said = capsys.readouterr().err
    assert tokenizer.fingerprint[:12] in said and "Traceback" not in said
    assert Tokenizer.load(other).fingerprint[:12] in said


def test_one_token_documents_train(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Without marks a document of one token has nothing to predict; it must not stop a run."""
    bare = Tokenizer(tokenizer._backend, {}, {"bos": None, "eos": None, "pad": None})
    lines = [json.dumps({"text": letter}).encode() for letter in "abcdefgh" * 4]
    data = dataset_of(lines, tmp_path / "made", bare, validation_fraction=0.0)
    stream = open_dataset(data).train
    assert len(stream) == len(stream.documents) == 32
    assert (np.diff(stream.documents) == 1).all()
    settings = TINY_RUN | {"data_path": data, "steps": 3, "out_dir": tmp_path / "run"}
    status = main(["pretrain", *flags(settings | {"tokenizer": data / "tokenizer"})])
    assert status == 0
    records = map(json.loads, (tmp_path / "run" / "metrics.jsonl").open())
    losses = [r["loss"] for r in records if r["kind"] == "train"]
    assert losses == [None] * 3  # no target, so no mean
