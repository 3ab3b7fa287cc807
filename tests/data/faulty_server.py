"""A server of files on this machine that fails as real ones do, and moto's server of S3.

Each of a file's faults is used up by one request, in order.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from jielong.data.sources import remote

UP_S = 30.0


@dataclass
class Served:
    """What a server has.

    Attributes:
        files: by path; a path that ends with `/` is a page of links.
        faults: by path, and `probe PATH` for requests of its size alone: `drop N` closes the
            connection after N bytes of the answer, `cut N` gives N bytes fewer, `STATUS` or
            `STATUS SECONDS` (to wait) is an answer, `none` is no fault.
        damaged: by path, how often the first byte of a file is sent with a bit flipped.
        ranges: whether it knows ranges.
        lengths: whether it says how large files are.
        asked: paths and ranges of the requests for content.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(default_factory=dict)
    damaged: dict[str, int] = field(default_factory=dict)
    ranges: bool = True
    lengths: bool = True
    asked: list[tuple[str, str]] = field(default_factory=list)
    address: str = ""


def impatient(
    patch: pytest.MonkeyPatch, contact_s: float, patience_s: float, **more: object
) -> None:
    """Have servers on this machine asked again at once, and given up soon.

    Args:
        more: other constants of `remote`.
    """
    patch.setenv("NO_PROXY", "127.0.0.1")
    waits = {"FIRST_WAIT_S": 0.001, "LONGEST_WAIT_S": 0.002}
    for name, value in (waits | {"CONTACT_S": contact_s, "PATIENCE_S": patience_s} | more).items():
        patch.setattr(remote, name, value)


def start_of(asked: str) -> int:
    """The first byte of a range that was asked for."""
    return int(asked.removeprefix("bytes=").partition("-")[0] or 0)


def _headers(data: bytes) -> dict[str, str]:
    return {"ETag": f'"{hash(data)}"', "Last-Modified": "Fri, 27 Nov 2026 12:00:00 GMT"}


def _handler(served: Served) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else head and body of an answer wait for one another
        timeout = 10

        def log_message(self, format: str, *values: object) -> None:
            pass

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            asked = self.headers.get("Range", "")
            if asked != "bytes=0-0":
                served.asked.append((path, asked))
            is_probe = asked == "bytes=0-0"
            faults = served.faults.get(f"probe {path}" if is_probe else path, [])
            fault = faults.pop(0) if faults else "none"
            if path not in served.files:
                self._answer(404, b"")
            elif fault[0].isdigit():
                status, _, wait = fault.partition(" ")
                self._answer(int(status), b"busy", {"Retry-After": wait} if wait else {})
            else:
                self._file(path, asked, fault)

        def do_HEAD(self) -> None:
            data = served.files.get(self.path)
            self._answer(404 if data is None else 200, data or b"", _headers(data or b""))

        def _file(self, path: str, asked: str, fault: str) -> None:
            data = served.files[path]
            headers = _headers(data)
            if path.endswith("/"):
                headers["Content-Type"] = "text/html"
            status, place = 200, re.fullmatch(r"bytes=(\d+)-(\d+)", asked)
            if served.ranges and place and self.headers.get("If-Range") in (None, headers["ETag"]):
                start, end = int(place[1]), min(int(place[2]) + 1, len(data))
                headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
                status = 206
                if start >= len(data):
                    headers["Content-Range"] = f"bytes */{len(data)}"
                    status, start = 416, end
                data = data[start:end]
            if asked != "bytes=0-0" and start_of(asked) == 0 and served.damaged.get(path, 0):
                served.damaged[path] -= 1
                data = bytes([data[0] ^ 1]) + data[1:]
            kind, _, count = fault.partition(" ")
            if kind == "cut":
                data = data[: len(data) - int(count)]
            self._answer(status, data, headers, int(count) if kind == "drop" else None)

        def _answer(
            self, status: int, data: bytes, headers: dict[str, str] | None = None, drop=None
        ) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            if served.lengths or status != 200:
                self.send_header("Content-Length", str(len(data)))
            else:
                self.send_header("Transfer-Encoding", "chunked")
                data = b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data) if data else b"0\r\n\r\n"
            self.end_headers()
            with contextlib.suppress(OSError):
                if self.command != "HEAD":
                    self.wfile.write(data if drop is None else data[:drop])
                if drop is not None:
                    self.wfile.flush()
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True

    return Handler


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that is gone is no news."""


@contextlib.contextmanager
def file_server() -> Iterator[Served]:
    served = Served()
    server = _Quiet(("127.0.0.1", 0), _handler(served))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.daemon = True
    thread.start()
    served.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def s3_server(**environment: str) -> Iterator[str]:
    """moto's server, in a process of its own; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, env={**os.environ, **environment}, **quiet)
    address = f"http://127.0.0.1:{port}"
    try:
        begin = time.monotonic()
        while True:
            try:
                with urllib.request.urlopen(f"{address}/moto-api/", timeout=5):
                    break
            except urllib.error.HTTPError:
                break
            except OSError:
                if time.monotonic() - begin > UP_S or process.poll() is not None:
                    raise
                time.sleep(0.05)
        yield address
    finally:
        process.kill()
        process.wait()


def put(address: str, key: str, data: bytes = b"") -> None:
    """Make a bucket, or an object in it; moto wants a signature but does not check it."""
    signature = "AWS4-HMAC-SHA256 Credential=a/20200101/us-east-1/s3/aws4_request"
    headers = {"Authorization": signature, "Content-Type": "application/octet-stream"}
    request = urllib.request.Request(
        f"{address}/{urllib.request.quote(key)}", data=data, headers=headers, method="PUT"
    )
    with urllib.request.urlopen(request, timeout=10):
        pass
