"""Terminals that are not UTF-8: nothing ends for what they cannot show."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import pytest

from jielong.cli.main import main
from jielong.cli.terminal import as_utf8
from tiny import TINY_RUN, flags

CHINESE = "床前明月光，疑是地上霜。\n舉頭望明月，低頭思故鄉。🙂"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "gbk", "cp1252", "utf-16"])
def test_a_run_ends_well_on_a_terminal_of_any_encoding(
    encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tmp_path / "text.jsonl"
    text.write_text((json.dumps({"text": CHINESE}) + "\n") * 40)
    screen = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", screen)
    values = TINY_RUN | {"steps": 2, "vocab_size": 270, "sample_tokens": 4, "eval_interval": 1}
    assert main(["pretrain", *flags(values | {"data_path": text, "out_dir": tmp_path / "r"})]) == 0
    screen.flush()
    shown = screen.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    mark = "\u00b7" if encoding != "ascii" else "-"
    assert f"step 2/2 {mark} loss" in shown
    assert ("床前" in shown) == (encoding in ("gbk", "utf-16"))
    assert "checkpoint" in shown


def test_arguments_that_the_locale_cannot_decode_are_utf8() -> None:
    typed = os.fsdecode("床".encode()) if os.name == "posix" else "床"
    escaped = "床".encode().decode("ascii", "surrogateescape")  # as in a C locale
    assert as_utf8([typed, escaped, "plain"]) == ["床", "床", "plain"]
    wrong = b"\xff".decode("ascii", "surrogateescape")
    assert as_utf8([wrong]) == [wrong]
