"""`jielong serve` as a process: what it prints, its token, its end."""

from __future__ import annotations

import http.client
import json
import re
import signal
import sys
from pathlib import Path

import pytest

from jielong.checkpoint.checkpoint import write_model_folder
from jielong.serving.server import is_local, listen
from jielong.tokenization.tokenizer import Tokenizer
from live_server import model_of, said_when_ready
from tiny import in_this_process, jielong


@pytest.fixture(scope="module")
def folder(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tale"
    folder.mkdir()
    write_model_folder(folder, model_of(tokenizer), tokenizer)
    return folder


def test_it_says_where_it_listens_and_ends_calmly_on_sigterm(folder: Path) -> None:
    process = jielong("serve", str(folder), "--host", "0.0.0.0", "--port", "0", "--lang", "zh")
    said = said_when_ready(process)
    port = int(re.search(r"http://0\.0\.0\.0:(\d+)/v1", said)[1])  # type: ignore[index]
    token = re.search(r"token +(\S+)", said)[1]  # type: ignore[index]
    assert "tale" in said and "上下文 64 个 token" in said and "结束" in said
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/v1/models")
    assert connection.getresponse().status == 401
    asked = {"prompt": "Tale", "max_tokens": 600, "ignore_eos": True, "stream": True}
    headers = {"Authorization": f"Bearer {token}"}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", "/v1/completions", json.dumps(asked), headers)
    answer = connection.getresponse()
    assert answer.status == 200
    first = answer.readline()
    process.send_signal(signal.SIGTERM)
    events = [line for line in (first + answer.read()).split(b"\n") if line]
    assert events[-1] == b"data: [DONE]"
    assert json.loads(events[-2].removeprefix(b"data: "))["choices"][0]["finish_reason"] == "length"
    assert process.wait(timeout=30) == 0
    assert process.stderr is not None and process.stderr.read() == ""
    with pytest.raises(OSError):
        http.client.HTTPConnection("127.0.0.1", port, timeout=5).connect()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--slots", "0"], "slots=0 is below 1"),
        (["--max-tokens", "0"], "max_tokens=0 is below 1"),
        (["--host", "no.such.host.invalid"], "cannot listen on no.such.host.invalid"),
        (["--port", "99999"], "port=99999 is not between"),
    ],
)
def test_mistakes_are_one_line(folder: Path, words: list[str], told: str) -> None:
    status, said = in_this_process(["serve", str(folder), *words])
    assert status == 2 and said.startswith("error: ") and told in said
    assert said.count("\n") == 1


def test_a_taken_port_is_told(folder: Path) -> None:
    with listen("127.0.0.1", 0) as taken:
        taken.listen()
        status, said = in_this_process(
            ["serve", str(folder), "--port", str(taken.getsockname()[1])]
        )
    assert status == 2 and "--port" in said


def test_a_token_that_is_none_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for token in ("", "short", "with a space", "密码密码密码密码"):
        monkeypatch.setenv("JIELONG_TOKEN", token)
        status, said = in_this_process(["serve", str(folder)])
        assert status == 2 and "JIELONG_TOKEN" in said


@pytest.mark.parametrize("name", ["starlette", "uvicorn", "jinja2"])
def test_without_the_extra_it_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    status, said = in_this_process(["serve", str(folder)])
    assert status == 2 and "pip install 'jielong[serve]'" in said


def test_only_this_machine_is_local() -> None:
    assert is_local("127.0.0.1") and is_local("localhost") and is_local("::1")
    assert not any(map(is_local, ("0.0.0.0", "::", "192.168.0.1", "example.org")))
