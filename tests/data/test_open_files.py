"""Many shards, few open files."""

from __future__ import annotations

import gc
import os
import resource
import shutil
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from jielong.data import open_files
from jielong.data.open_files import OpenFiles, most_open
from jielong.data.shard_writer import ShardWriter
from jielong.data.shards import TokenStream, token_dtype
from jielong.errors import DataError

TOKENS = 3000
SHARD_TOKENS = 5  # so there are 600 shards


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("many")
    writer = ShardWriter(folder, "train", 50_000, SHARD_TOKENS)
    writer.write(np.arange(TOKENS, dtype=np.uint32), [TOKENS], 0)
    return folder, writer.close()[0]


@pytest.fixture
def few_files() -> Iterator[int]:
    """The system lets this process open few files, as macOS does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = count() + 40
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
    try:
        yield few
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def count() -> int:
    folder = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"
    return len(os.listdir(folder))  # noqa: PTH208


def stream_of(many: tuple[Path, dict]) -> TokenStream:
    return TokenStream(*many, token_dtype(50_000))


def test_a_text_of_more_shards_than_files_may_be_open_is_read(
    many: tuple[Path, dict], few_files: int
) -> None:
    streams = [stream_of(many) for _ in range(3)]
    for _ in range(2):
        for stream in streams:
            assert (stream.read(0, TOKENS) == np.arange(TOKENS)).all()
    places = np.random.default_rng(0).integers(0, TOKENS - 20, 500)
    for place in places.tolist():
        assert (streams[place % 3].read(place, place + 20) == np.arange(place, place + 20)).all()
    assert count() < few_files


def test_threads_share_open_files_of_which_few_stay(
    many: tuple[Path, dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_files, "MOST_OPEN", 3)
    stream, wrong = stream_of(many), list[int]()

    def read(seed: int) -> None:
        for place in np.random.default_rng(seed).integers(0, TOKENS - 30, 300).tolist():
            if (stream.read(place, place + 30) != np.arange(place, place + 30)).any():
                wrong.append(place)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_what_was_used_last_stays_and_a_lost_owner_closes_its_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    opened, files = list[int](), OpenFiles(most=lambda: 3)
    open_now = weakref.WeakSet[object]()  # a file that nobody holds is closed

    def get(owner: int, number: int) -> None:
        def open_file():
            opened.append(number)
            file = (tmp_path / "a").open("rb", buffering=0)
            open_now.add(file)
            return file

        assert files.get(owner, number, open_file).name == str(tmp_path / "a")

    class Owner:
        pass

    one = Owner()
    owner = files.owner(one)
    for number in (1, 2, 3, 1, 4, 1, 2, 3):
        get(owner, number)
    assert opened == [1, 2, 3, 4, 2, 3]
    files.close(owner, but=[3])
    get(owner, 3)
    get(owner, 1)
    assert opened == [1, 2, 3, 4, 2, 3, 1]
    assert len(open_now) == 2
    del one
    gc.collect()
    assert len(open_now) == 0


def test_few_are_open_where_the_system_allows_few(few_files: int) -> None:
    assert 1 <= most_open() <= few_files // 4 < open_files.MOST_OPEN


def test_a_shard_that_is_gone_is_named_with_the_fix(
    many: tuple[Path, dict], tmp_path: Path
) -> None:
    shutil.copytree(many[0], tmp_path / "set")
    stream = stream_of((tmp_path / "set", many[1]))
    stream.read(0, 3)
    (tmp_path / "set" / "train-00007.bin").unlink()
    with pytest.raises(DataError, match=r"train-00007\.bin: cannot be opened .*prepare it again"):
        stream.read(0, TOKENS)
