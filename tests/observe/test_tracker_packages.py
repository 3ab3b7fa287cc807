"""The trackers' own packages, where they are installed: offline, through a resume."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jielong.checkpoint.checkpoint import step_name
from tiny import TINY_RUN, flags

STEPS = 8
PLACES = {  # environment variables that keep a tracker in a folder of its own
    "wandb": {"WANDB_MODE": "offline"},
    "swanlab": {"SWANLAB_MODE": "offline"},
    "trackio": {"TRACKIO_DIR": "trackio"},
    "mlflow": {"MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"},
}


@pytest.mark.parametrize("name", PLACES)
def test_a_tracker_gets_pictures_and_samples_and_leaves_json_alone(
    name: str, tmp_path: Path, corpus_file: Path, tokenizer_dir: Path
) -> None:
    pytest.importorskip("matplotlib")
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"needs {name}: pip install {name}")
    settings = TINY_RUN | {
        "steps": STEPS,
        "eval_interval": 4,
        "sample_tokens": 4,
        "report": True,
        "data_path": str(corpus_file),
        "tokenizer": str(tokenizer_dir),
        "out_dir": str(tmp_path / "run"),
    }
    command = [sys.executable, "-m", "jielong", "pretrain", *flags(settings), "--json"]
    pictures: list[Path] = []
    for _ in range(2):  # the console is silent: what is found here has come by the tracker
        done = subprocess.run(
            [*command, "--tracker", name],
            cwd=tmp_path,
            env=os.environ | PLACES[name],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["step"] == STEPS
        before, pictures = pictures, [*tmp_path.rglob("*.png")]
        assert pictures
        assert name == "mlflow" or len(pictures) > len(before)  # there, the same step's file
        shutil.rmtree(tmp_path / "run" / "checkpoints" / step_name(STEPS))
    run = tmp_path / "run"
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    prompt = next(r["prompt"] for r in map(json.loads, lines) if r["kind"] == "sample")
    ours = [run / "metrics.jsonl", run / "report.html", *(run / "data").rglob("*")]
    theirs = [p for p in tmp_path.rglob("*") if p.is_file() and p not in ours]
    assert any(prompt.encode() in path.read_bytes() for path in theirs)
