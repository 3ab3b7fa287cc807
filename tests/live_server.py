"""A server as `jielong serve` runs it, on a thread of the test."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from jielong.model.transformer import Transformer
from jielong.serving.app import create_app
from jielong.serving.engine import Engine
from jielong.serving.guard import Access
from jielong.serving.limits import Limits
from jielong.serving.server import Server, listen
from jielong.tokenization.tokenizer import Tokenizer
from tiny import tiny_model

NAME = "tale"


@dataclasses.dataclass
class Live:
    """A running server."""

    engine: Engine
    server: Server
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def send(self, *parts: bytes) -> bytes:
        """Send bytes; return the answer."""
        with self.connect() as connection:
            with contextlib.suppress(ConnectionError):  # it may answer before it has read all
                for part in parts:
                    connection.sendall(part)
            return read_answer(connection)

    def post(self, body: bytes, *headers: bytes, path: bytes = b"/v1/completions") -> bytes:
        return self.send(request(body, *headers, path=path))


def read_answer(connection: socket.socket) -> bytes:
    """Read to the end of an answer, or to where the connection is closed."""
    answer = b""
    while more := connection.recv(65536):
        answer += more
        head, found, body = answer.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head.lower())
        if found and (len(body) >= int(length[1]) if length else body.endswith(b"0\r\n\r\n")):
            break
    return answer


def request(body: bytes, *headers: bytes, path: bytes = b"/v1/completions") -> bytes:
    """The bytes of a request; a Host among `headers` replaces our own."""
    lines = [b"POST %s HTTP/1.1" % path, b"Content-Length: %d" % len(body), *headers]
    if not any(header.startswith(b"Host:") for header in headers):
        lines.append(b"Host: localhost")
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for what another thread does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.005)


def said_when_ready(process: subprocess.Popen[str]) -> str:
    """Return what a command has printed when it listens."""
    assert process.stdout is not None and process.stderr is not None
    said = ""
    while "Ctrl-C" not in said:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        said += line
    return said


def model_of(tokenizer: Tokenizer, **changes: Any) -> Transformer:
    """A model whose every weight matters and whose logits are far from even."""
    model = tiny_model(vocab_size=tokenizer.vocab_size, **changes)
    with torch.no_grad():
        model.lm_head.weight.mul_(3)
    return model


@contextlib.contextmanager
def live(
    model: Transformer, tokenizer: Tokenizer, access: Access | None = None, **limits: Any
) -> Iterator[Live]:
    """Serve the model; end when the test has."""
    engine = Engine(model, tokenizer, Limits(**limits))
    server = Server(create_app(engine, NAME, access or Access()), engine, engine.limits)
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    engine.start()
    thread = threading.Thread(target=server.serve_on, args=(listener,))
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield Live(engine, server, port)
    finally:
        server.should_exit = True
        thread.join()
