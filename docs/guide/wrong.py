"""Make the page on reading curves: train small runs that go wrong on purpose, and draw them.

The page is written by hand, with marks where something is inserted:

    <!-- wrong: high -->      the command of that run in COMMANDS, and what of its output counts

Its pictures are made too, one of each function in PICTURES.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import functools
import json
import os
import random
import re
import shlex
import tempfile
from pathlib import Path

import numpy as np
import torch
from figures import BLUE, GREEN, GREY, ORANGE, Drawing, curve, fonts, records
from make import (
    COLUMNS,
    HERE,
    LANGUAGES,
    Chapter,
    run_command,
    said_in_chinese,
    small_png,
    with_values,
)

from jielong.config.load import load_config
from jielong.data.batches import Batch
from jielong.data.shards import open_dataset
from jielong.data.sources.samples import fetch_sample
from jielong.model.attention_backends import AttentionPlan
from jielong.model.transformer import Transformer
from jielong.training.optimizer import Optimizer
from jielong.training.step import TrainStep

PAGE = "reading-curves.md"
MARK = re.compile(r"^<!-- wrong: (\w+) -->\n(?:```console\n.*?^```\n)?", re.MULTILINE | re.DOTALL)
MOST_BYTES = 60_000  # of a picture
SETTINGS = """\
[model]
vocab_size = 1024
hidden_size = 64
num_hidden_layers = 2
num_attention_heads = 2
num_key_value_heads = 1

[data]
max_seq_len = 128

[training]
steps = 300
global_batch_size = 4

