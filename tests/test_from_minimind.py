"""The command line of MiniMind's users, and the page that tells them how theirs becomes ours."""

from __future__ import annotations

import json
import math
import re
import shlex
from pathlib import Path

import pytest

from jielong.cli.main import parse
from jielong.cli.options import field_values
from jielong.config.load import load_config
from jielong.errors import ConfigError
from jielong.runtime.device import bfloat16_width
from tiny import TEXTS, forked

DOCS = Path(__file__).parents[1] / "docs"
PAGES = ["from-minimind.md", "from-minimind.zh-CN.md"]
COMMAND = """--data_path {data} --hidden_size 512 --num_hidden_layers 8 --max_seq_len 512
    --batch_size 32 --accumulation_steps 8 --learning_rate 5e-4 --epochs 1 --use_moe false
    --log_interval 100 --save_interval 100 --out_dir {out} --dtype bfloat16 --grad_clip 1.0
    --warmup_iters 0"""


def test_the_whole_command_means_what_it_says() -> None:
    line = COMMAND.format(data="pretrain_hq.jsonl", out="out")
    arguments = parse(["pretrain", *line.split(), "--use_wandb", "--wandb_project", "Mine"])
    c = load_config(**field_values(arguments))
    assert (c.data.data_path, c.data.max_seq_len) == (("pretrain_hq.jsonl",), 512)
    assert (c.model.hidden_size, c.model.num_hidden_layers, c.model.use_moe) == (512, 8, False)
    t = c.training
    assert (t.global_batch_size, t.micro_batch_size, t.learning_rate) == (32 * 8, 32, 5e-4)
    assert (t.epochs, t.dtype, t.grad_clip, t.warmup_steps) == (1.0, "bfloat16", 1.0, 0)
    assert (c.run.out_dir, c.run.log_interval, c.run.save_interval) == ("out", 100, 100)
    assert (arguments.use_wandb, c.run.tracker_project) == ("true", "Mine")


def test_the_command_runs_on_a_cpu_in_the_precision_it_asks_for(tmp_path: Path) -> None:
    """It says so in one line, and where the CPU has no instructions for it that it is slow."""
    data, out = tmp_path / "pretrain_hq.jsonl", tmp_path / "out"
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    smaller = {"hidden_size": 32, "num_hidden_layers": 2, "max_seq_len": 16, "batch_size": 8}
    line = COMMAND.format(data=data, out=out) + " --device cpu --sample_tokens 0"
    for name, value in smaller.items():
        line = re.sub(rf"--{name} \d+", f"--{name} {value}", line)
    process = forked("pretrain", *line.split())
    said, errors = process.communicate(timeout=120)
    assert process.returncode == 0, said + errors
    assert errors == ""
    assert said.splitlines()[0].count("bfloat16") == said.count("bfloat16") == 1
    assert ("bfloat16 (slow" in said) == math.isinf(bfloat16_width())
    assert (out / "metrics.jsonl").exists() and list(out.glob("checkpoints/step-*"))


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_the_page_is_one_of_ours(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8").replace("\\\n", " ")
    commands = re.findall(r"(?:^|`|-m )jielong (.*?)(?:`|$)", text, flags=re.MULTILINE)
    commands = [command for command in commands if not command.startswith("RUN")]
    assert len(commands) >= 5
    for command in commands:
        parse([word for word in shlex.split(command) if word != "…"])


@pytest.mark.parametrize("page", PAGES)
def test_every_flag_of_the_table_is_known_or_said_to_be_missing(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    rows = [row.split("|")[1:3] for row in text.splitlines() if row.startswith("| `--")]
    assert len(rows) >= 10
    known = parse(["pretrain"]).flags
    for theirs, ours in rows:
        for flag in re.findall(r"--[\w-]+", theirs + ours):
            plain = "--" + flag[2:].replace("_", "-")
            missing = not re.search(r"same|相同", ours) and flag in theirs
            assert (plain in known) != missing, flag


def test_flags_that_are_gone_are_named() -> None:
    for flag in ("--ddp", "--local_rank", "--from_resume"):
        with pytest.raises(ConfigError, match="unknown flag --" + flag[2:].replace("_", "-")):
            parse(["pretrain", flag])
