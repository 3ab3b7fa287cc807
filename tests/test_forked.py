"""The processes that tests start are what `python` with the same words is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from forked import Forked
from tiny import environment, until

LOOK = """
import json, os, random, signal, sys, threading
print(json.dumps([sys.argv, dict(os.environ), os.getcwd(), __name__, threading.active_count(),
    str(signal.getsignal(signal.SIGINT)), sys.stdin.read(), sys.stdout.isatty()]))
"""


def test_it_sees_what_a_new_interpreter_sees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    variables = environment(ONLY_HERE="1")
    words = ["-c", LOOK, "a", "b c"]
    expected = subprocess.run(
        [sys.executable, *words], env=variables, stdin=subprocess.DEVNULL, capture_output=True
    ).stdout.decode()
    assert Forked(words, variables).communicate() == (expected, "")


@pytest.mark.parametrize(
    ("text", "status", "told"),
    [
        ("print('done')", 0, ""),
        ("import sys; sys.exit(3)", 3, ""),
        ("import os; os._exit(7)", 7, ""),
        ("raise RuntimeError('odd')", 1, "RuntimeError: odd"),
        ("import ctypes; ctypes.string_at(0)", -signal.SIGSEGV, ""),
    ],
)
def test_its_end_is_told(text: str, status: int, told: str) -> None:
    process = Forked(["-c", text], environment())
    said, errors = process.communicate(timeout=600)
    assert process.returncode == status and said == "done\n" * (text == "print('done')")
    assert errors.count("Traceback") == bool(told) and told in errors


def test_a_module_runs_as_main_and_its_errors_can_join_what_it_says() -> None:
    process = Forked(["-m", "jielong", "generate"], environment(), merged=True)
    said, errors = process.communicate()
    assert process.returncode == 2 and said.startswith("error: ") and errors == ""


def test_it_is_stopped_and_ended_by_signals() -> None:
    waits = "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n"
    process = Forked(["-c", waits + "print('ready', flush=True)\ntime.sleep(1000)"], environment())
    assert until(lambda: Path(process.paths[0]).read_text() == "ready\n")
    os.kill(process.pid, signal.SIGSTOP)
    process.terminate()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.2)
    assert process.poll() is None
    os.kill(process.pid, signal.SIGCONT)
    assert process.wait(600) == 5
    process.kill()  # which has ended, and stays as it is
    assert process.returncode == 5
    other = Forked(["-c", "import time; time.sleep(1000)"], environment())
    other.kill()
    assert other.wait() == -signal.SIGKILL
