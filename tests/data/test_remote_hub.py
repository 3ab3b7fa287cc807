"""`hf://datasets/…`: huggingface_hub's own file system, against a server here that answers as the
Hub does."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest
from faulty_server import impatient

from jielong.data import remote_dataset
from jielong.data.remote_dataset import find_remote_dataset, open_prepared
from jielong.data.shards import open_dataset
from jielong.data.sources import remote
from jielong.data.sources.documents import BadLine, Document, Remark, find_sources, read_documents
from jielong.data.sources.items import Item
from jielong.errors import DataError

hub = pytest.importorskip("huggingface_hub")
constants = pytest.importorskip("huggingface_hub.constants")
REPO = "datasets/someone/texts"
TEXTS = [f"text {number} 文本" for number in range(300)]
JSONL = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS).encode()


@dataclass
class Hub:
    """A dataset on the Hub: its files, requests of their content, and statuses to come."""

    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    faults: list[int] = field(default_factory=list)

    def entries(self, folder: str, recursive: bool) -> list[dict[str, object]] | None:
        """What the Hub says of a folder; None if there is none."""
        inside = {n: d for n, d in self.files.items() if n.startswith(folder)}
        found: dict[str, dict[str, object]] = {}
        for name, data in inside.items():
            first, _, rest = name.removeprefix(folder).partition("/")
            if rest and not recursive:
                found[first] = {"type": "directory", "path": folder + first, "oid": "0", "size": 0}
            else:
                oid = hashlib.sha1(data).hexdigest()
                found[name] = {"type": "file", "path": name, "oid": oid, "size": len(data)}
        return list(found.values()) if inside else None


def _handler(served: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, format: str, *values: object) -> None:
            pass

        def do_GET(self) -> None:
            path, _, query = unquote(self.path).partition("?")
            name = path.removeprefix(f"/{REPO}/resolve/main/")
            if name != path:
                self._content(name)
            elif path == f"/api/{REPO}" or path == f"/api/{REPO}/revision/main":
                self._json({"id": "someone/texts", "sha": "0" * 40, "siblings": []})
            elif path.startswith(f"/api/{REPO}/tree/main"):
                folder = path.removeprefix(f"/api/{REPO}/tree/main").strip("/")
                found = served.entries(
                    folder + "/" if folder else "", "recursive=true" in query.lower()
                )
                self._json(found) if found is not None else self._send(404, error="EntryNotFound")
            else:
                self._send(401, error="RepoNotFound")  # as it says of what is private, too

        def do_HEAD(self) -> None:
            self.do_GET()

        def _content(self, name: str) -> None:
            asked = self.headers.get("Range", "")
            served.asked.append((name, asked))
            if served.faults and (status := served.faults.pop(0)):
                self._send(status)
                return
            data = served.files[name]
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, end = int(first or 0), min(len(data), int(last or len(data)) + 1)
            headers = {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"}
            self._send(206, data[start:end], headers)

        def _json(self, value: object) -> None:
            self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

        def _send(
            self, status: int, data: bytes = b"", headers: dict[str, str] | None = None, error=""
        ) -> None:
            self.send_response(status)
            for name, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            if error:
                self.send_header("X-Error-Code", error)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

    return Handler


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    impatient(monkeypatch, contact_s=0.2, patience_s=0.4, BLOCK_BYTES=1000)
    monkeypatch.setenv("JIELONG_CACHE", str(tmp_path / "cache"))
    found = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(found))
    server.daemon_threads = True
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
    )
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # as the tests say elsewhere
    hub.HfFileSystem.clear_instance_cache()
    try:
        yield found
    finally:
        hub.HfFileSystem.clear_instance_cache()
        server.shutdown()
        server.server_close()
        thread.join()


def items_of(*addresses: str) -> list[Item]:
    return list(read_documents(find_sources(addresses)[0], "text"))


def texts(items: list[Item]) -> list[str]:
    return [item.text for item in items if isinstance(item, Document)]


def test_a_file_of_the_hub_is_read_and_no_byte_of_it_twice(served: Hub) -> None:
    served.files["data/a.jsonl"] = JSONL
    assert texts(items_of(f"hf://{REPO}/data/a.jsonl")) == TEXTS
    ranges = [tuple(map(int, asked.removeprefix("bytes=").split("-"))) for _, asked in served.asked]
    covered = [place for first, last in ranges for place in range(first, last + 1)]
    assert covered == list(range(len(JSONL)))


def test_a_folder_of_the_hub_and_a_glob_are_read(served: Hub) -> None:
    served.files |= {
        "a.jsonl": JSONL,
        "data/b.txt": b"Two",
        "README.md": b"---\nlicense: mit\n---\n",
    }
    served.files["data/.gitattributes"] = b"*.parquet filter=lfs"
    assert texts(items_of(f"hf://{REPO}")) == [*TEXTS, "Two"]
    assert texts(items_of(f"hf://{REPO}/data/*.txt")) == ["Two"]


def test_what_the_hub_does_not_have_or_show_is_said(served: Hub) -> None:
    served.files["a.jsonl"] = JSONL
    for address in (f"hf://{REPO}/none.jsonl", "hf://datasets/someone/private"):
        with pytest.raises(DataError, match=r"no such file or folder, or .*hf auth login"):
            items_of(address)


def test_a_library_that_is_to_stay_offline_is_named_at_once(
    served: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="HF_HUB_OFFLINE is set: unset it"):
        items_of(f"hf://{REPO}/a.jsonl")


def test_a_file_of_the_hub_that_changes_while_it_is_read_is_named(served: Hub) -> None:
    served.files["a.jsonl"] = JSONL
    items = read_documents(find_sources([f"hf://{REPO}/a.jsonl"])[0], "text")
    first = next(items)
    served.files["a.jsonl"] = JSONL[:-1] + b" "
    rest = list(items)
    assert isinstance(first, Document)
    assert any(
        isinstance(i, Remark | BadLine) and "has changed while it was read" in str(i) for i in rest
    )


def test_a_dataset_on_the_hub_is_read_shard_by_shard_and_a_new_one_is_noticed(
    served: Hub, many_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in many_shards.rglob("*"):
        if file.is_file():
            served.files[f"set/{file.relative_to(many_shards)}"] = file.read_bytes()
    address = f"hf://{REPO}/set"
    folder = find_remote_dataset(address)
    assert folder is not None
    ours, here = open_prepared(folder).train, open_dataset(many_shards).train
    assert (ours.read(0, len(ours)) == here.read(0, len(here))).all()
    monkeypatch.setattr(remote_dataset, "FRESH_S", -1.0)
    assert find_remote_dataset(address) == folder
    del served.files["set/dataset.json"]
    assert find_remote_dataset(address) is None


def test_a_hub_that_throttles_is_waited_for(served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # of huggingface_hub's own tries
    monkeypatch.setattr(remote, "PATIENCE_S", 5.0)
    served.files["a.jsonl"] = JSONL
    served.faults = [0, 503, 503, 0, 500]
    assert texts(items_of(f"hf://{REPO}/a.jsonl")) == TEXTS
