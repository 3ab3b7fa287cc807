"""Archives and further compressions: texts are read member by member; what harms is named."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import random
import subprocess
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pytest
import zstandard

from jielong.data.sources import containers
from jielong.data.sources.documents import (
    BadLine,
    Document,
    Item,
    Remark,
    expand_sources,
    find_sources,
    read_documents,
)
from jielong.errors import DataError

TEXTS = ["one", "二", "three\nlines"]
JSONL = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS).encode()
PACK = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".bz2": lambda data: bz2.compress(data, 1),  # in blocks of 100 kB
    ".zst": zstandard.compress,
}


def read(*paths: Path) -> list[Item]:
    return list(read_documents(expand_sources([str(path) for path in paths]), "text"))


def texts(items: list[Item]) -> list[str]:
    return [item.text for item in items if isinstance(item, Document)]


def tar_of(members: dict[str, bytes], pack: str = "", links: tuple[str, ...] = ()) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(info)
    return PACK[pack](out.getvalue())


def zip_of(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def archive_of(kind: str, members: dict[str, bytes]) -> bytes:
    return zip_of(members) if kind == ".zip" else tar_of(members, kind.removeprefix(".tar"))


KINDS = [".zip", ".tar", ".tar.gz", ".tar.xz", ".tar.bz2", ".tar.zst"]


@pytest.mark.parametrize("pack", [".xz", ".bz2"])
def test_xz_and_bzip2_are_read_also_where_files_were_joined(tmp_path: Path, pack: str) -> None:
    (tmp_path / f"a.jsonl{pack}").write_bytes(PACK[pack](JSONL) + PACK[pack](JSONL))
    (tmp_path / f"b.txt{pack}").write_bytes(PACK[pack](b"plain text"))
    assert texts(read(tmp_path)) == [*TEXTS, *TEXTS, "plain text"]
    padded = tmp_path / "padded.jsonl.xz"
    padded.write_bytes(lzma.compress(JSONL) + bytes(8) + lzma.compress(JSONL) + bytes(4))
    assert texts(read(padded)) == TEXTS * 2
    noise = random.Random(1).randbytes(90_000).hex().encode()
    (tmp_path / f"long.txt{pack}").write_bytes(PACK[pack](noise))
    assert "".join(texts(read(tmp_path / f"long.txt{pack}"))) == noise.decode()


@pytest.mark.parametrize("pack", [".xz", ".bz2"])
def test_23_cut_short_or_damaged_they_are_errors_that_name_the_file(
    tmp_path: Path, pack: str
) -> None:
    path = tmp_path / f"a.txt{pack}"
    whole = PACK[pack](random.Random(1).randbytes(20_000).hex().encode())
    middle = len(whole) // 2
    for content in (whole[:middle], whole[: middle - 99] + bytes(99) + whole[middle:]):
        path.write_bytes(content)
        with pytest.raises(DataError, match="damaged or cut short") as error:
            read(path)
        assert str(path) in str(error.value)


@pytest.mark.parametrize("kind", KINDS)
def test_members_of_an_archive_are_read_as_files_of_a_folder_are(tmp_path: Path, kind: str) -> None:
    members = {
        "set/train.jsonl": JSONL,
        "set/test.jsonl": JSONL,
        "set/README.md": b"about the set",
        "set/more/b.csv": b"id,text\n1,from a table\n",
        "set/more/c.txt.gz": gzip.compress(b"packed twice"),
        "set/.hidden.txt": b"no",
        "__MACOSX/set/._train.jsonl": b"no",
        "set/picture.png": b"\x89PNG",
    }
    path = tmp_path / f"a{kind}"
    path.write_bytes(archive_of(kind, members))
    sources, _ = find_sources([str(path)], for_training=True)
    items = list(read_documents(sources, "text"))
    assert texts(items) == [*TEXTS, "from a table", "packed twice"]
    assert {i.source for i in items if isinstance(i, Document)} == {
        f"{path}/set/{name}" for name in ("train.jsonl", "more/b.csv", "more/c.txt.gz")
    }
    (remark,) = (item for item in items if isinstance(item, Remark))
    assert (
        remark.text.startswith("5 members not read: 2 hidden, ") and "a test split" in remark.text
    )
    assert len(texts(read(path))) == 8  # where nothing is trained, the test split is text too


@pytest.mark.parametrize("kind", [".zip", ".tar"])
def test_09_no_member_leaves_its_folder_and_no_link_is_followed(tmp_path: Path, kind: str) -> None:
    bad = {"../out.txt": b"out", "/etc/out.txt": b"out", "a/../../out.txt": b"out"}
    data = archive_of(kind, {"good.txt": b"good"} | bad)
    path = tmp_path / "in" / f"a{kind}"
    path.parent.mkdir()
    path.write_bytes(data)
    items = read(path)
    assert texts(items) == ["good"]
    assert "3 with names that lead out of the archive" in str(items)
    assert sorted(p.name for p in tmp_path.rglob("*")) == [path.name, "in"]
    tar = tmp_path / "links.tar"
    tar.write_bytes(tar_of({"good.txt": b"good"}, links=("passwd.txt",)))
    assert texts(read(tar)) == ["good"] and "1 links or no plain files" in str(read(tar))
    linked = zipfile.ZipInfo("passwd.txt")
    linked.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "links.zip", "w") as archive:
        archive.writestr(linked, "/etc/passwd")
        archive.writestr("good.txt", "good")
    assert texts(read(tmp_path / "links.zip")) == ["good"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_member_that_cannot_be_read_costs_itself_alone(tmp_path: Path, kind: str) -> None:
    members = {
        "a.txt": b"first",
        "b.txt": "第一章 春天来了，去散步吧。".encode("gbk"),
        "c.txt": b"last",
    }
    path = tmp_path / f"a{kind}"
    path.write_bytes(archive_of(kind, members))
    first, bad, last = read(path)
    assert texts([first, last]) == ["first", "last"]
    assert isinstance(bad, BadLine) and bad.source == f"{path}/b.txt"
    assert "probably gb18030" in bad.reason and bad.size == len(members["b.txt"])


def test_a_damaged_or_locked_member_of_a_zip_costs_itself_alone(tmp_path: Path) -> None:
    noise = random.Random(1).randbytes(5000).hex().encode()
    data = bytearray(zip_of({"a.txt": b"first", "b.txt": noise, "c.txt": b"last"}))
    at = data.index(b"b.txt") + 1000
    data[at : at + 50] = bytes(50)
    (tmp_path / "a.zip").write_bytes(data)
    items = read(tmp_path / "a.zip")
    assert texts(items)[0] == "first" and texts(items)[-1] == "last"
    (bad,) = (item for item in items if isinstance(item, BadLine))
    assert "damaged" in bad.reason and bad.source.endswith("a.zip/b.txt") and bad.size == len(noise)
    locked = bytearray(zip_of({"a.txt": b"first"}))
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        locked[locked.index(signature) + flags] |= 1
    (tmp_path / "b.zip").write_bytes(locked)
    (bad,) = read(tmp_path / "b.zip")
    assert isinstance(bad, BadLine) and "1 encrypted" in bad.reason


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_cut_short_gives_what_is_before_and_is_named(tmp_path: Path, kind: str) -> None:
    rng = random.Random(2)
    members = {f"{i}.txt": rng.randbytes(4000).hex().encode() for i in range(100)}
    whole = archive_of(kind, members)
    path, other = tmp_path / f"a{kind}", tmp_path / "z.txt"
    path.write_bytes(whole[: len(whole) // 2])
    other.write_text("another file")
    items = read(path, other)
    bad = [item for item in items if isinstance(item, BadLine)][-1]
    assert bad.kind == "unreadable file" and "damaged or cut short" in bad.reason and bad.size
    assert texts(items)[-1] == "another file"
    if kind != ".zip":  # whose table of contents is at its end
        assert 5 < len({item.source for item in items if isinstance(item, Document)}) < 90
    with pytest.raises(DataError, match="damaged or cut short"):
        read(path)


def test_a_header_that_is_damaged_ends_a_tar_with_a_word(tmp_path: Path) -> None:
    """Python's own reader takes it for the end of the archive."""
    data = bytearray(tar_of({f"{i}.txt": b"text %d" % i for i in range(9)}))
    data[5 * 1024 : 5 * 1024 + 100] = b"x" * 100
    path = tmp_path / "a.tar"
    path.write_bytes(data)
    (tmp_path / "z.txt").write_text("more")
    *good, bad, last = read(tmp_path)
    assert texts(good) == [f"text {i}" for i in range(5)] and texts([last]) == ["more"]
    assert isinstance(bad, BadLine) and bad.size >= 4 * 1024


