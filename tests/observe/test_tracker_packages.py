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
    command = [sys.executable, "-m", "jielong", "pretrain", *flags(settings)]
    pictures: list[Path] = []
    for options in (["--json"], []):
        done = subprocess.run(
            [*command, "--tracker", name, *options],
            cwd=tmp_path,
            env=os.environ | PLACES[name],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert "now off" not in done.stdout
        if options:
            assert json.loads(done.stdout)["step"] == STEPS
        before, pictures = pictures, [*tmp_path.rglob("*.png")]
        assert pictures
        assert name == "mlflow" or len(pictures) > len(before)  # the same step: the same file
        shutil.rmtree(tmp_path / "run" / "checkpoints" / step_name(STEPS))
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and "data" not in path.parts]
    prompt = next(
        record["prompt"]
        for record in map(json.loads, (tmp_path / "run" / "metrics.jsonl").open(encoding="utf-8"))
        if record["kind"] == "sample"
    )
    ours = {tmp_path / "run" / file for file in ("metrics.jsonl", "report.html")}
    assert any(prompt.encode() in path.read_bytes() for path in kept if path not in ours)
