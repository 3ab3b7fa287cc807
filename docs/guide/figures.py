"""The guide's pictures that are no view of `jielong inspect`: each a function of the runs made.

Each takes the folder of the runs and the language, and returns a PNG.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import jielong
from jielong.config.settings import IGNORE_INDEX
from jielong.data.shards import open_dataset
from jielong.model.transformer import Transformer
from jielong.present.plotting import NO_CHINESE_FONT
from jielong.present.plotting import fonts as fonts_here
from jielong.training.optimizer import orthogonalize

BLUE, ORANGE, GREEN, GREY = "#2f6fb3", "#d9822b", "#3a9a5b", "#8a94a6"
CHINESE = {
    "64 signs drawn by lot": "随机抽取的 64 种字符",
    "a random guess": "随机猜测",
    "a window": "一个窗口",
    "accumulated micro-batches": "累积的微批次数",
    "after Muon": "Muon 之后",
    "as it comes": "默认设置",
    "bad text": "坏文本",
    "bits per byte": "每字节比特数",
    "difference of the loss": "损失之差",
    "direction, the strongest first": "方向，从最强到最弱",
    "documents": "文档数",
    "experts without a token": "没有收到 token 的专家数",
    "gradient": "梯度",
    "gradient norm": "梯度范数",
    "healthy": "正常",
    "held-out text": "留出文本",
    "held-out text that is trained on as well": "也用来训练的“留出”文本",
    "layer": "层",
    "loss (nats per token)": "损失（每 token 的 nat）",
    "mean of means": "各微批次平均后再平均",
    "moved by none": "不错开",
    "moved by one": "错开一位（正确）",
    "moved by two": "错开两位",
    "no mask": "没有掩码",
    "off by (relative)": "相对误差",
    "ours": "本项目",
    "probability": "概率",
    "rate of almost none": "学习率几乎为零",
    "rate × 10": "学习率 × 10",
    "rate × 300": "学习率 × 300",
    "regularisation off": "关闭正则化",
    "resumed": "恢复后",
    "share of the update that arrives": "更新实际生效的比例",
    "size of the update, beside a weight of 1": "更新的大小（权重为 1）",
    "step": "步",
    "strength (largest = 1)": "强度（最大者为 1）",
    "text that is held out": "真正留出的文本",
    "the checkpoint": "检查点",
    "the run": "原来的运行",
    "tokens of a document": "一篇文档的 token 数",
    "training text": "训练文本",
}


def records(run: Path, kind: str) -> list[dict[str, Any]]:
    """Return a run's records of a kind."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


def curve(run: Path, kind: str, name: str) -> tuple[list[int], list[float]]:
    """Return steps and values of one number along a run."""
    found = [r for r in records(run, kind) if r.get(name) is not None]
    return [r["step"] for r in found], [r[name] for r in found]


class Drawing:
    """A picture being drawn, and its words in a language."""

    def __init__(self, language: str, wide: bool = False) -> None:
        if language == "zh" and len(fonts_here()) == 1:
            raise SystemExit(NO_CHINESE_FONT)
        self.language = language
        self.figure = Figure(figsize=(7.6 if wide else 6.4, 3.1), dpi=120, layout="constrained")
        self.axes: Axes = self.figure.add_subplot()

    def say(self, words: str) -> str:
        return CHINESE.get(words, words) if self.language == "zh" else words

    def label(self, x: str, y: str, legend: bool = True) -> None:
        self.axes.set_xlabel(self.say(x))
        self.axes.set_ylabel(self.say(y))
        self.axes.spines[["top", "right"]].set_visible(False)
        self.axes.grid(visible=True, alpha=0.25)
        if legend:
            self.axes.legend(frameon=False)

    def png(self) -> bytes:
        out = io.BytesIO()
        self.figure.savefig(out, format="png")
        return out.getvalue()


@contextmanager
def fonts() -> Iterator[None]:
    family = [*fonts_here()[1:], "DejaVu Sans"]
    settings: dict[Any, Any] = {"font.family": family, "font.size": 9.5}
    with matplotlib.rc_context({**settings, "axes.unicode_minus": False}):
        yield


