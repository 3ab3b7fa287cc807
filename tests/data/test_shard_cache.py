"""The cache of remote shards: bounded, checked by hash, each file fetched once for all who read."""

from __future__ import annotations

import os
import re
import resource
import threading
from pathlib import Path

import numpy as np
import pytest
from faulty_server import Served, impatient
from sharded import SHARD_TOKENS, reshard, serve, shards_asked

from jielong.data import shard_cache
from jielong.data.cache_room import Room, lock_of, partial_of
from jielong.data.remote_dataset import (
    RemoteDataset,
    find_remote_dataset,
    open_prepared,
    verify_prepared,
)
from jielong.data.shards import open_dataset
from jielong.data.sources import remote
from jielong.data.sources.documents import find_sources
from jielong.data.sources.remote import OutageError
from jielong.errors import DataError
from jielong.tokenization.tokenizer import Tokenizer
from jielong.training.shards_ahead import fetching_ahead
from tiny import in_this_process, until

GB = 1e9


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    impatient(monkeypatch, contact_s=0.05, patience_s=0.1, BLOCK_BYTES=150)
    monkeypatch.setenv("JIELONG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shard_cache, "IDLE_S", 0.01)


@pytest.fixture
def local(many_shards: Path) -> Path:
    return many_shards


def opened(address: str, cache_gb: float | None = None) -> RemoteDataset:
    folder = find_remote_dataset(address)
    assert folder is not None
    dataset = open_prepared(folder, cache_gb)
    assert isinstance(dataset, RemoteDataset)
    return dataset


def copies(dataset: RemoteDataset) -> list[str]:
    """Names of the shards of training text that are here."""
    return sorted(path.name for path in dataset.folder.glob("train-*.bin"))


def cache_bytes(dataset: RemoteDataset) -> int:
    files = dataset.cache.room.root.glob("*/*")
    return sum(f.stat().st_size for f in files if ".bin" in f.name and f.suffix != ".lock")


def train_tokens(folder: Path) -> np.ndarray:
    stream = open_dataset(folder).train
    return stream.read(0, len(stream))


def test_a_remote_dataset_has_the_tokens_of_the_local_one(local: Path, web: Served) -> None:
    dataset, here = opened(serve(web, local)), open_dataset(local)
    assert copies(dataset) == []  # they come as they are read
    assert dataset.fingerprint == here.fingerprint
    for ours, theirs in ((dataset.train, here.train), (dataset.validation, here.validation)):
        assert ours is not None and theirs is not None
        assert (ours.read(0, len(ours)) == theirs.read(0, len(theirs))).all()
        assert (ours.documents == theirs.documents).all()
        assert ours.at_hand()[-1][1] == len(ours)
    assert (
        Tokenizer.load(dataset.folder / "tokenizer").fingerprint
        == (here.manifest["tokenizer_fingerprint"])
    )
    asked = len(web.asked)
    again = opened(serve(web, local))
    again.train.read(0, len(again.train))
    assert len(web.asked) == asked  # neither shards nor the manifest, so soon


def test_a_folder_or_file_that_is_no_dataset_is_told_apart(local: Path, web: Served) -> None:
    web.files |= {"/t/": b"<a href=a.txt>a</a>", "/t/a.txt": b"One", "/closed/dataset.json": b"x"}
    web.faults["probe /closed/dataset.json"] = ["403"]
    for address in ("/t", "/t/", "/t/a.txt", "/closed", "/none"):
        assert find_remote_dataset(web.address + address) is None
    for address in (f"{serve(web, local)}/*", str(local), "hf://owner/name", "-"):
        assert find_remote_dataset(address) is None


def test_a_dataset_at_any_address_that_fsspec_knows_is_read(local: Path) -> None:
    memory = pytest.importorskip("fsspec").filesystem("memory")
    for file in local.rglob("*"):
        if file.is_file():
            memory.pipe(f"/sets/one/{file.relative_to(local)}", file.read_bytes())
    try:
        stream = opened("memory://sets/one").train
        assert (stream.read(0, len(stream)) == train_tokens(local)).all()
    finally:
        memory.rm("/sets", recursive=True)


@pytest.mark.parametrize("seed", range(6))
def test_whatever_fails_for_a_while_the_tokens_are_the_same(
    seed: int, local: Path, web: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(seed)
    address = serve(web, local)
    web.ranges = bool(rng.random() < 0.7)
    faults = ["none", "503", "429", "500", "drop 0", "drop 1", "drop 70"]
    for path in web.files:
        web.faults[path] = [str(fault) for fault in rng.choice(faults, size=9)]
    dataset = opened(address)
    dataset.cache.expect(dataset.train.names, ())
    with fetching_ahead([dataset.cache]):
        assert (dataset.train.read(0, len(dataset.train)) == train_tokens(local)).all()


def test_a_failing_server_is_named_with_its_shard_after_some_tries(
    local: Path, web: Served, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = opened(serve(web, local))
    monkeypatch.setattr(remote, "TOLD_S", 0.002)
    web.faults["/set/train-00003.bin"] = ["503"] * 9999
    dataset.train.read(0, SHARD_TOKENS)
    with pytest.raises(OutageError, match=r"train-00003\.bin: the server answers 503.*tried \d+ "):
        dataset.train.read(0, len(dataset.train))
    said = capsys.readouterr().err.splitlines()
    name = f"{web.address}/set/train-00003.bin: the server answers 503"
    assert said and all(line.startswith(name) and "waiting" in line for line in said)
    web.faults.clear()
    assert (dataset.train.read(0, len(dataset.train)) == train_tokens(local)).all()
    assert not list(dataset.folder.glob(".*.partial"))


@pytest.mark.parametrize("times", [1, 99])
def test_a_damaged_shard_is_fetched_again_and_never_read(
    times: int, local: Path, web: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = opened(serve(web, local))
    path = "/set/train-00001.bin"
    web.damaged[path] = times
    if times == 1:
        assert (dataset.train.read(0, len(dataset.train)) == train_tokens(local)).all()
    else:
        reason = r"/set/train-00001\.bin: damaged: its SHA-256 .*fetched 3 times: copy the whole"
        with pytest.raises(DataError, match=reason):
            dataset.train.read(0, len(dataset.train))
        assert copies(dataset) == ["train-00000.bin"]
    assert "train-00001.bin: damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("gone", r"no such file, but the manifest names it: copy the whole dataset there again"),
        ("short", r"has 398 bytes, not 400 as in the manifest"),
        ("cut", r"ends after \d+ of 400 bytes: it is cut short there"),
        ("403", r"access is refused \(403\): credentials are missing or wrong"),
    ],
)
def test_what_is_wrong_with_a_shard_is_said_in_one_line(
    change: str, reason: str, local: Path, web: Served
) -> None:
    dataset, path = opened(serve(web, local)), "/set/train-00002.bin"
    if change == "gone":
        del web.files[path]
    elif change == "short":
        web.files[path] = web.files[path][:-2]
    else:
        web.faults[path] = ["cut 150" if change == "cut" else "403"] * 99
    with pytest.raises(DataError, match=rf"/set/train-00002\.bin: {reason}") as refused:
        dataset.train.read(0, len(dataset.train))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("damage", ["flip", "cut", "link"])
def test_a_damaged_copy_is_noticed_at_the_next_start_and_fetched_again(
    damage: str, local: Path, web: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    address = serve(web, local)
    dataset = opened(address)
    dataset.train.read(0, len(dataset.train))
    copy = dataset.folder / "train-00001.bin"
    data = copy.read_bytes()
    copy.unlink()
    if damage == "link":
        copy.symlink_to(local / "train-00001.bin")
    else:
        copy.write_bytes(data[:-2] if damage == "cut" else bytes([data[0] ^ 1]) + data[1:])
    again = opened(address).train
    assert (again.read(0, len(again)) == train_tokens(local)).all()
    assert f"{copy}: damaged in the cache" in capsys.readouterr().err
    assert not copy.is_symlink()


def test_verify_checks_copies_that_seem_unchanged(local: Path, web: Served) -> None:
    address = serve(web, local)
    dataset = opened(address)
    dataset.train.read(0, len(dataset.train))
    copy = dataset.folder / "train-00001.bin"
    stat, data = copy.stat(), copy.read_bytes()
    with copy.open("r+b") as file:
        file.write(bytes([data[0] ^ 1]))
    os.utime(copy, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    verify_prepared(dataset.folder, again=True)
    again = opened(address).train
    assert (again.read(0, len(again)) == train_tokens(local)).all()


def test_a_copy_cut_short_while_in_use_is_an_error_that_names_it(local: Path, web: Served) -> None:
    stream = opened(serve(web, local)).train
    stream.read(0, len(stream))
    os.truncate(next(Path(os.environ["JIELONG_CACHE"]).rglob("train-00001.bin")), 4)
    with pytest.raises(DataError, match=r"train-00001\.bin: ends too soon"):
        stream.read(0, len(stream))


def test_the_cache_stays_within_its_bound_and_gives_up_what_is_least_soon_needed(
    local: Path, web: Served
) -> None:
    dataset = opened(serve(web, local))
    fixed = dataset.cache.bytes_of(dataset.cache.fixed)
    limit = fixed + 4 * 2 * SHARD_TOKENS
    dataset = opened(serve(web, local), limit / GB)
    cache, names = dataset.cache, dataset.train.names
    cache.expect(names[:2], names[2:4])
    with fetching_ahead([dataset.cache]):
        for name in (*cache.fixed, *names[:4]):
            assert until(lambda name=name: cache.is_here(name))
        assert copies(dataset) == list(names[:4])
        cache.expect(names[2:4], names[4:6])
        assert until(lambda: copies(dataset) == list(names[2:6]))
    # nothing fetches ahead now, which would want the one back that goes
    cache.path(names[9])  # beside what is expected: the last of what is soon needed goes
    assert copies(dataset) == [*names[2:5], names[9]]
    assert cache_bytes(dataset) <= limit
    assert shards_asked(web).count(names[2]) == len(range(0, 2 * SHARD_TOKENS, 150))


def test_only_shards_count_and_go(local: Path, web: Served) -> None:
    address = serve(web, local)
    fixed = opened(address).cache.bytes_of(opened(address).cache.fixed)
    dataset = opened(address, (fixed + 4 * 2 * SHARD_TOKENS) / GB)
    cache, names = dataset.cache, dataset.train.names
    cache.expect(names[:2], names[2:4])
    for name in cache.plan:
        cache.path(name)
    being_written = [dataset.folder / f".{name}.partial" for name in ("dataset.json", "any")]
    for path in being_written:
        path.write_bytes(b"{}")
        os.utime(path, (0, 0))
    cache.path(names[9])
    assert copies(dataset) == [*names[:3], names[9]]
    assert all(path.exists() for path in being_written)


def test_nothing_goes_where_that_would_not_make_room(local: Path, web: Served) -> None:
    dataset = opened(serve(web, local))
    for name in dataset.train.names[:3]:
        dataset.cache.path(name)
    kept = {dataset.folder / name for name in dataset.train.names[:2]}
    room = Room(dataset.cache.room.root, 0)
    assert room.take(dataset.folder / "new.bin", 1, kept, must=True) is False
    assert copies(dataset) == list(dataset.train.names[:3])


def test_other_datasets_make_room_before_what_a_run_needs(
    local: Path, web: Served, tmp_path: Path
) -> None:
    old = opened(serve(web, reshard(local, tmp_path / "other", 300), "other"))
    old.train.read(0, len(old.train))
    old.cache.expect(old.train.names, ())
    old.cache.expect((), ())  # that run is over
    dataset = opened(serve(web, local))
    needed = dataset.cache.bytes_of([*dataset.cache.fixed, *dataset.train.names])
    dataset = opened(serve(web, local), needed / GB)
    dataset.cache.expect(dataset.train.names, ())
    with fetching_ahead([dataset.cache]):
        assert until(lambda: len(copies(dataset)) == len(dataset.train.names))
    assert copies(old) == []
    assert (dataset.train.read(0, len(dataset.train)) == train_tokens(local)).all()


def test_no_room_for_what_is_read_now_is_said(local: Path, web: Served) -> None:
    dataset = opened(serve(web, local), 300 / GB)
    with pytest.raises(DataError, match=r"have no room in .*give a larger --cache-gb"):
        dataset.train.read(0, 3)


def test_readers_side_by_side_fetch_each_shard_once(local: Path, web: Served) -> None:
    address = serve(web, local)
    datasets = [opened(address) for _ in range(4)]  # as of four processes
    wanted, found = train_tokens(local), list[bool]()

    def read(dataset: RemoteDataset) -> None:
        with fetching_ahead([dataset.cache]):
            dataset.cache.expect(dataset.train.names, ())
            tokens = dataset.train.read(0, len(dataset.train))
            # a reader that ends leaves what it is fetching ahead, and another fetches that anew
            assert until(lambda: all((dataset.folder / n).exists() for n in dataset.cache.fixed))
            found.append(bool((tokens == wanted).all()))

    threads = [threading.Thread(target=read, args=(dataset,)) for dataset in datasets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [True] * 4
    assert len(set(web.asked)) == len(web.asked)


def test_what_a_killed_process_left_is_fetched_anew_and_makes_room(
    local: Path, web: Served
) -> None:
    dataset = opened(serve(web, local))
    names = dataset.train.names
    for name in names[1:4]:
        partial_of(dataset.folder / name).write_bytes(b"half")
        lock_of(dataset.folder / name).lock_file  # noqa: B018
    size = dataset.cache.bytes_of([names[1]])
    small = opened(serve(web, local), (size + 8) / GB)
    assert small.cache.path(names[1]).stat().st_size == size
    assert sum(f.name.endswith(".partial") for f in dataset.folder.iterdir()) <= 2
    assert cache_bytes(small) <= size + 8


def test_waiting_for_another_process_is_told_and_ends_if_it_does_nothing(
    local: Path,
    web: Served,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shard_cache, "POLL_S", 0.02)
    monkeypatch.setattr(shard_cache, "SLOW_S", 0.03)
    monkeypatch.setattr(shard_cache, "STALLED_S", 0.3)
    dataset = opened(serve(web, local))
    beats: list[int] = []
    dataset.cache.beat = lambda: beats.append(1)
    path = dataset.folder / "train-00000.bin"
    with lock_of(path):
        partial_of(path).write_bytes(b"x")
        with pytest.raises(DataError, match=r"train-00000\.bin: another process fetches it, but"):
            dataset.train.read(0, 3)
    assert len(beats) == 1  # it had begun, and did not go on
    assert re.search(r"train-00000\.bin: slow, waited \d+ s", capsys.readouterr().err)
    assert dataset.train.read(0, 3).tolist() == train_tokens(local)[:3].tolist()


def test_a_full_disk_is_said_and_leaves_nothing(local: Path, web: Served) -> None:
    dataset = opened(serve(web, local))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))  # Python ignores SIGXFSZ
    try:
        with pytest.raises(DataError, match=r"cannot be written \(File too large\).*JIELONG_CACHE"):
            dataset.train.read(0, len(dataset.train))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert copies(dataset) == [] and not list(dataset.folder.glob(".*.partial"))
    assert (dataset.train.read(0, len(dataset.train)) == train_tokens(local)).all()


def test_a_cache_that_cannot_be_made_is_said(
    local: Path, web: Served, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("JIELONG_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"cannot be written .*set JIELONG_CACHE"):
        find_remote_dataset(serve(web, local))


@pytest.mark.parametrize("damage", ["cut", "flip", "outside"])
def test_a_damaged_manifest_is_refused(damage: str, local: Path, web: Served) -> None:
    address = serve(web, local)
    text = web.files["/set/dataset.json"]
    web.files["/set/dataset.json"] = {
        "cut": text[:-40],
        "flip": text.replace(b'"tokens": 1', b'"tokens": 2').replace(
            b'"tokens": 3', b'"tokens": 4'
        ),
        "outside": text.replace(b"train-00000.bin", b"../../../00000.bin"),
    }[damage]
    assert web.files["/set/dataset.json"] != text
    with pytest.raises(DataError, match=r"/set/dataset\.json: the manifest is damaged"):
        find_remote_dataset(address)


def test_a_dataset_among_texts_is_not_read_as_text(
    local: Path, web: Served, tmp_path: Path
) -> None:
    address = serve(web, local)
    links = "".join(f"<a href={path.name}>x</a>" for path in local.iterdir() if path.is_file())
    web.files |= {"/set/": links.encode(), "/t/": b"<a href=a.txt>x</a>", "/t/a.txt": b"One"}
    with pytest.raises(DataError, match="is a prepared dataset, not text: give it to"):
        find_sources([address, f"{web.address}/t"])
    words = ["prepare", "--tokenizer", str(local / "tokenizer"), "--out-dir", str(tmp_path / "x")]
    status, said = in_this_process([*words, "--data-path", address])
    assert status != 0 and "is a prepared dataset, not text" in said


def test_results_are_not_written_to_remote_addresses(
    local: Path, corpus_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = ["--data-path", str(corpus_file), "--out-dir", "s3://bucket/set"]
    for words in (["prepare", "--tokenizer", str(local / "tokenizer")], ["pretrain"], ["clean"]):
        status, said = in_this_process([*words, *text])
        assert status == 2
        assert "aws s3 cp --recursive FOLDER s3://bucket/set" in said and "Traceback" not in said
    assert not (tmp_path / "s3:").exists()
