"""`jielong ui` as a process: what it prints, its mistakes, its end."""

from __future__ import annotations

import http.client
import re
import signal
from pathlib import Path

from jielong.serving.server import listen
from live_page import GrowingRun
from live_server import said_when_ready
from tiny import in_this_process, jielong


def test_it_prints_a_page_that_its_token_opens_and_ends_calmly_on_sigterm(
    folders: list[Path], tmp_path: Path
) -> None:
    growing = GrowingRun(tmp_path / "growing")  # a run without a checkpoint can be watched
    listening = ["--host", "0.0.0.0", "--port", "0", "--lang", "zh"]
    process = jielong("ui", str(growing.folder), str(folders[0]), *listening)
    said = said_when_ready(process)
    assert "growing: 还没有检查点，只能观看" in said and "first: 第 " in said and "结束" in said
    found = re.search(r"http://0\.0\.0\.0:(\d+)(/login\?token=\S+)", said)
    assert found
    for path, status in (("/", 401), (found[2], 303), ("/health", 200)):
        connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=30)
        connection.request("GET", path)
        assert connection.getresponse().status == status
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 0
    assert process.stderr is not None and process.stderr.read() == ""


def test_mistakes_are_one_line(folders: list[Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with listen("127.0.0.1", 0) as taken:
        taken.listen()
        port = str(taken.getsockname()[1])
        for words, told in (
            ([str(tmp_path / "none")], "no such folder"),
            ([str(tmp_path / "empty")], "contains no model"),
            ([str(folders[0]), "--port", port], "give --host or --port"),
            ([str(folders[0]), "--port", "99999"], "port=99999 is not between"),
            ([str(folders[0]), "--device", "abacus"], "abacus"),
        ):
            status, said = in_this_process(["ui", *words])
            assert status == 2 and said.startswith("error: ") and told in said, said
            assert said.count("\n") == 1
