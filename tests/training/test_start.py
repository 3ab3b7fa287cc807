"""What a run reads when it starts: each large file once, and only if it may have changed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from jielong.checkpoint import checkpoint as ckpt
from jielong.data import shards
from tiny import TINY_RUN, flags, in_this_process
from tokenizer_kinds import write_kind


@pytest.fixture
def words(corpus_file: Path, tokenizer_dir: Path) -> list[str]:
    settings = TINY_RUN | {"steps": 4, "eval_interval": 2}
    return ["pretrain", *flags(settings | {"data_path": corpus_file, "tokenizer": tokenizer_dir})]


def run(words: list[str], folder: Path, *more: str) -> tuple[int, str]:
    return in_this_process([*words, "--out-dir", str(folder), *more])


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the dataset's files whose SHA-256 is taken."""
    names: list[str] = []
    real = shards.sha256
    monkeypatch.setattr(shards, "sha256", lambda path: names.append(path.name) or real(path))
    return names


def test_a_dataset_is_read_to_compare_its_sums_only_where_a_file_may_have_changed(
    words: list[str], tmp_path: Path, hashed: list[str]
) -> None:
    run_folder = tmp_path / "run"
    assert run(words, run_folder)[0] == 0 and not hashed  # made just now
    data = run_folder / "data"
    every = sorted(json.loads((data / "dataset.json").read_text())["files"])
    assert run(words, run_folder)[0] == 0 and not hashed
    assert run(words, run_folder, "--verify")[0] == 0 and sorted(hashed) == every
    os.utime(data / "train-00000.bin")
    hashed.clear()
    assert run(words, run_folder)[0] == 0 and sorted(hashed) == every
    hashed.clear()
    assert run(words, run_folder)[0] == 0 and not hashed  # remembered again
    shutil.copytree(data, tmp_path / "copy", copy_function=shutil.copyfile)  # with new times
    copied = [*words[:1], *words[1:], "--data-path", str(tmp_path / "copy")]
    assert run(copied, tmp_path / "other")[0] == 0 and sorted(hashed) == every


def test_verify_finds_what_size_and_time_do_not_tell(words: list[str], tmp_path: Path) -> None:
    assert run(words, tmp_path)[0] == 0
    file = tmp_path / "data" / "train-00000.bin"
    times, whole = file.stat(), bytearray(file.read_bytes())
    whole[7] ^= 1
    file.write_bytes(whole)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    status, said = run(words, tmp_path, "--verify")
    assert status == 2 and "train-00000.bin" in said and "damaged" in said


@pytest.mark.parametrize("record", ["", "[]", '{"fingerprint": "x"}', "[" * 100_000])
def test_a_damaged_memory_of_what_was_verified_means_verifying_again(
    record: str, words: list[str], tmp_path: Path, hashed: list[str]
) -> None:
    assert run(words, tmp_path)[0] == 0
    (tmp_path / "data" / shards.VERIFIED).write_text(record)
    assert run(words, tmp_path)[0] == 0 and hashed


def test_a_model_to_start_from_and_a_checkpoint_are_verified_once(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(words, tmp_path / "old")[0] == 0
    verified: list[Path] = []
    real = ckpt.verify
    monkeypatch.setattr(ckpt, "verify", lambda path: verified.append(path) or real(path))
    more = [*words, "--init-from", str(tmp_path / "old")]
    assert run(more, tmp_path / "new")[0] == 0
    assert [path.name for path in verified] == [ckpt.step_name(4)]
    shutil.rmtree(tmp_path / "new" / "checkpoints" / ckpt.step_name(4))
    verified.clear()
    assert run(more, tmp_path / "new")[0] == 0
    assert verified == [tmp_path / "new" / "checkpoints" / ckpt.step_name(2)]


def rewrite_state(folder: Path, **changes: Any) -> Path:
    """Changes training_state.json of the newest checkpoint, as another version would write it."""
    newest = ckpt.checkpoints(folder / "checkpoints")[-1]
    path = newest / "training_state.json"
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in values.items() if v is not None}))
    (newest / ckpt.MANIFEST).unlink()
    ckpt.write_manifest(newest)
    return newest


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format": 99}, "newer version"),
        ({"format": "new"}, "newer version"),
        ({"progress": {"laps": 3}}, "--init-from"),
        ({"scaler": None}, "--init-from"),
        ({"rng": [7]}, "--init-from"),
    ],
    ids=str,
)
def test_a_checkpoint_of_another_version_is_refused_in_plain_words(
    changes: dict[str, Any], reason: str, words: list[str], tmp_path: Path
) -> None:
    assert run(words, tmp_path)[0] == 0
    newest = rewrite_state(tmp_path, **changes)
    status, said = run(words, tmp_path)
    assert status == 2 and reason in said and str(newest) in said and "Traceback" not in said


def test_a_run_of_the_first_format_goes_on_and_says_what_is_not_exact(
    words: list[str], tmp_path: Path
) -> None:
    assert run(words, tmp_path)[0] == 0
    shutil.rmtree(tmp_path / "checkpoints" / ckpt.step_name(4))
    rewrite_state(tmp_path, format=None)
    status, said = run(words, tmp_path)
    assert status == 0 and "laid out the text in another way" in said


def test_a_new_run_says_which_exports_cannot_take_its_model(
    tmp_path: Path, corpus_file: Path, tokenizer_dir: Path
) -> None:
    values = TINY_RUN | {"steps": 1, "data_path": corpus_file}
    bert = write_kind("BERT", tmp_path / "bert")
    command = ["pretrain", *flags(values | {"tokenizer": bert, "out_dir": tmp_path / "a"})]
    status, said = in_this_process(command)
    assert status == 0
    assert "exports    not to gguf: llama.cpp cannot use this tokenizer" in said
    assert "exports" not in in_this_process([*command, "--steps", "2", "--override"])[1]
    untied = values | {"tokenizer": tokenizer_dir, "tie_word_embeddings": "false"}
    said = in_this_process(["pretrain", *flags(untied | {"out_dir": tmp_path / "b"})])[1]
    assert "exports    not to minimind: its output head is tied" in said
    usual = values | {"tokenizer": tokenizer_dir, "out_dir": tmp_path / "c"}
    assert "exports" not in in_this_process(["pretrain", *flags(usual)])[1]