def document_lengths(work: Path, language: str) -> bytes:
    dataset = open_dataset(work / "runs/guide/data")
    starts = np.append(dataset.train.documents, len(dataset.train))
    with fonts():
        d = Drawing(language)
        d.axes.hist(np.diff(starts), bins=np.arange(0, 6000, 100), color=BLUE)
        d.axes.axvline(256, color=ORANGE, label=d.say("a window"))
        d.label("tokens of a document", "documents")
        return d.png()


def gradient_norm(work: Path, language: str) -> bytes:
    with fonts():
        d = Drawing(language)
        d.axes.plot(*curve(work / "runs/guide", "train", "grad_norm"), color=BLUE)
        d.axes.set_ylim(bottom=0)
        d.label("step", "gradient norm", legend=False)
        return d.png()


def loss(work: Path, language: str) -> bytes:
    with fonts():
        d = Drawing(language)
        run = work / "runs/guide"
        d.axes.plot(*curve(run, "train", "loss"), color=BLUE, label=d.say("training text"))
        held = curve(run, "validation", "loss")
        d.axes.plot(*held, "o-", color=ORANGE, markersize=4, label=d.say("held-out text"))
        d.label("step", "loss (nats per token)")
        return d.png()


def singular_values(work: Path, language: str) -> bytes:
    model, _ = jielong.load(work / "runs/guide")
    model.train()
    tokens = torch.tensor(
        open_dataset(work / "runs/guide/data").train.read(0, 1025).astype("int64")
    )
    model(tokens[None, :256], tokens[None, 1:257]).loss.backward()
    gradient = model.model.layers[1].mlp.up_proj.weight.grad
    values = torch.linalg.svdvals(gradient), torch.linalg.svdvals(orthogonalize(gradient[None])[0])
    with fonts():
        d = Drawing(language)
        names, colours = ("gradient", "after Muon"), (BLUE, ORANGE)
        for found, name, colour in zip(values, names, colours, strict=True):
            d.axes.plot((found / found[0]).tolist(), color=colour, label=d.say(name))
        d.axes.set_ylim(bottom=0)
        d.label("direction, the strongest first", "strength (largest = 1)")
        return d.png()


def accumulation(work: Path, language: str) -> bytes:
    """How far the gradient of unevenly filled rows is off, by the number of micro-batches."""
    model, _ = jielong.load(work / "runs/guide")
    model.train()
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(2048, (16, 65), generator=generator)
    targets = ids[:, 1:].clone()
    for row in range(16):
        targets[row, 4 * (row + 1) :] = IGNORE_INDEX
    counted = (targets != IGNORE_INDEX).sum(1)
    counts, ours, means = [2, 4, 8, 16], [], []
    whole = _gradient(model, ids, targets, [1 / counted.sum()])
    for parts in counts:
        weights = [1 / counted.sum()] * parts
        ours.append(_gradient(model, ids, targets, weights))
        weights = [1 / share.sum() / parts for share in counted.chunk(parts)]
        means.append(_gradient(model, ids, targets, weights))
    with fonts():
        d = Drawing(language)
        for found, name, colour in ((means, "mean of means", ORANGE), (ours, "ours", BLUE)):
            errors = [float((g - whole).norm() / whole.norm()) for g in found]
            d.axes.plot(counts, errors, "o-", color=colour, label=d.say(name))
        d.axes.set_yscale("log")
        d.axes.set_xscale("log", base=2)
        d.axes.set_xticks(counts, [str(c) for c in counts])
        d.label("accumulated micro-batches", "off by (relative)")
        return d.png()


