"""Remote text: read as local text is, through drops, throttling and cuts; refusals in one line."""

from __future__ import annotations

import gzip
import io
import json
import random
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faulty_server import Served, file_server, impatient, put, s3_server

from document_samples import pdf_of
from jielong.config.load import load_config
from jielong.data.prepare.prepare import prepare
from jielong.data.remote_dataset import find_remote_dataset, open_prepared
from jielong.data.shards import open_dataset
from jielong.data.sources import remote
from jielong.data.sources.documents import (
    BadLine,
    Document,
    Item,
    find_sources,
    read_documents,
)
from jielong.data.sources.remote import OutageError, is_remote, shown_address
from jielong.errors import DataError
from jielong.tokenization.tokenizer import Tokenizer
from tiny import TEXTS, environment

JSONL = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS).encode()
KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "very-secret"}


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    impatient(monkeypatch, contact_s=0.2, patience_s=0.4, BLOCK_BYTES=1000)


def items_of(*addresses: str) -> list[Item]:
    return list(read_documents(find_sources(addresses)[0], "text"))


def texts(items: list[Item]) -> list[str]:
    return [item.text for item in items if isinstance(item, Document)]


def files() -> dict[str, bytes]:
    """Files of each kind of reading: in order, and from place to place."""
    table, archive, tar = io.BytesIO(), io.BytesIO(), io.BytesIO()
    pq.write_table(pa.table({"text": TEXTS}), table)
    with zipfile.ZipFile(archive, "w") as members:
        members.writestr("a.jsonl", JSONL)
    with tarfile.open(fileobj=tar, mode="w:gz") as members:
        info = tarfile.TarInfo("a.jsonl")
        info.size = len(JSONL)
        members.addfile(info, io.BytesIO(JSONL))
    return {
        "a.jsonl": JSONL,
        "a.jsonl.gz": gzip.compress(JSONL),
        "a.parquet": table.getvalue(),
        "a.zip": archive.getvalue(),
        "a.tar.gz": tar.getvalue(),
    }


@pytest.mark.parametrize("name", files())
@pytest.mark.parametrize("ranges", [True, False])
def test_a_file_of_the_web_is_read_as_a_local_one(name: str, ranges: bool, web: Served) -> None:
    web.files[f"/{name}"] = files()[name]
    web.ranges = ranges
    assert texts(items_of(f"{web.address}/{name}")) == TEXTS


def test_a_document_of_the_web_is_read(web: Served) -> None:
    pytest.importorskip("pypdfium2")
    web.files["/a.pdf"] = pdf_of(["One"])
    assert texts(items_of(f"{web.address}/a.pdf?id=3")) == ["One"]


def test_a_file_of_unknown_size_is_read_in_order(web: Served) -> None:
    web.ranges = web.lengths = False
    web.files |= {"/a.jsonl": JSONL, "/a.zip": files()["a.zip"], "/empty.txt": b""}
    assert texts(items_of(f"{web.address}/a.jsonl")) == TEXTS
    with pytest.raises(DataError, match="does not say how large it is"):
        items_of(f"{web.address}/a.zip")
    assert texts(items_of(f"{web.address}/empty.txt")) == []


@pytest.mark.parametrize(("ranges", "lengths"), [(True, True), (False, True), (False, False)])
def test_after_a_lost_connection_reading_goes_on_where_it_was(
    ranges: bool, lengths: bool, web: Served
) -> None:
    web.files["/a.jsonl"] = JSONL
    web.ranges, web.lengths = ranges, lengths
    web.faults["/a.jsonl"] = ["drop 300", "drop 0", "none", "drop 10"]
    assert texts(items_of(f"{web.address}/a.jsonl")) == TEXTS
    if ranges:
        assert web.asked[1] == ("/a.jsonl", "bytes=300-999")


@pytest.mark.parametrize("seed", range(8))
def test_whatever_fails_for_a_while_the_text_is_that_of_the_file(seed: int, web: Served) -> None:
    rng = random.Random(seed)
    web.ranges = rng.random() < 0.7
    faults = ["none", "503", "429", "500", "drop 0", "drop 1", "drop 700"]
    for name, data in files().items():
        web.files[f"/{name}"] = data
        web.faults[f"/{name}"] = [rng.choice(faults) for _ in range(16)]
    addresses = [f"{web.address}/{name}" for name in files()]
    items = items_of(*addresses)
    assert [item for item in items if isinstance(item, BadLine)] == []
    assert texts(items) == TEXTS * len(files())


