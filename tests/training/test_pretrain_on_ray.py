"""A run whose processes Ray starts: one is killed, and the run goes on from its checkpoint."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from jielong.api import pretrain
from jielong.errors import JielongError
from tiny import TINY_RUN

pytest.importorskip("ray")
pytest.importorskip("pandas", reason="Ray Train needs it")

RUN = TINY_RUN | {
    "optimizer": "adamw",
    "adam_eps": 1e-3,  # else a gradient that is nearly zero makes large steps of rounding errors
    "packing": "pad",
    "batch_size": 9,
    "steps": 40,
    "patience": 0,
    "eval_interval": 10,
    "keep_checkpoints": 2,
}


def losses(run: Path) -> dict[int, float]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return {r["step"]: r["loss"] for r in map(json.loads, lines) if r["kind"] == "train"}


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSTOP])
def test_a_run_goes_on_where_one_of_its_processes_is_killed_or_hangs(
    cluster: None, corpus_file: Path, tokenizer_dir: Path, tmp_path: Path, sent: signal.Signals
) -> None:
    settings = RUN | {"data_path": str(corpus_file), "tokenizer": str(tokenizer_dir)}
    settings |= {"rank_timeout": 10}
    alone, shared = (settings | {"out_dir": str(tmp_path / name)} for name in ("alone", "ray"))
    killed: list[int] = []
    watcher = threading.Thread(
        target=send_one, args=(tmp_path / "ray" / "checkpoints", killed, sent)
    )
    watcher.start()
    result = pretrain(shared, engine="ray", ray_workers=2, language="en")
    watcher.join()
    assert killed
    assert result.step == RUN["steps"]
    said = (tmp_path / "ray" / "ray" / "console.txt").read_text()
    assert said.count("resuming from") == 1 and said.count("device     cpu") == 2
    if sent == signal.SIGSTOP:
        assert "has said nothing" in said, said
    pretrain(alone, quiet=True)
    ours, theirs = losses(tmp_path / "ray"), losses(tmp_path / "alone")
    assert ours.keys() == theirs.keys()
    assert [ours[s] for s in ours] == pytest.approx([theirs[s] for s in ours], abs=1e-4)


def send_one(checkpoints: Path, killed: list[int], sent: signal.Signals) -> None:
    """Send a signal to a process of the run once it has a checkpoint."""
    deadline = time.monotonic() + 200
    while not killed and time.monotonic() < deadline:
        if list(checkpoints.glob("step-*")):
            for place in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    if place.read_bytes().startswith(b"ray::RayTrainWorker"):
                        killed.append(int(place.parent.name))
                        os.kill(killed[0], sent)
                        return
        time.sleep(0.01)


def test_a_mistake_is_told_in_its_own_words_and_not_tried_again(
    cluster: None, tokenizer_dir: Path, tmp_path: Path
) -> None:
    settings: dict[str, Any] = RUN | {
        "data_path": "nowhere.jsonl",
        "out_dir": str(tmp_path / "run"),
    }
    with pytest.raises(JielongError, match=r"^nowhere\.jsonl: ") as raised:
        pretrain(settings | {"tokenizer": str(tokenizer_dir)}, engine="ray", ray_workers=2)
    assert "\n" not in str(raised.value)
    said = (tmp_path / "run" / "ray" / "console.txt").read_text()
    assert said.count("device     cpu") == 1
    with pytest.raises(JielongError, match="ray_workers=9: Ray has only 2 cores"):
        pretrain(settings, engine="ray", ray_workers=9)
