"""Text read and encoded by the workers of a Ray that is started here: the dataset is the same."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from faulty_server import file_server

from jielong.api import prepare, prepare_mixture, train_tokenizer
from jielong.data.sources import parts
from jielong.errors import DataError
from jielong.runtime import ray_tasks
from workers_of_ray import assert_told_alike, content, one_killed

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some megabytes in one large file and several small ones, with what has to be left out."""
    folder = tmp_path_factory.mktemp("corpus")
    rows = [
        json.dumps({"text": f"story {i}: " + "床前明月光 word " * (i % 60)}) for i in range(24_000)
    ]
    rows[5000] = "no json"
    rows[20_000] = '{"body": "no text"}'
    (folder / "large.jsonl").write_text("\n".join(rows))
    for number in range(5):
        (folder / f"small {number}.txt").write_text(f"a story, the {number}th of some\n" * 200)
    return folder


def test_workers_give_the_same_dataset_and_one_that_is_killed_is_replaced(
    cluster: None,
    corpus: Path,
    tokenizer_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parts, "LEAST_BYTES", 2**20)
    prepare(corpus, tokenizer_dir, tmp_path / "local")
    with one_killed("_encode_part") as killed:
        prepare(corpus, tokenizer_dir, tmp_path / "ray", engine="ray")
    assert killed
    assert content(tmp_path / "ray") == content(tmp_path / "local")
    left_out = [json.loads(line) for line in (tmp_path / "ray" / "bad-lines.jsonl").open()]
    assert [row["line"] for row in left_out] == [5001, 20_001]


def test_29_a_worker_that_hangs_is_told_and_replaced(
    cluster: None,
    corpus: Path,
    tokenizer_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(parts, "LEAST_BYTES", 2**20)
    monkeypatch.setattr(ray_tasks, "SILENT_S", 0.5)
    monkeypatch.setattr(ray_tasks, "HUNG_S", 2)
    prepare(corpus, tokenizer_dir, tmp_path / "local")
    with one_killed("_encode_part", signal.SIGSTOP) as killed:
        prepare(corpus, tokenizer_dir, tmp_path / "ray", engine="ray")
    assert killed
    said = capsys.readouterr().err
    assert "Ray: no result for 2 s: other work may have the" in said
    assert "it is ended and given to another worker" in said
    assert content(tmp_path / "ray") == content(tmp_path / "local")


def test_the_tokenizer_is_that_of_the_local_engine(
    cluster: None, corpus: Path, tmp_path: Path
) -> None:
    made = {}
    for engine in ("local", "ray"):
        said: list[str] = []
        settings = {"vocab_size": 400, "tokenizer_sample_bytes": 200_000}
        tokenizer = train_tokenizer(corpus, tmp_path / engine, said.append, engine, **settings)
        made[engine] = tokenizer.fingerprint, said
    assert made["ray"] == made["local"]


def test_mistakes_are_told_as_by_the_local_engine(
    cluster: None, tokenizer_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "binary.txt").write_bytes(b"\0\1\2" * 999)
    (tmp_path / "other.jsonl").write_text('{"body": "a"}\n' * 99)
    for name in ("binary.txt", "other.jsonl"):
        words = ["prepare", "--data-path", str(tmp_path / name), "--tokenizer", str(tokenizer_dir)]
        assert_told_alike(words, tmp_path / "out")
    with pytest.raises(DataError, match="standard input: cannot be read by Ray's workers"):
        prepare("-", tokenizer_dir, tmp_path / "out", engine="ray")


def test_a_mixture_is_that_of_the_local_engine(
    cluster: None, corpus: Path, tokenizer_dir: Path, tmp_path: Path
) -> None:
    mixture = [f"large=0.7:{corpus / 'large.jsonl'}", f"small=0.3:{corpus / 'small 0.txt'}"]
    made: dict[str, object] = {}
    for engine in ("local", "ray"):
        said: list[str] = []
        out = tmp_path / engine
        settings = {"mixture": mixture, "vocab_size": 400, "tokenizer_sample_bytes": 100_000}
        tokenizer = train_tokenizer(None, out / "tokenizer", said.append, engine, **settings)
        prepare_mixture(mixture, tokenizer_dir, out / "datasets", said.append, engine)
        told = [line for line in said if "MB/s" not in line]  # how far it is, on a slow machine
        made[engine] = tokenizer.fingerprint, told, content(out / "datasets")
    assert made["ray"] == made["local"]


def test_remote_text_is_read_as_by_the_local_engine(
    cluster: None, corpus: Path, tokenizer_dir: Path, tmp_path: Path
) -> None:
    with file_server() as web:
        for path in corpus.iterdir():
            web.files[f"/{path.name.replace(' ', '-')}"] = path.read_bytes()
        addresses = [f"{web.address}{path}" for path in sorted(web.files)]
        for engine in ("local", "ray"):
            prepare(addresses, tokenizer_dir, tmp_path / engine, engine=engine)
        with pytest.raises(DataError, match=r"gone\.jsonl: no such file or folder"):
            prepare(f"{web.address}/gone.jsonl", tokenizer_dir, tmp_path / "gone", engine="ray")
    assert content(tmp_path / "ray") == content(tmp_path / "local")
