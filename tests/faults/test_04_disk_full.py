"""Row 4: the disk fills up while a checkpoint is written (a limit on the size of files)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from jielong.checkpoint import checkpoint as ckpt
from tiny import TINY_RUN, environment, flags

# the limit falls on the second checkpoint's tensors: the tokenizer and the first are below it
CHILD = """
import sys
from faults.full_disk import full_at
from jielong.checkpoint import checkpoint as guard
from jielong.cli.main import main
guard.save_checkpoint = full_at(2, guard.save_checkpoint)
sys.exit(main(sys.argv[1:]))
"""


def steps_saved(run: Path) -> list[int]:
    """Steps of a run's checkpoints, each of which is whole."""
    found = ckpt.checkpoints(run / "checkpoints")
    for path in found:
        ckpt.verify(path)
    assert not list((run / "checkpoints").glob(".*")), "something half-written was left"
    return [ckpt.step_of(path) for path in found]


@pytest.mark.parametrize("choice", ["stop", "continue"])
def test_a_full_disk_loses_no_checkpoint_and_stops_or_goes_on_as_asked(
    choice: str, tmp_path: Path, corpus_file: Path, tokenizer_dir: Path
) -> None:
    run = tmp_path / "run"
    settings = TINY_RUN | {"steps": 12, "eval_interval": 4, "keep_checkpoints": 5}
    settings |= {"data_path": corpus_file, "tokenizer": tokenizer_dir, "out_dir": run}
    words = ["pretrain", *flags(settings | {"on_save_error": choice})]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *words],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    kept = steps_saved(run)
    assert "Traceback" not in done.stderr
    if choice == "stop":
        assert done.returncode == 2 and kept == [4]
        assert "step-00000008: cannot be written" in done.stderr
    else:
        assert done.returncode == 0 and kept == [4, 12]
        assert "training goes on" in done.stdout
        lines = (run / "metrics.jsonl").read_text().splitlines()
        assert json.loads(lines[-1])["step"] == 12