def test_23_bombs_are_refused_by_name_in_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containers, "FREE_BYTES", 2**20)
    zeros = b"x" * 2**24
    bombs = {
        "a.txt.xz": lzma.compress(zeros),
        "b.txt.bz2": bz2.compress(zeros),
        "c.txt.zst": zstandard.compress(zeros * 2),
        "d.zip": zip_of({f"{i}.txt.gz": gzip.compress(gzip.compress(zeros)) for i in range(2)}),
        "e.zip": zip_of({f"{i}.txt.gz": gzip.compress(zeros) for i in range(9)}),
        "f.tar.zst": tar_of({"a.txt": zeros * 2}, ".zst"),
    }
    for name, data in bombs.items():
        (tmp_path / name).write_bytes(data)
        if name == "d.zip":  # what is packed twice is not unpacked twice
            assert not any("x" * 99 in text for text in texts(read(tmp_path / name)))
            continue
        with pytest.raises(DataError, match=r"grows to more than 2,000 times its size") as error:
            read(tmp_path / name)
        assert name in str(error.value)


@pytest.mark.parametrize("form", ["xz dictionary", "tar header", "zip directory"])
def test_23_what_asks_for_much_memory_is_refused(tmp_path: Path, form: str) -> None:
    if form == "xz dictionary":
        filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 2**20}]
        data = bytearray(lzma.compress(b"text", check=lzma.CHECK_NONE, filters=filters))
        assert data[12:17] == b"\x02\x00\x21\x01\x10"  # the last is the dictionary: 2^20 bytes
        data[16] = 38  # 2 GiB
        data[20:24] = zlib.crc32(data[12:20]).to_bytes(4, "little")
        path, says = tmp_path / "a.txt.xz", "run unxz on it"
    elif form == "tar header":
        info = tarfile.TarInfo("x")
        info.type, info.size = tarfile.XHDTYPE, 2**25
        data = bytearray(info.tobuf() + b"9" * 2**25)
        path, says = tmp_path / "a.tar", "a header is too long"
    else:
        data = bytearray(zip_of({"a.txt": b"text"}))
        at = data.index(b"PK\x05\x06")
        data[at + 12 : at + 16] = (2**29).to_bytes(4, "little")
        path, says = tmp_path / "a.zip", "table of contents"
    path.write_bytes(data)
    if form == "zip directory":  # sparse: as long as it says
        os.truncate(path, len(data))
        with pytest.raises(DataError, match=r"damaged|table of contents"):
            read(path)
        return
    code = (
        "import resource, sys\n"
        "from jielong.data.sources.documents import expand_sources, read_documents\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "try: list(read_documents(expand_sources([sys.argv[1]]), 'text'))\n"
        "except Exception as error: print(error, '|', (peak() - before) // 1024)"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    reason, grown_mib = done.stdout.split("|")
    assert says in reason and int(grown_mib) < 64, done.stdout


def test_an_archive_without_text_is_no_loss_and_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zip_of({"a.png": bytes(9999), "b.png": b""}))
    (bad,) = read(tmp_path / "a.zip")
    assert isinstance(bad, BadLine) and bad.size == 0
    assert bad.reason == "no text in this archive (not read: 2 in no text format)"


