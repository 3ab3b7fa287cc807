"""Text cleaned by the workers of a Ray that is started here: what is left and listed is equal."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import jielong
from cleaned_texts import edited, prose
from jielong.cleaning import duplicates, pairs
from jielong.data.sources import parts
from jielong.errors import DataError
from tiny import environment, full_disk
from workers_of_ray import assert_told_alike, content, one_killed

pytest.importorskip("ray")
pytest.importorskip("rensa")

ALL: dict[str, Any] = {
    "filters": ("default", "personal", "quality", "repetition", "web", "lines"),
    "max_chars": 1500,
    "line_documents": 20,
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A large file and small ones, with copies in each other, and with what has to be left out."""
    folder = tmp_path_factory.mktemp("corpus")
    draw = random.Random(0)
    texts = [prose(number, draw.randrange(60, 400)) for number in range(900)]
    texts += [edited(text, 1 + draw.randrange(8), draw.randrange(99)) for text in texts[:300] * 2]
    texts += draw.choices(texts, k=200)
    texts += [f"a menu that is on every page\n{text}" for text in draw.choices(texts, k=200)]
    texts += ["too short", "write to someone@example.org, " + prose(1001)]
    draw.shuffle(texts)
    rows = [json.dumps({"text": text}) for text in texts]
    rows[500], rows[1500] = "no json", '{"body": "no text"}'
    (folder / "large.jsonl").write_text("\n".join(rows))
    for number in range(5):
        (folder / f"small {number}.txt").write_text(texts[number] + "\n")
    return folder


def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the file read in several ranges, and keys, pairs and groups in many tasks."""
    monkeypatch.setattr(parts, "LEAST_BYTES", 2**18)
    monkeypatch.setattr(pairs, "PART_ROWS", 500)
    monkeypatch.setattr(pairs, "SORTED_TEXTS", 300)
    monkeypatch.setattr(duplicates, "BATCH_TEXTS", 50)


def test_what_is_left_and_listed_is_that_of_the_local_engine(
    cluster: None, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = jielong.clean(corpus, tmp_path / "local", **ALL)
    small_parts(monkeypatch)
    jielong.clean(corpus, tmp_path / "ray", engine="ray", **ALL)
    assert content(tmp_path / "ray") == content(tmp_path / "local")
    for name in ("exact", "near", "length"):
        assert local.accounts[name].dropped, name
    assert local.accounts["lines"].changed and local.accounts["personal"].changed
    listed = (tmp_path / "ray" / "dropped" / "bad-lines.jsonl").read_text().splitlines()
    assert [json.loads(line)["line"] for line in listed] == [501, 1501]
    assert jielong.clean(corpus, tmp_path / "ray", **ALL).reused


def test_what_filters_need_goes_to_the_workers(
    cluster: None, tmp_path: Path, tokenizer_dir: Path
) -> None:
    english = "This is the house that stands by the river, and nobody has lived in it since. "
    german = "Das ist das Haus, das am Fluss steht, und niemand hat seitdem darin gewohnt. "
    test = "which of these nine words of a question are also in the text that is learnt from"
    rows = [english * 2, german * 2, f"{english} {test}", english * 30]
    (tmp_path / "corpus.jsonl").write_text("\n".join(json.dumps({"text": row}) for row in rows))
    (tmp_path / "test.jsonl").write_text(json.dumps({"text": test}))
    settings: dict[str, Any] = {"languages": "en", "against": str(tmp_path / "test.jsonl")}
    settings |= {"tokenizer": str(tokenizer_dir), "max_tokens": 500, "without": "near"}
    for engine in ("local", "ray"):
        report = jielong.clean(
            tmp_path / "corpus.jsonl", tmp_path / engine, engine=engine, **settings
        )
        dropped = {name: account.dropped for name, account in report.accounts.items()}
        assert dropped == {"language": 1, "contamination": 1, "exact": 0, "length": 1}
    assert content(tmp_path / "ray") == content(tmp_path / "local")


@pytest.mark.parametrize("task", ["_judge_part", "_decide"])
def test_a_worker_that_is_killed_is_replaced(
    task: str, cluster: None, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jielong.clean(corpus, tmp_path / "local")
    monkeypatch.setattr(parts, "LEAST_BYTES", 2**18)
    with one_killed(task) as killed:
        jielong.clean(corpus, tmp_path / "ray", engine="ray")
    assert killed
    assert content(tmp_path / "ray") == content(tmp_path / "local")


def test_mistakes_are_told_as_by_the_local_engine(cluster: None, tmp_path: Path) -> None:
    (tmp_path / "binary.txt").write_bytes(b"\0\1\2" * 999)
    (tmp_path / "other.jsonl").write_text('{"body": "a"}\n' * 99)
    (tmp_path / "short.jsonl").write_text('{"text": "a"}\n' * 9)
    for name in ("binary.txt", "other.jsonl", "short.jsonl"):
        words = ["clean", "--data-path", str(tmp_path / name), "--min-chars", "9"]
        assert_told_alike(words, tmp_path / "out")
    with pytest.raises(DataError, match="standard input: cannot be read by Ray's workers"):
        jielong.clean("-", tmp_path / "out", engine="ray")
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_an_error_and_leaves_nothing(
    cluster: None, corpus: Path, tmp_path: Path
) -> None:
    with full_disk(200_000), pytest.raises(DataError, match="cannot be written"):
        jielong.clean(corpus, tmp_path / "out", engine="ray")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:1", "Ray at 127.0.0.1:1 cannot be reached: Connection refused: is a cluster"),
        ("head", "ray_address='head' is neither HOST:PORT nor auto"),
    ],
)
def test_an_address_without_a_cluster_is_told_in_one_line(
    address: str, said: str, corpus: Path, tmp_path: Path
) -> None:
    words = ["--data-path", str(corpus), "--out-dir", str(tmp_path / "out"), "--engine", "ray"]
    command = [sys.executable, "-m", "jielong", "clean", *words, "--ray-address", address]
    env = environment(PYTHONPATH=os.pathsep.join(sys.path))  # not connected, as this process is
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {said}")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
