"""Rows 6, 7 and 27: a bit flipped, a file cut, emptied or gone: found before it is used."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from jielong.checkpoint import checkpoint as ckpt
from jielong.data.shards import open_dataset
from jielong.errors import CheckpointError, DataError
from tiny import TINY_RUN, in_this_process

SETTINGS = TINY_RUN | {"steps": 6, "eval_interval": 2, "keep_checkpoints": 9}
PLACES = 64  # flips in each file, beside its first and last byte


def run(words: list[str], folder: Path) -> tuple[int, str]:
    return in_this_process([*words, "--out-dir", str(folder)])


def last(folder: Path) -> Path:
    return folder / "checkpoints" / ckpt.step_name(SETTINGS["steps"])


def flips(path: Path) -> Iterator[int]:
    """Flips a bit of the file in place, at one byte after another; then it is as it was."""
    data = path.read_bytes()
    rng = np.random.default_rng(len(data))
    for place in {0, len(data) - 1, *rng.integers(0, len(data), PLACES).tolist()}:
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        yield place
    path.write_bytes(data)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


def assert_every_flip_is_found(checkpoint: Path) -> int:
    """In each file of a checkpoint, which then is as it was; returns how many were tried."""
    tried = 0
    for path in files(checkpoint):
        for place in flips(path):
            tried += 1
            with pytest.raises(CheckpointError, match=checkpoint.name):
                ckpt.verify(checkpoint)
                pytest.fail(f"{path.name}: byte {place}")
    ckpt.verify(checkpoint)
    return tried


def test_every_flipped_bit_of_a_checkpoint_is_found(whole: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / last(whole).name
    shutil.copytree(last(whole), checkpoint)
    assert assert_every_flip_is_found(checkpoint) > 7 * PLACES // 2


def test_every_flipped_bit_of_the_tokens_is_found(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(whole / "data", folder)
    names = json.loads((folder / "dataset.json").read_text())["files"]
    assert len(names) == 4
    for name in names:
        for place in flips(folder / name):
            with pytest.raises(DataError, match=name):
                open_dataset(folder)
                pytest.fail(f"{name}: byte {place}")
    manifest = folder / "dataset.json"
    sound = json.loads(manifest.read_text())
    for _ in flips(manifest):
        # it is refused, or what was flipped is a count or name that only people read
        with contextlib.suppress(DataError):
            read = open_dataset(folder).manifest
            assert all(read[key] == sound[key] for key in ("splits", "files", "dtype"))
    open_dataset(folder)


DAMAGE: dict[str, Callable[[Path], None]] = {
    "flipped": lambda path: path.write_bytes(
        bytes([path.read_bytes()[0] ^ 0x80]) + path.read_bytes()[1:]
    ),
    "cut by one": lambda path: os.truncate(path, path.stat().st_size - 1),
    "halved": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_run_says_what_is_damaged_and_goes_on_from_the_one_before_to_the_same_bits(
    whole: Path, words: list[str], tmp_path: Path, damage: str
) -> None:
    for name in [path.name for path in files(last(whole))]:
        folder = tmp_path / name
        shutil.copytree(whole, folder)
        DAMAGE[damage](last(folder) / name)
        status, said = run(words, folder)
        assert status == 0 and "passed over: " in said, said
        assert f"resuming from {folder / 'checkpoints' / ckpt.step_name(4)}" in said
        for file in ("model.safetensors", "optimizer.safetensors"):
            assert (last(folder) / file).read_bytes() == (last(whole) / file).read_bytes()
        shutil.rmtree(folder)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_run_refuses_damaged_tokens_and_names_the_file(
    whole: Path, words: list[str], tmp_path: Path, damage: str
) -> None:
    for name in json.loads((whole / "data" / "dataset.json").read_text())["files"]:
        folder = tmp_path / name
        shutil.copytree(whole, folder)
        shutil.rmtree(last(folder))
        DAMAGE[damage](folder / "data" / name)
        before = {path: path.read_bytes() for path in folder.rglob("*.safetensors")}
        status, said = run(words, folder)
        assert status == 2 and str(folder / "data" / name) in said, said
        assert "Traceback" not in said and "prepare it again" in said
        assert before == {path: path.read_bytes() for path in folder.rglob("*.safetensors")}
        shutil.rmtree(folder)


def test_a_shard_cut_while_it_is_read_ends_the_run_in_words(
    whole: Path, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import jielong.training.run_data as building

    folder = tmp_path / "run"
    shutil.copytree(whole / "data", folder / "data")
    opened = building.load_texts

    def cut_after_opening(*arguments: object) -> object:
        texts = opened(*arguments)  # type: ignore[arg-type]
        os.truncate(folder / "data" / "train-00000.bin", 64)
        return texts

    monkeypatch.setattr(building, "load_texts", cut_after_opening)
    status, said = run(words, folder)
    assert status == 2 and "train-00000.bin: ends too soon" in said, said