def _gradient(
    model: Transformer, ids: torch.Tensor, targets: torch.Tensor, weights: list[Any]
) -> torch.Tensor:
    model.zero_grad()
    parts = zip(ids.chunk(len(weights)), targets.chunk(len(weights)), weights, strict=True)
    for tokens, wanted, weight in parts:
        summed = model(tokens[:, :-1], wanted).loss
        assert summed is not None
        (summed * weight).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def precision(work: Path, language: str) -> bytes:
    sizes = torch.logspace(-8, 0, 400)
    with fonts():
        d = Drawing(language)
        dtypes = ((torch.bfloat16, ORANGE), (torch.float16, GREEN), (torch.float32, BLUE))
        for dtype, colour in dtypes:
            arrived = (torch.ones(()).to(dtype) + sizes.to(dtype)).double() - 1
            share = arrived / sizes.double()
            d.axes.plot(sizes, share, color=colour, label=str(dtype).removeprefix("torch."))
        d.axes.set_xscale("log")
        d.label("size of the update, beside a weight of 1", "share of the update that arrives")
        return d.png()


def memorising(work: Path, language: str) -> bytes:
    with fonts():
        d = Drawing(language, wide=True)
        names = (("by-heart", "regularisation off", ORANGE), ("as-it-comes", "as it comes", BLUE))
        for run, name, colour in names:
            folder = work / "runs" / run
            steps, values = curve(folder, "train", "loss")
            label = f"{d.say(name)}: {d.say('training text')}"
            d.axes.plot(steps, values, "--", color=colour, linewidth=1, label=label)
            steps, values = curve(folder, "validation", "loss")
            label = f"{d.say(name)}: {d.say('held-out text')}"
            d.axes.plot(steps, values, "o-", color=colour, markersize=3, label=label)
            best = int(np.argmin(values))
            d.axes.plot(steps[best], values[best], "*", color="#111111", markersize=11, zorder=5)
        d.label("step", "loss (nats per token)")
        return d.png()


def resumed(work: Path, language: str) -> bytes:
    with fonts():
        d = Drawing(language)
        first = curve(work / "runs/guide", "train", "loss")
        again = curve(work / "runs/again", "train", "loss")
        # a record is a mean since the one before: the first after the resumed step has fewer steps
        start = max(r["step"] for r in records(work / "runs/guide", "validation")[:-1])
        after = [i for i, step in enumerate(again[0]) if step > start][1:]
        d.axes.plot(*first, color=GREY, linewidth=4, alpha=0.5, label=d.say("the run"))
        xs, ys = ([again[n][i] for i in after] for n in (0, 1))
        d.axes.plot(xs, ys, "o-", color=ORANGE, markersize=4, label=d.say("resumed"))
        d.axes.axvline(start, color=BLUE, linestyle=":", label=d.say("the checkpoint"))
        d.axes.set_xlim(left=start / 2)
        d.axes.set_ylim(min(first[1]) - 0.1, first[1][first[0].index(start // 20 * 10)] + 0.1)
        d.label("step", "loss (nats per token)")
        return d.png()


def temperature(work: Path, language: str) -> bytes:
    model, tokenizer = jielong.load(work / "runs/guide")
    ids = torch.tensor([[tokenizer.bos_id, *tokenizer.encode("Enter the")]])
    with torch.no_grad():
        logits = model(ids).logits[0, -1]
    likeliest = logits.topk(12).indices
    names = [tokenizer.decode([int(i)]).replace(" ", "␣").replace("\n", "⏎") for i in likeliest]
    with fonts():
        d = Drawing(language, wide=True)
        places = np.arange(len(names))
        for number, (heat, colour) in enumerate(((0.5, BLUE), (1.0, GREEN), (2.0, ORANGE))):
            heights = (logits / heat).softmax(-1)[likeliest]
            d.axes.bar(
                places + 0.27 * (number - 1), heights, 0.27, color=colour, label=f"T = {heat}"
            )
        d.axes.set_xticks(places, names)
        d.label("", "probability")
        return d.png()


def processes(work: Path, language: str) -> bytes:
    with fonts():
        d = Drawing(language)
        steps, one = curve(work / "runs/one", "train", "loss")
        _, two = curve(work / "runs/two", "train", "loss")
        d.axes.plot(steps, np.subtract(two, one), "o-", color=BLUE, markersize=4)
        d.label("step", "difference of the loss", legend=False)
        return d.png()
