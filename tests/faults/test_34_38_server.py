"""A server among clients that mean harm, are broken, slow, or too many."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from jielong.serving.guard import Access
from jielong.tokenization.tokenizer import Tokenizer
from live_server import Live, live, model_of, request, status, wait_until

TOKEN = "a-token-of-the-test"
LONG = {"prompt": "Tale", "max_tokens": 4000, "ignore_eos": True, "stream": True}
SHORT = {"prompt": "Tale", "max_tokens": 3}


@pytest.fixture(scope="module")
def server(tokenizer: Tokenizer) -> Iterator[Live]:
    limits: dict[str, Any] = {"slots": 4, "queue": 8, "header_s": 0.5, "body_s": 0.5}
    with live(model_of(tokenizer), tokenizer, **limits, send_s=0.5) as running:
        yield running
        wait_until(lambda: not running.server.server_state.connections)
        assert running.engine.jobs == running.engine.busy_slots == 0


def body(values: dict[str, Any]) -> bytes:
    return json.dumps(values).encode()


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def alive(server: Live) -> bool:
    return status(server.post(body(SHORT))) == 200


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_34_a_huge_prompt_in_chunks_is_refused_and_takes_no_memory(server: Live) -> None:
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"100000\r\n" + b"a" * 2**20 + b"\r\n"
    before = resident_bytes()
    with server.connect() as connection:
        connection.sendall(head)
        with contextlib.suppress(ConnectionError):  # it closes the connection at some time
            for _ in range(100):
                connection.sendall(chunk)
                assert resident_bytes() - before < 50e6
        with contextlib.suppress(ConnectionError):
            assert status(connection.recv(4096)) == 413
    assert status(server.send(head, chunk, chunk)) == 413
    assert status(server.post(b"", b"Content-Length: 104857600")) in (400, 413)
    told = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 104857600\r\n\r\n"
    assert status(server.send(told)) == 413
    assert alive(server)


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"prompt": "\xe4\xbd"}',
        b'{"prompt": "\\ud800"}',
        b'{"prompt": ' + b"[" * 100_000,
        b'{"prompt": ' + b"[" * 500 + b"]" * 500 + b"}",
        b'{"prompt": 1' + b"0" * 5000 + b"}",
        b'{"a": 1, "prompt": "x"}',
        b'{"prompt": {"a": "x"}}',
        b'{"prompt": [["a"], "x"]}',
        b'{"prompt": "x", "seed": 99999999999999999999}',
    ],
)
def test_35_broken_bodies_are_the_clients_mistake(server: Live, broken: bytes) -> None:
    for path in (b"/v1/completions", b"/v1/chat/completions"):
        answer = server.post(broken, path=path)
        assert status(answer) == 400
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["message"]


def test_35_a_null_character_and_any_unicode_are_text(server: Live) -> None:
    for text in ("\0", "春🙂\u202e", "\ufffd\ufeff", "<|im_end|>"):
        assert status(server.post(body(SHORT | {"prompt": text}))) == 200


def test_35_many_requests_at_once_get_an_answer_or_are_told_to_wait(server: Live) -> None:
    kinds = itertools.cycle(
        [
            body(SHORT),
            body(SHORT | {"stream": True}),
            b"{",
            None,  # leaves in the middle of its text
            body(SHORT | {"n": 3, "logprobs": 2, "echo": True}),
        ]
    )
    statuses: Counter[int] = Counter()

    async def one(asked: bytes | None) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(request(asked or body(LONG), b"Connection: close"))
        answer = await (reader.read(200) if asked is None else reader.read())
        if asked is not None:
            statuses[status(answer)] += 1
            if b"text/event-stream" in answer:
                assert answer.rstrip().endswith((b"[DONE]", b"0"))
            if status(answer) == 429:
                assert b"retry-after: " in answer
        writer.close()

    async def client(count: int) -> None:
        for _ in range(count):
            await one(next(kinds))

    async def clients() -> None:
        await asyncio.gather(*(client(20) for _ in range(50)))

    asyncio.run(clients())
    settled = resident_bytes() if Path("/proc/self/statm").exists() else None
    asyncio.run(clients())
    wait_until(lambda: server.engine.jobs == server.engine.busy_slots == 0)
    assert server.engine.waiting_texts == 0
    assert statuses.keys() <= {200, 400, 429, 503} and statuses[200] > 20
    assert settled is None or resident_bytes() - settled < 20e6


def test_35_a_client_that_leaves_frees_its_slot(server: Live) -> None:
    written = server.engine.counters.generated_tokens
    for asked in (LONG, LONG | {"stream": False}):
        cancelled = server.engine.counters.cancelled
        with server.connect() as connection:
            connection.sendall(request(body(asked)))
            wait_until(lambda: server.engine.busy_slots == 1)
        wait_until(lambda: server.engine.busy_slots == 0)
        assert server.engine.counters.cancelled == cancelled + 1
    assert server.engine.counters.generated_tokens - written < 8000  # not by writing to the end


def test_35_slow_heads_and_bodies_are_closed_while_others_are_answered(server: Live) -> None:
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n"
    for begun in (b"", head, head + b'\r\n{"pro'):
        slow = [server.connect() for _ in range(5)]
        for connection in slow:
            connection.sendall(begun)
        assert alive(server)
        for connection in slow:
            answer = b""
            with contextlib.suppress(ConnectionError):
                answer = connection.recv(4096)
            assert answer == b"" or status(answer) == 408
            connection.close()


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system has no such limit")
def test_35_who_does_not_read_is_closed(server: Live) -> None:
    asked = {"prompt": ["Tale " * 12] * 64, "max_tokens": 0, "echo": True, "logprobs": 20}
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(request(body(asked)))
        wait_until(lambda: bool(server.server.server_state.connections))
        wait_until(lambda: not server.server.server_state.connections)


FOREIGN = [
    (b"Host: evil.example", 403),
    (b"Host: localhost.evil.example", 403),
    (b"Host: 127.0.0.1.evil.example:80", 403),
    (b"Host: localhost:8000@evil.example", 403),
    (b"Host: 192.168.0.1", 403),
    (b"Host:", 403),
    (b"Host: localhost\r\nHost: evil.example", 400),
    (b"Origin: http://evil.example", 403),
    (b"Origin: null", 403),
    (b"Origin: http://localhost.evil.example", 403),
    (b"Host: localhost:8000\r\nOrigin: http://localhost:8001", 403),
    (b"Host: localhost:8000\r\nOrigin: http://localhost:8000", 200),
    (b"Host: [::1]:8000", 200),
    (b"Host: LOCALHOST", 200),
]


@pytest.mark.parametrize(("header", "expected"), FOREIGN)
def test_36_foreign_host_and_origin_are_refused(server: Live, header: bytes, expected: int) -> None:
    assert status(server.post(body(SHORT), header)) == expected


@pytest.mark.parametrize(
    "path",
    [
        b"/../../etc/passwd",
        b"/..%2f..%2fetc%2fpasswd",
        b"/v1/models/..%2f..%2fetc%2fpasswd",
        b"/v1/models/../../config.json",
        b"//etc/passwd",
        b"/v1/%00",
        b"/\xff",
        b"file:///etc/passwd",
        b"http://evil.example/v1/models",
    ],
)
def test_36_no_path_leads_to_the_disk(server: Live, path: bytes) -> None:
    answer = server.send(b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % path)
    assert status(answer) in (400, 404)
    assert b"root:" not in answer


def test_36_nothing_is_answered_without_the_token(tokenizer: Tokenizer) -> None:
    access = Access(token=TOKEN, any_address=True)
    with live(model_of(tokenizer), tokenizer, access) as server:
        asked = body(SHORT)
        for header in (
            b"X: y",
            b"Authorization: Bearer",
            b"Authorization: Bearer wrong",
            b"Authorization: Bearer \xff",
            b"Authorization: Basic " + TOKEN.encode(),
        ):
            assert status(server.post(asked, header)) == 401
        right = b"Authorization: Bearer " + TOKEN.encode()
        assert status(server.post(asked, right)) == 200
        assert status(server.post(asked, right, b"Host: 192.168.0.1:80")) == 200
        assert status(server.post(asked, right, b"Host: evil.example")) == 403
        for path, expected in ((b"/metrics", 401), (b"/v1/models", 401), (b"/health", 200)):
            answer = server.send(b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % path)
            assert status(answer) == expected


@pytest.mark.parametrize(
    ("field", "written"),
    [
        ("temperature", b"NaN"),
        ("temperature", b"1e999"),
        ("temperature", b'"NaN"'),
        ("top_p", b"-0.1"),
        ("max_tokens", b"1000000000"),
        ("max_tokens", b"1e9"),
        ("repetition_penalty", b"0"),
        ("top_k", b"-1"),
    ],
)
def test_37_impossible_numbers_are_refused(server: Live, field: str, written: bytes) -> None:
    answer = server.post(b'{"prompt": "x", "%s": %s}' % (field.encode(), written))
    error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    assert status(answer) == 400
    not_json = written in (b"NaN", b"1e999")
    assert error["param"] == (None if not_json else field)
    assert ("not valid JSON" if not_json else field) in error["message"]


def test_38_what_the_model_writes_is_text_never_markup(tokenizer: Tokenizer) -> None:
    markup = "<script>alert(1)</script>"
    model = model_of(tokenizer)
    turn = itertools.cycle(tokenizer.encode(markup))

    def logits(hidden: torch.Tensor) -> torch.Tensor:
        scores = torch.zeros(*hidden.shape[:-1], model.config.vocab_size)
        scores[..., next(turn)] = 50.0
        return scores

    count = len(tokenizer.encode(markup))
    with live(model, tokenizer) as server:
        model.logits = logits  # type: ignore[method-assign]
        asked = {"prompt": "x", "temperature": 0, "max_tokens": count}
        answers = [server.post(body(asked)), server.post(body(asked | {"stream": True}))]
        answers.append(server.post(body({markup: 1})))
        for answer in answers:
            head = answer.partition(b"\r\n\r\n")[0].lower()
            assert b"x-content-type-options: nosniff" in head
            assert b"content-security-policy: default-src 'none'" in head
            assert b"content-type: application/json" in head or b"text/event-stream" in head
        text = json.loads(answers[0].partition(b"\r\n\r\n")[2])["choices"][0]["text"]
        assert text == markup