[run]
log_interval = 1
sample_tokens = 0
"""
OFF = "--weight-decay 0.1 --dropout 0 --input-noise 0 --bpe-dropout 0 --patience 0"
COMMANDS = {
    "healthy": "--data-path plays.jsonl",
    "high": "--data-path plays.jsonl --learning-rate 0.0875",
    "highest": "--data-path plays.jsonl --learning-rate 2.6",
    "none": "--data-path plays.jsonl --learning-rate 1e-6",
    "heart": f"--data-path scenes.jsonl {OFF}",
    "bad": "--data-path pages.jsonl",
    "twice": f"--data-path scenes.jsonl --validation-path copies.jsonl {OFF}",
    "expert": "--data-path plays.jsonl --use-moe true --num-experts 16 --num-experts-per-tok 1 "
    "--moe-intermediate-size 32 --router-aux-loss none",
}


def write_texts() -> None:
    """Write the settings and the texts of the runs into the working folder."""
    (path,) = fetch_sample("shakespeare")
    rows = path.read_text(encoding="utf-8").splitlines()
    draw = random.Random(0)
    noise = [base64.b64encode(draw.randbytes(3000)).decode() for _ in range(200)]
    texts = {
        "plays": rows[:200],
        "scenes": rows[100:103],
        "copies": rows[101:102],
        "pages": [json.dumps({"text": text}) for text in noise],
    }
    for name, lines in texts.items():
        Path(f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    Path("small.toml").write_text(SETTINGS, encoding="utf-8")


# the lines of a run's output that are shown, beside its warnings and its end
SHOWN = r"initial loss|step \d+: (?!other programs)|the run has|held-out "  # not of the machine
ALSO = {
    "healthy": "  text|── step (30|150|300) ·",
    "high": "── step (30|150|300) ·",
    "highest": "diverged so far|checkpoint |step 150/",
    "none": "── step (30|150|300) ·",
    "heart": "budget|── step (88|198|297) ·",
    "bad": "  text|  sample|── step (30|150|300) ·",
    "twice": "budget|  note|── step (12|156|300) ·",
    "expert": "── step (30|150|300) ·",
}


def train(name: str, language: str) -> str:
    """Train a run of COMMANDS unless it is there; return its command and the lines that count."""
    command = f"jielong pretrain --config small.toml {COMMANDS[name]} --out-dir runs/{name}"
    memory = Path(f"said-{name}.txt")
    if not memory.exists():
        print(f"  $ {command}", flush=True)
        status, said = run_command(shlex.split(command), Path.cwd())
        if status:
            raise SystemExit(said)
        memory.write_text(said, encoding="utf-8")
    shown, wanted = [], "|".join(filter(None, [SHOWN, ALSO.get(name)]))
    for line in memory.read_text(encoding="utf-8").splitlines():
        if re.match(wanted, line):
            shown.append(line)
        elif shown[-1:] != ["…"]:
            shown.append("…")
    said = "\n".join(shown)
    return f"$ {command}\n{said if language == 'en' else said_in_chinese(said)}"


@functools.cache  # the same for both languages
def train_otherwise(shift: int, mask: bool = True) -> list[float]:
    """Train on the healthy run's tokens as jielong never does; return the losses.

    Args:
        shift: places between a token and its target; 1 is right.
        mask: whether a token sees only what comes before it.
    """
    tokens = open_dataset(Path("runs/healthy/data")).train
    config = load_config(file="small.toml", weight_decay=0.1)
    torch.manual_seed(0)
    model = Transformer(config.model)
    length, rate = config.data.max_seq_len, 0.0088
    step = TrainStep(model, Optimizer(model, config.training, rate), grad_clip=1.0)
    everywhere = AttentionPlan(block_causal_mask=torch.ones(1, 1, length, length).bool())
    if not mask:  # no setting takes the mask away, so a method is replaced
        model.model._plan = lambda *_: everywhere  # type: ignore[method-assign]
    draw, losses = np.random.default_rng(0), []
    for _ in range(300):
        starts = draw.integers(0, len(tokens) - length - 2, 4)
        rows = [tokens.read(int(s), int(s) + length + 2).astype(np.int64) for s in starts]
        ids = torch.from_numpy(np.stack(rows))
        documents = torch.zeros(4, length, dtype=torch.int32)
        targets = ids[:, shift : shift + length].contiguous()
        losses.append(step([Batch(ids[:, :length], targets, documents, starts)]).loss)
    return losses


def losses(run: str, kind: str = "train") -> tuple[list[int], np.ndarray]:
    """Return steps and losses of a run; those of training as the mean of ten steps."""
    steps, values = curve(Path("runs") / run, kind, "loss")
    return (steps, np.array(values)) if kind != "train" else (steps, smooth(values))


def smooth(values: list[float]) -> np.ndarray:
    return np.array([np.mean(values[max(0, i - 9) : i + 1]) for i in range(len(values))])


def rate(d: Drawing) -> None:
    runs = (("highest", "rate × 300", ORANGE), ("high", "rate × 10", GREEN))
    for run, name, colour in (*runs, ("healthy", "healthy", BLUE)):
        d.axes.plot(*losses(run), color=colour, label=d.say(name))
    d.axes.axhline(np.log(1024), color=GREY, linestyle=":", label=d.say("a random guess"))
    d.axes.set_yscale("log")
    ticks = (4, 7, 20, 50, 150)
    d.axes.set_yticks(ticks, [str(t) for t in ticks])
    d.axes.minorticks_off()


def none(d: Drawing) -> None:
    d.axes.plot(*losses("none"), color=ORANGE, label=d.say("rate of almost none"))
    d.axes.plot(*losses("healthy"), color=BLUE, label=d.say("healthy"))
    d.axes.axhline(np.log(1024), color=GREY, linestyle=":", label=d.say("a random guess"))


def heart(d: Drawing) -> None:
    d.axes.plot(*losses("heart"), "--", color=BLUE, label=d.say("training text"))
    d.axes.plot(*losses("heart", "validation"), color=ORANGE, label=d.say("held-out text"))


def twice(d: Drawing) -> None:
    d.axes.plot(*losses("twice"), "--", color=BLUE, label=d.say("training text"))
    for run, name, colour in (
        ("twice", "held-out text that is trained on as well", GREEN),
        ("heart", "text that is held out", ORANGE),
    ):
        d.axes.plot(*losses(run, "validation"), color=colour, label=d.say(name))


def bad(d: Drawing) -> None:
    for run, name, colour in (("bad", "bad text", ORANGE), ("healthy", "healthy", BLUE)):
        found = records(Path("runs") / run, "validation")
        steps, bits = ([r[key] for r in found] for key in ("step", "bits_per_byte"))
        d.axes.plot(steps, bits, "o-", markersize=3, color=colour, label=d.say(name))
    d.axes.axhline(6, color=GREY, linestyle=":", label=d.say("64 signs drawn by lot"))
    d.axes.set_ylim(bottom=0)


def expert(d: Drawing) -> None:
    found = records(Path("runs/expert"), "train")
    load = np.array([r["expert_load"] for r in found], dtype=float)  # (steps, layers, experts)
    for layer, colour in enumerate((BLUE, ORANGE)):
        idle = smooth(list((load[:, layer] == 0).sum(1)))
        label = f"{d.say('layer')} {layer + 1}"
        d.axes.plot([r["step"] for r in found], idle, color=colour, label=label)


def targets(d: Drawing) -> None:
    for name, colour, style, values in (
        ("moved by one", BLUE, "-", train_otherwise(1)),
        ("moved by two", GREEN, "-", train_otherwise(2)),
        ("moved by none", ORANGE, "-", train_otherwise(0)),
        ("no mask", "#111111", "--", train_otherwise(1, mask=False)),
    ):
        d.axes.plot(range(1, 301), smooth(values), style, color=colour, label=d.say(name))
        print(f"    {name}: {np.mean(values[-10:]):.2f}", flush=True)
    d.axes.set_ylim(bottom=0)


AXES = {
    rate: "loss (nats per token)",
    none: "loss (nats per token)",
    heart: "loss (nats per token)",
    bad: "bits per byte",
    twice: "loss (nats per token)",
    expert: "experts without a token",
    targets: "loss (nats per token)",
}


def draw(language: str) -> None:
    """Write the pictures of a language."""
    torch.set_num_threads(1)
    suffix = ".zh-CN" if language == "zh" else ""
    for picture, height in AXES.items():
        with fonts():
            d = Drawing(language, wide=True)
            picture(d)
            d.label("step", height)
            data = small_png(d.png())
        assert len(data) <= MOST_BYTES, picture
        (HERE / "pictures" / f"curve_{picture.__name__}{suffix}.png").write_bytes(data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", metavar="DIR", help="keep the runs there, and use those there")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        work = arguments.work or stack.enter_context(tempfile.TemporaryDirectory())
        pages = [HERE / language / PAGE for language in LANGUAGES]
        Path(work).mkdir(parents=True, exist_ok=True)
        stack.enter_context(contextlib.chdir(work))
        os.environ |= {"LC_ALL": LANGUAGES["en"], "COLUMNS": COLUMNS, "NO_COLOR": "1"}
        write_texts()
        for page in pages:
            language = page.parent.name
            blocks = {
                name: f"<!-- wrong: {name} -->\n```console\n{train(name, language)}\n```\n"
                for name in COMMANDS
            }
            text = MARK.sub(lambda m, b=blocks: b[m[1]], page.read_text(encoding="utf-8"))
            page.write_text(text, encoding="utf-8")
            page.write_text(with_values(Chapter(page, Path.cwd()).filled(), page), encoding="utf-8")
            draw(language)


if __name__ == "__main__":
    main()