def test_a_server_that_throttles_is_waited_for(
    web: Served, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    web.files["/a.jsonl"] = JSONL
    web.faults["/a.jsonl"] = ["503", "none", "429 1", "500"]
    monkeypatch.setattr(remote, "TOLD_S", 0.5)
    slept: list[float] = []
    monkeypatch.setattr(remote.time, "sleep", slept.append)
    assert texts(items_of(f"{web.address}/a.jsonl")) == TEXTS
    assert slept[1] == 1.0  # as the server asked
    said = capsys.readouterr().err
    assert said == f"{web.address}/a.jsonl: the server answers 429 Too Many Requests; waiting 1 s\n"


def test_a_server_that_goes_on_failing_ends_the_reading_of_all_files(web: Served) -> None:
    web.files |= {"/t/": b"<a href=a.txt>a</a> <a href=b.txt>b</a>", "/t/a.txt": b"One" * 999}
    web.files["/t/b.txt"] = b"Two"
    web.faults["/t/a.txt"] = ["none"] + ["503"] * 999
    with pytest.raises(OutageError, match=r"/t/a\.txt: the server answers 503 .*run again"):
        items_of(f"{web.address}/t/")
    with file_server() as other:
        gone = f"{other.address}/a.txt"
    with pytest.raises(OutageError, match="no connection"):
        items_of(gone)


def test_a_file_that_is_cut_short_is_named_and_costs_itself(web: Served) -> None:
    web.files |= {"/t/": b"<a href=a.txt>a</a> <a href=b.txt>b</a>", "/t/a.txt": b"One" * 600}
    web.files["/t/b.txt"] = b"Two"
    web.faults["/t/a.txt"] = ["none"] + ["cut 800"] * 99
    items = items_of(f"{web.address}/t/")
    assert texts(items)[-1] == "Two"
    (bad,) = (item for item in items if isinstance(item, BadLine))
    assert bad.reason == "ends after 1,000 of 1,800 bytes: it is cut short there"
    assert bad.size == 1800


def test_a_file_that_changes_while_it_is_read_is_named(
    web: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "BLOCK_BYTES", 100_000)
    web.files["/a.jsonl"] = JSONL * 60
    sources, _ = find_sources([f"{web.address}/a.jsonl"])
    items = read_documents(sources, "text")
    next(items)
    web.files["/a.jsonl"] = JSONL.replace(b"Tale", b"Song") * 60
    with pytest.raises(DataError, match="has changed while it was read"):
        list(items)


def test_what_a_folder_of_the_web_holds_is_chosen_as_in_a_local_one(web: Served) -> None:
    links = ["a.jsonl", "sub/", "../up.txt", "README.md", "x.bin", "/t/?C=N", "test.jsonl", "#top"]
    page = "".join(f'<a href="{link}">x</a>' for link in [*links, "train.jsonl", "no.jsonl"])
    web.files |= {"/t/": page.encode(), "/t/sub/": b"<a href=b%20c.txt>b</a><a href=/t/>up</a>"}
    web.files |= {f"/t/{name}": JSONL for name in ("a.jsonl", "test.jsonl", "train.jsonl")}
    web.files |= {"/t/README.md": b"About", "/t/x.bin": b"x", "/up.txt": b"Up"}
    web.files["/t/sub/b%20c.txt"] = b"Two"
    sources, not_read = find_sources([f"{web.address}/t"], for_training=True)
    names = [source.name.removeprefix(f"{web.address}/t/") for source in sources]
    assert names == ["a.jsonl", "sub/b%20c.txt", "train.jsonl"]
    reasons = {left.path.name: left.reason for left in not_read}
    assert reasons == {
        "README.md": "about the dataset, not of it",
        "x.bin": "in no text format",
        "test.jsonl": "a test split",
    }
    assert texts(list(read_documents(sources, "text"))) == [*TEXTS, "Two", *TEXTS]


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("/none.txt", "no such file or folder"),
        ("/none/", "no such file or folder"),
        ("/401.txt", "access is refused (401): credentials are missing or wrong: put name and"),
        ("/403.txt?token=secret", "access is refused (403)"),
        ("/t/", "no text there (not read: in no text format)"),
    ],
)
def test_what_is_refused_is_said_in_one_line_without_a_secret(
    address: str, reason: str, web: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.files |= {"/t/": b"<a href=x.bin>", "/t/x.bin": b"x", "/401.txt": b"x", "/403.txt": b"x"}
    web.faults |= {"probe /401.txt": ["401"], "probe /403.txt": ["403"]}
    with pytest.raises(DataError) as refused:
        items_of(web.address + address)
    said = str(refused.value)
    assert reason in said and "secret" not in said and "\n" not in said


def test_addresses_are_shown_without_secrets_and_a_password_in_one_is_refused() -> None:
    address = "https://host/a.txt?id=3&X-Amz-Signature=abc&token=def&sig=g&Expires=1&part=2"
    assert shown_address(address) == "https://host/a.txt?id=3&part=2"
    assert shown_address("s3://bucket/a?b/c@d.txt") == "s3://bucket/a?b/c@d.txt"
    assert shown_address("sftp://me:secret@host/a@b.txt") == "sftp://host/a@b.txt"
    with pytest.raises(DataError, match=r"http://\[host/a\.txt: is no address"):
        find_sources(["http://[host/a.txt"])
    with pytest.raises(DataError, match=r"https://host/a\.txt: leave name and password out"):
        find_sources(["https://me:secret@host/a.txt"])
    assert not is_remote("hf://owner/name") and is_remote("hf://datasets/owner/name/a.txt")
    assert not is_remote("a/b.txt") and not is_remote("C:/b.txt")
    with pytest.raises(DataError, match="no known kind of address"):
        find_sources(["nothing-such://a/b.txt"])


def test_a_dataset_of_remote_text_is_used_again_until_the_text_changes(
    web: Served, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    web.files["/a.jsonl"] = JSONL
    config = load_config(data_path=(f"{web.address}/a.jsonl",))
    report = prepare(config, tokenizer, tmp_path / "data")
    assert report.documents == len(TEXTS)
    assert any(line.startswith("  files          1 jsonl") for line in report.lines())
    assert prepare(config, tokenizer, tmp_path / "data").reused
    web.files["/a.jsonl"] = JSONL.replace(b"Tale", b"Song")  # of the same size
    with pytest.raises(DataError, match=r"a\.jsonl has changed since"):
        prepare(config, tokenizer, tmp_path / "data")


def test_a_local_copy_gives_the_same_tokens(
    web: Served, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    web.files["/a.jsonl"] = JSONL
    web.faults["/a.jsonl"] = ["drop 77", "503", "drop 1"]
    (tmp_path / "a.jsonl").write_bytes(JSONL)
    made = []
    for number, path in enumerate((f"{web.address}/a.jsonl", str(tmp_path / "a.jsonl"))):
        folder = tmp_path / f"data {number}"
        prepare(load_config(data_path=(path,)), tokenizer, folder)
        made.append({file.name: file.read_bytes() for file in folder.glob("*.bin")})
    assert made[0] and made[0] == made[1]


def test_other_addresses_are_read_by_fsspec() -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    for name, data in files().items():
        memory.pipe(f"/texts/{name}", data)
    try:
        assert texts(items_of("memory://texts/a.jsonl")) == TEXTS
        assert texts(items_of("memory://texts")) == TEXTS * len(files())
        assert texts(items_of("memory://texts/*.j*l")) == TEXTS
        with pytest.raises(DataError, match=r"memory://none/a\.txt: no such file or folder"):
            items_of("memory://none/a.txt")
        with pytest.raises(DataError, match=r"ftp://127\.0\.0\.1:1/a\.txt: cannot be opened"):
            items_of("ftp://me:secret@127.0.0.1:1/a.txt")
    finally:
        memory.rm("/texts", recursive=True)


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """moto's server of S3 with a bucket of texts; its address."""
    pytest.importorskip("obstore")
    pytest.importorskip("moto")
    with s3_server() as address:
        put(address, "texts")
        for name, data in files().items():
            put(address, f"texts/all/{name}", data)
        put(address, "texts/all/sub dir/b.txt", b"Two")
        put(address, "texts/all/.hidden.txt", b"no")
        put(address, "texts/large.txt", b"word " * 3000)
        yield address


@pytest.fixture
def s3(bucket: str, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": bucket, "AWS_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    return bucket


@pytest.mark.parametrize("name", files())
def test_an_object_of_s3_is_read_as_a_local_file(name: str, s3: str) -> None:
    assert texts(items_of(f"s3://texts/all/{name}")) == TEXTS


def test_a_bucket_of_google_is_read_as_one_of_s3(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its XML interface is that of S3."""
    monkeypatch.setenv("GOOGLE_BASE_URL", bucket)
    monkeypatch.setenv("GOOGLE_BEARER_TOKEN", "token")
    assert texts(items_of("gs://texts/all/*.jsonl", "gcs://texts/all/a.parquet")) == TEXTS * 2
    with pytest.raises(DataError, match=r"gs://none: there is no such bucket"):
        items_of("gs://none")


def test_a_dataset_in_s3_is_read_shard_by_shard(
    s3: str, many_shards: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("JIELONG_CACHE", str(tmp_path))
    for file in many_shards.rglob("*"):
        if file.is_file():
            put(s3, f"texts/my set/{file.relative_to(many_shards)}", file.read_bytes())
    folder = find_remote_dataset("s3://texts/my set/")
    assert folder is not None
    ours, theirs = open_prepared(folder).train, open_dataset(many_shards).train
    assert (ours.read(0, len(ours)) == theirs.read(0, len(theirs))).all()
    assert (ours.documents == theirs.documents).all()
    with pytest.raises(DataError, match="is a prepared dataset, not text"):
        items_of("s3://texts/my set")
    assert find_remote_dataset("s3://texts/none") is None


@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
def test_an_object_store_that_drops_and_throttles_is_read_to_the_end(
    scheme: str, web: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("obstore")
    azure = f"AccountName=me;AccountKey=a2V5;BlobEndpoint={web.address}"
    stores = {
        "s3": {**KEYS, "AWS_ENDPOINT_URL": web.address, "AWS_REGION": "x"},
        "gs": {"STORAGE_EMULATOR_HOST": web.address.removeprefix("http://")},
        "az": {"AZURE_STORAGE_CONNECTION_STRING": azure},
    }
    for name, value in stores[scheme].items():
        monkeypatch.setenv(name, value)
    address = f"{scheme}://texts/a.jsonl"
    path = "/texts/a%2Ejsonl" if scheme == "gs" else "/texts/a.jsonl"
    web.files[path] = JSONL
    web.faults[path] = ["drop 300", "503", "none", "drop 0", "500", "drop 10"]
    assert texts(items_of(address)) == TEXTS
    web.faults[path] = ["503"] * 999
    with pytest.raises(OutageError, match=f"{address}: the server answers 503"):
        items_of(address)
    web.faults[path] = ["403"]
    with pytest.raises(DataError, match="credentials are missing or wrong"):
        items_of(address)


AZURE_LIST = """<EnumerationResults><Blobs>{}</Blobs><NextMarker/></EnumerationResults>"""
AZURE_BLOB = """<Blob><Name>{}</Name><Properties><Content-Length>{}</Content-Length><Etag>{}</Etag>
<Last-Modified>Fri, 27 Nov 2026 12:00:00 GMT</Last-Modified><Content-Type/></Properties></Blob>"""


def test_a_container_of_azure_is_read_as_a_folder(
    web: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("obstore")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "me")
    monkeypatch.setenv("AZURE_STORAGE_KEY", "a2V5")
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", web.address)
    names = ["all/a.jsonl", "you@home.jsonl", "x.bin"]
    web.files |= {f"/texts/{name}": JSONL for name in names}
    blobs = "".join(AZURE_BLOB.format(name, len(JSONL), hash(JSONL)) for name in names)
    web.files["/texts"] = AZURE_LIST.format(blobs).encode()
    sources, not_read = find_sources(["az://texts"])
    assert [source.name for source in sources] == [f"az://texts/{name}" for name in names[:2]]
    assert [left.path.name for left in not_read] == ["x.bin"]
    items = list(read_documents(sources, "text"))  # with no remark: none has changed
    assert texts(items) == TEXTS * 2 and len(items) == len(TEXTS) * 2
    by_account = "abfss://texts@me.dfs.core.windows.net"
    assert find_sources([by_account])[0][0].name == f"{by_account}/all/a.jsonl"
    web.files["/texts"] = b"<html>"
    with pytest.raises(DataError, match="az://texts: what answers is no such store"):
        items_of("az://texts")


def test_a_prefix_of_s3_is_read_as_a_folder_and_globs_choose(s3: str) -> None:
    sources, not_read = find_sources(["s3://texts/all"])
    assert [source.name for source in sources] == [
        *(f"s3://texts/all/{name}" for name in sorted(files())),
        "s3://texts/all/sub dir/b.txt",
    ]
    assert [(str(left.path), left.reason) for left in not_read] == [
        ("s3:/texts/all/.hidden.txt", "hidden")
    ]
    assert texts(items_of("s3://texts/all/*.parquet", "s3://texts/**/b.txt")) == [*TEXTS, "Two"]
    assert "".join(texts(items_of("s3://texts/large.txt"))).split() == ["word"] * 3000


def test_an_object_of_s3_that_changes_is_noticed(
    s3: str, tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "BLOCK_BYTES", 100_000)
    put(s3, "texts/changing.jsonl", JSONL * 60)
    config = load_config(data_path=("s3://texts/changing.jsonl",))
    prepare(config, tokenizer, tmp_path / "data")
    assert prepare(config, tokenizer, tmp_path / "data").reused
    items = read_documents(find_sources(config.data.data_path)[0], "text")
    next(items)
    put(s3, "texts/changing.jsonl", JSONL.replace(b"Tale", b"Song") * 60)
    with pytest.raises(DataError, match="has changed while it was read"):
        list(items)
    with pytest.raises(DataError, match=r"changing\.jsonl has changed since"):
        prepare(config, tokenizer, tmp_path / "data")


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("s3://texts/none.txt", "s3://texts/none.txt: no such file or folder"),
        ("s3://no-such-bucket/a.txt", "no such file or folder|no such bucket"),
        ("s3://texts/all/.hidden", "no such file or folder"),
    ],
)
def test_what_s3_does_not_have_is_said(address: str, reason: str, s3: str) -> None:
    with pytest.raises(DataError, match=reason):
        items_of(address)


def test_wrong_and_missing_credentials_are_one_line_without_a_secret(
    s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with s3_server(INITIAL_NO_AUTH_ACTION_COUNT="0") as guarded:
        monkeypatch.setenv("AWS_ENDPOINT_URL", guarded)
        for address in ("s3://texts/a.txt", "s3://texts/"):
            with pytest.raises(DataError, match="credentials are missing or wrong") as refused:
                items_of(address)
            assert "very-secret" not in str(refused.value) and "\n" not in str(refused.value)
    for name in KEYS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(DataError, match=r"set AWS_ACCESS_KEY_ID|no connection") as refused:
        items_of("s3://texts/a.txt")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("address", "environment", "reason"),
    [
        ("az://texts/a.txt", {}, "whose storage account .* AZURE_STORAGE_CONNECTION_STRING"),
        ("gs://", {}, "gs://: no bucket is named there"),
        (
            "gs://texts/a.txt",
            {"GOOGLE_APPLICATION_CREDENTIALS": "none.json"},
            "GOOGLE_APPLICATION_CREDENTIALS=none.json cannot be read",
        ),
        (
            "az://texts/a.txt",
            {"AZURE_STORAGE_ACCOUNT_NAME": "me", "AZURE_STORAGE_ACCOUNT_KEY": "no key"},
            "AZURE_STORAGE_ACCOUNT_KEY is no key",
        ),
        (
            "az://texts/a.txt",
            {"AZURE_STORAGE_ACCOUNT_NAME": "me", "AZURE_USE_AZURE_CLI": "true", "PATH": ""},
            "access is refused .401.: .* az login",
        ),
    ],
)
def test_what_google_and_azure_lack_is_named(
    address: str, environment: dict[str, str], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("obstore")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DataError, match=reason):
        items_of(address)


def test_a_profile_of_aws_is_used(s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (*KEYS, "AWS_ENDPOINT_URL", "AWS_REGION"):
        monkeypatch.delenv(name)
    (tmp_path / ".aws").mkdir()
    keys = "aws_access_key_id = testing\naws_secret_access_key = very-secret\n"
    (tmp_path / ".aws" / "credentials").write_text(f"[mine]\n{keys}")
    config = f"[profile mine]\nregion = us-east-1\nendpoint_url = {s3}\n"
    (tmp_path / ".aws" / "config").write_text(config)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_PROFILE", "mine")
    assert texts(items_of("s3://texts/all/a.jsonl")) == TEXTS


def test_without_the_extra_s3_is_named_with_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from jielong.data.sources import remote_listing

    monkeypatch.setattr(remote_listing.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"s3://b/a\.txt: .*pip install 'jielong\[remote\]'"):
        find_sources(["s3://b/a.txt"])


def test_a_command_reads_a_remote_text_and_ends(web: Served, tmp_path: Path) -> None:
    """In a process of its own, as a user runs it: nothing of the readers keeps it alive."""
    web.files["/a.jsonl"] = JSONL
    words = ["tokenizer", "--data-path", f"{web.address}/a.jsonl", "--vocab-size", "320"]
    done = subprocess.run(
        [sys.executable, "-m", "jielong", *words, "--out-dir", str(tmp_path / "tokenizer")],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,  # rather than for ever
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "tokenizer" / "tokenizer.json").is_file()