def test_feather_files_and_folders_of_save_to_disk_are_read_without_their_caches(
    tmp_path: Path,
) -> None:
    table = pa.table({"text": TEXTS, "n": [1, 2, 3]})
    for compression in ("lz4", "zstd", "uncompressed"):
        pyarrow.feather.write_feather(table, tmp_path / "a.feather", compression=compression)
        assert texts(read(tmp_path / "a.feather")) == TEXTS
    saved = tmp_path / "saved"
    for split in ("train", "test"):
        folder = saved / split
        folder.mkdir(parents=True)
        for name in ("data-00000-of-00002", "data-00001-of-00002", "cache-4f3a"):
            with pa.ipc.new_stream(str(folder / f"{name}.arrow"), table.schema) as writer:
                writer.write_table(table)
        parts = [{"filename": f"data-0000{i}-of-00002.arrow"} for i in range(2)]
        (folder / "state.json").write_text(json.dumps({"_data_files": parts}))
        (folder / "dataset_info.json").write_text('{"features": {}}')
    (saved / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    sources, not_read = find_sources([str(saved)], for_training=True)
    assert texts(list(read_documents(sources, "text"))) == TEXTS * 2
    reasons = {n.path.name: n.reason for n in not_read if n.path.suffix == ".arrow"}
    assert reasons["cache-4f3a.arrow"] == "a cache of the datasets library"
    assert reasons["data-00000-of-00002.arrow"] == "a test split"
