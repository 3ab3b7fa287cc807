"""`jielong runs`: every run of a folder in a table, whatever state it is in."""

from __future__ import annotations

import json
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from jielong.cli.main import main
from jielong.reports.overview import RunRow, rows_of
from jielong.runtime.run_folder import RunFolder


def write(folder: Path, *records: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    lines = [json.dumps({"step": 0, "time": 1.7e9} | record) for record in records]
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    return folder


def rows(folder: Path) -> dict[str, RunRow]:
    return {Path(row.run).name: row for row in rows_of(folder)}


def test_a_finished_run_has_its_numbers(run: Path) -> None:
    (row,) = rows_of(run.parent)
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    bits = [r["bits_per_byte"] for r in records if r["kind"] == "validation"]
    assert (row.state, row.step, row.total_steps) == ("finished", 24, 24)
    assert (row.bits_per_byte, row.best_bits_per_byte) == (bits[-1], min(bits))
    assert row.size_bytes == sum(p.stat().st_size for p in run.rglob("*") if p.is_file())
    assert 0 <= row.age_s < 3600 and row.note is None


def test_the_state_follows_from_the_lock_and_the_last_word(tmp_path: Path) -> None:
    start = {"kind": "start", "total_steps": 10}
    write(tmp_path / "killed", start, {"kind": "train", "step": 4})
    write(tmp_path / "complete", start, {"kind": "train", "step": 10})  # of an earlier version
    write(tmp_path / "stopped", start, {"kind": "end", "step": 4, "state": "stopped"})
    failed = {"kind": "end", "step": 4, "state": "failed", "why": "the run has diverged"}
    write(tmp_path / "failed", start, failed)
    write(tmp_path / "again", start, failed, start | {"time": 1.8e9})
    write(tmp_path / "running", start, {"kind": "train", "step": 4})
    with RunFolder(tmp_path / "running").locked():
        found = rows(tmp_path)
    assert {name: row.state for name, row in found.items()} == {
        "killed": "stopped",
        "complete": "finished",
        "stopped": "stopped",
        "failed": "failed",
        "again": "stopped",
        "running": "running",
    }
    assert found["failed"].note == "the run has diverged"
    assert rows(tmp_path)["running"].state == "stopped"


def test_a_process_that_died_holds_no_lock(tmp_path: Path) -> None:
    folder = RunFolder(write(tmp_path / "run", {"kind": "train", "step": 1}))
    (folder.path / ".lock").touch()
    for pid in (2**22 + 1, os.getpid()):  # no process has the first number; ours holds no lock
        record = {"pid": pid, "host": socket.gethostname()}
        (folder.path / "holder.json").write_text(json.dumps(record))
        assert not folder.in_use()
    (folder.path / "holder.json").write_text("{")
    assert not folder.in_use() and (folder.path / ".lock").exists()
    with folder.locked():
        assert folder.in_use() and folder.holder() == os.getpid()
    assert not folder.in_use()


def test_runs_are_found_in_folders_of_folders_but_not_in_their_own_parts(tmp_path: Path) -> None:
    for name in ("a", "b/c", "b/c/teachers/1", "b/c/data/x", ".hidden/d"):
        write(tmp_path / name, {"kind": "train", "step": 1})
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    found = [str(Path(row.run).relative_to(tmp_path)) for row in rows_of(tmp_path)]
    assert found == ["a", "b/c", "b/c/teachers/1"]


def test_damaged_and_half_written_folders_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bytes").mkdir()
    (tmp_path / "bytes" / "metrics.jsonl").write_bytes(b"\xff\x00\n[1]\nnull\n")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.toml").write_text("[run]\nout_dir = 'x'")
    (tmp_path / "folder" / "metrics.jsonl").mkdir(parents=True)
    (tmp_path / "folder" / "config.toml").write_text("=")
    odd = {"kind": "validation", "step": 3, "bits_per_byte": "x", "loss": []}
    write(tmp_path / "odd\x1b[31m", odd, {"kind": "end", "step": 3, "state": 7})
    found = rows(tmp_path)
    assert {row.state for row in found.values()} == {"stopped"} and len(found) == 4
    assert "3 of 3 lines are damaged" in str(found["bytes"].note)
    assert found["begun"].note == "nothing is recorded yet"
    assert main(["runs", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said and "begun" in said and "damaged" in said


def test_json_has_the_same_rows(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(run.parent), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["runs"]
    assert row["run"] == str(run) and row["state"] == "finished" and row["step"] == 24


def test_what_stands_beside_a_run_is_told_in_chinese(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    turned = {"kind": "end", "step": 4, "state": "finished", "why": "the held-out loss has turned"}
    write(tmp_path / "turned", {"kind": "start", "total_steps": 10}, turned)
    write(tmp_path / "empty")
    assert main(["runs", str(tmp_path), "--lang", "zh"]) == 0
    said = capsys.readouterr().out
    assert "留出损失已经回升" in said and "尚无记录" in said


def test_the_table_is_drawn_again_until_it_is_stopped(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waits = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("jielong.reports.overview.time.sleep", wait)
    assert main(["runs", str(run.parent), "--watch"]) == 0
    assert waits == [2.0] * 3 and "finished" in capsys.readouterr().out


def test_a_folder_without_runs_and_one_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["runs"]) == 2
    assert "runs: no such folder" in capsys.readouterr().err
    assert main(["runs", "."]) == 0
    assert "no runs in ." in capsys.readouterr().out
    assert main(["runs", ".", "--watch", "--json"]) == 2


def test_a_page_of_a_run_that_fails_says_why(run: Path, tmp_path: Path) -> None:
    from jielong.reports.history import read_history
    from jielong.reports.report import report

    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    end = {"kind": "end", "step": 24, "state": "failed", "why": "out of memory", "time": 9e9}
    with (copy / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(end) + "\n")
    assert "out of memory" in report([read_history(copy)])
