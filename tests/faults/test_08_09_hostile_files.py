"""Rows 8 and 9: pickles never run; names and links cannot lead out of a folder."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from jielong.checkpoint import checkpoint as ckpt
from jielong.config.load import load_config
from jielong.data.prepare.prepare import prepare
from jielong.data.shards import fingerprint_of, open_dataset
from jielong.errors import CheckpointError, DataError
from jielong.interop.minimind import import_minimind
from jielong.tokenization.tokenizer import Tokenizer
from tiny import tiny_model


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self) -> Any:
        return Path.touch, (self.sentinel,)


@pytest.fixture
def saved(tmp_path: Path, tokenizer: Tokenizer) -> Path:
    model = tiny_model(vocab_size=tokenizer.vocab_size)
    state = ckpt.SavedState(3, {"config": {}})
    return ckpt.save_checkpoint(tmp_path / "checkpoints", model, tokenizer, {}, state)


def hostile_files(saved: Path, sentinel: Path) -> list[Path]:
    """Pickles under every name that a loader might open."""
    names = ["pretrain_64.pth", "pytorch_model.bin", "optimizer.pt", ".metadata", "rng_state.pth"]
    for name in names:  # through a buffer: torch takes no file whose name begins with a dot
        buffer = io.BytesIO()
        torch.save({"model.norm.weight": torch.ones(2), "x": Payload(sentinel)}, buffer)
        (saved / name).write_bytes(buffer.getvalue())
    for name in ("model.safetensors", "optimizer.safetensors"):
        torch.save(Payload(sentinel), saved / name)
    return [saved / name for name in names]


def test_a_pickle_under_any_name_is_never_run(
    saved: Path, tmp_path: Path, tokenizer_dir: Path
) -> None:
    sentinel = tmp_path / "it ran"
    pickle.loads(pickle.dumps(Payload(sentinel)))
    assert sentinel.exists(), "the payload works where something unpickles it"
    sentinel.unlink()
    for path in hostile_files(saved, sentinel):
        with pytest.raises(CheckpointError, match=r"refused|not a file|damaged"):
            import_minimind(path, tokenizer_dir, tmp_path / "out")
    for read in (ckpt.verify, ckpt.load_model, ckpt.find_model_folder):
        with pytest.raises(CheckpointError):
            read(saved)
    (saved / ckpt.MANIFEST).unlink()  # as a plain model folder, it has nothing to be checked by
    with pytest.raises(CheckpointError, match="safetensors"):
        ckpt.load_model(ckpt.find_model_folder(saved))
    assert not sentinel.exists() and not (tmp_path / "out").exists()


def test_a_link_in_a_checkpoint_is_refused_though_it_leads_to_the_same_bytes(
    saved: Path, tmp_path: Path
) -> None:
    for path in sorted(saved.iterdir()):
        elsewhere = tmp_path / path.name
        shutil.move(path, elsewhere)
        path.symlink_to(elsewhere)
        with pytest.raises(CheckpointError):
            ckpt.verify(saved)
        path.unlink()
        shutil.move(elsewhere, path)
    ckpt.verify(saved)


def test_a_new_checkpoint_never_follows_a_link_out_of_the_run(
    saved: Path, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("kept")
    folder = saved.parent
    for name in ("step-00000004", ".step-00000004.partial", ".step-00000003.1.partial"):
        (folder / name).symlink_to(outside, target_is_directory=True)
    model = tiny_model(vocab_size=tokenizer.vocab_size)
    made = ckpt.save_checkpoint(folder, model, tokenizer, {}, ckpt.SavedState(4, {}))
    ckpt.prune(folder, 1, None, 4)
    ckpt.verify(made)
    assert not made.is_symlink()
    assert [path.name for path in Path(outside).iterdir()] == ["precious"]


def test_files_of_a_checkpoint_are_for_whom_the_umask_says(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    for mask, mode in ((0o022, 0o644), (0o077, 0o600)):
        before = os.umask(mask)
        try:
            model = tiny_model(vocab_size=tokenizer.vocab_size)
            state = ckpt.SavedState(mask, {})
            saved = ckpt.save_checkpoint(tmp_path, model, tokenizer, {}, state)
        finally:
            os.umask(before)
        assert {path.stat().st_mode & 0o777 for path in saved.iterdir()} == {mode}


@pytest.fixture
def dataset(tmp_path: Path, corpus_file: Path, tokenizer: Tokenizer) -> Path:
    prepare(load_config(data_path=(str(corpus_file),)), tokenizer, tmp_path / "data")
    return tmp_path / "data"


def rewrite(dataset: Path, old: str, new: str) -> None:
    """Replaces a file's name all over a manifest, and makes its fingerprint right again."""
    path = dataset / "dataset.json"
    manifest = json.loads(path.read_text().replace(json.dumps(old), json.dumps(new)))
    path.write_text(json.dumps(manifest | {"fingerprint": fingerprint_of(manifest)}))


@pytest.mark.parametrize("where", ["../outside.bin", "/{}/outside.bin", "sub/../../outside.bin"])
def test_a_dataset_cannot_name_files_outside_its_folder(
    dataset: Path, tmp_path: Path, where: str
) -> None:
    shutil.copy(dataset / "train-00000.bin", tmp_path / "outside.bin")
    rewrite(dataset, "train-00000.bin", where.format(tmp_path))
    with pytest.raises(DataError, match="the manifest is damaged"):
        open_dataset(dataset)


def test_a_link_in_a_dataset_is_refused(dataset: Path, tmp_path: Path) -> None:
    shutil.move(dataset / "train-00000.bin", tmp_path / "outside.bin")
    (dataset / "train-00000.bin").symlink_to(tmp_path / "outside.bin")
    with pytest.raises(DataError, match="is a link"):
        open_dataset(dataset)


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "O"},
        {"dtype": "<u4"},
        {"splits": {}},
        {"vocab_size": "many"},
        {"files": {}},
    ],
)
def test_a_manifest_at_odds_with_itself_is_refused(dataset: Path, change: dict[str, Any]) -> None:
    path = dataset / "dataset.json"
    manifest = json.loads(path.read_text()) | change
    path.write_text(json.dumps(manifest | {"fingerprint": fingerprint_of(manifest)}))
    with pytest.raises(DataError, match="the manifest is damaged"):
        open_dataset(dataset)


def test_a_run_in_a_link_to_a_folder_works(tmp_path: Path, saved: Path) -> None:
    """Only what a checkpoint is made of must be plain: a run may lie behind a link of its owner."""
    (tmp_path / "link").symlink_to(saved.parent, target_is_directory=True)
    assert ckpt.latest_valid_checkpoint(tmp_path / "link")[0] == tmp_path / "link" / saved.name
