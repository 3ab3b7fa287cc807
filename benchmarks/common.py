"""What the benchmarks share: the machine in words, results on disk, corpora, plots."""

from __future__ import annotations

import datetime
import json
import platform
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import torch
from filelock import FileLock

from jielong.checkpoint.checkpoint import write_model_folder
from jielong.config.load import load_config
from jielong.data.sources.samples import fetch_sample
from jielong.model.transformer import Transformer
from jielong.tokenization.tokenizer import Tokenizer, train_tokenizer

HELD_OUT = 50  # one document in so many
RESULTS = Path(__file__).parent / "results"
SCRATCH = RESULTS / "tmp"  # ignored by git


def machine() -> dict[str, Any]:
    """This machine, and a bare matmul measured on it just now."""
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": _cpu_name(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "matmul_gflops": round(matmul_flops() / 1e9, 1),
    }


def matmul_flops(size: int = 1024, repeats: int = 20) -> float:
    """Best float32 matmul rate of a few tries, in FLOP/s."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def save(name: str, result: dict[str, Any]) -> Path:
    """Writes a result with its machine and command to benchmarks/results/NAME.json."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    record = {"machine": machine(), "command": " ".join(sys.argv), **result}
    temporary = SCRATCH / path.name  # a run that is ended while it writes costs no earlier result
    temporary.parent.mkdir(exist_ok=True)
    temporary.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    temporary.replace(path)
    return path


def results(name: str) -> dict[str, Any]:
    """What `save` or `merge` has written; empty if nothing has been."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def merge(name: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """Replace a result by what `change` makes of it, whoever else writes it too; returns it."""
    SCRATCH.mkdir(parents=True, exist_ok=True)
    with FileLock(SCRATCH / f"{name}.lock"):
        result = change(results(name))
        save(name, result)
    return result


def corpus(name: str, documents: int | None = None) -> list[str]:
    """Documents of a benchmark: `shakespeare` in pieces of about 500 tokens, `poems`, `python`.

    `cpp` is for the test of settings that were chosen on the others.
    """
    if name in ("python", "cpp"):
        texts = list(_python_sources() if name == "python" else _cpp_headers())
    else:
        lines = fetch_sample(name)[0].read_bytes().splitlines()
        texts = [orjson.loads(line)["text"] for line in lines]
        if name == "shakespeare":
            texts = [piece for text in texts for piece in pieces(text, 1700)]
        else:  # spread over the dynasties, which stand one after another
            texts = texts[:: max(1, len(texts) // (documents or len(texts)))]
    return texts[:documents]


def split(texts: list[str]) -> tuple[list[str], list[str]]:
    """Documents to train on, and those to measure with."""
    held_out = [i % HELD_OUT == 7 for i in range(len(texts))]
    train = [text for text, held in zip(texts, held_out, strict=True) if not held]
    return train, [text for text, held in zip(texts, held_out, strict=True) if held]


def as_jsonl(texts: list[str]) -> bytes:
    return b"".join(orjson.dumps({"text": text}) + b"\n" for text in texts)


def read_texts(file: Path) -> list[str]:
    """The texts that `as_jsonl` wrote."""
    return [orjson.loads(line)["text"] for line in file.read_bytes().splitlines()]


class Logits(torch.nn.Module):
    """A model of transformers' kind as a function from tokens (B, T) to logits (B, T, V)."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.model(tokens, use_cache=False).logits


def pieces(text: str, least: int) -> Iterator[str]:
    """A text in pieces of at least `least` characters, cut at blank lines."""
    piece = ""
    for paragraph in re.split(r"(?<=\n)\n+", text):
        piece += paragraph + "\n"
        if len(piece) >= least:
            yield piece
            piece = ""
    if piece.strip():
        yield piece


def _python_sources() -> Iterator[str]:
    """The standard library's own modules: a third kind of text, on every machine."""
    folder = Path(json.__file__).parents[1]
    for path in sorted(folder.glob("*.py")) + sorted(folder.glob("*/*.py")):
        if "site-packages" not in path.parts and "test" not in path.parts:
            yield from pieces(path.read_text(encoding="utf-8", errors="replace"), 1700)


def _cpp_headers() -> Iterator[str]:
    """Headers of torch: a fourth kind, of which no setting knows."""
    folder = Path(torch.__file__).parent / "include"
    for path in sorted(folder.glob("c10/**/*.h")) + sorted(folder.glob("torch/csrc/**/*.h")):
        yield from pieces(path.read_text(encoding="utf-8", errors="replace"), 1700)


def _cpu_name() -> str:
    try:
        info = Path("/proc/cpuinfo").read_text()
        return re.search(r"model name\s*:\s*(.+)", info)[1]  # type: ignore[index]
    except (OSError, TypeError):
        return platform.processor() or platform.machine()


def random_model(preset: str, name: str) -> tuple[Transformer, Tokenizer, Path]:
    """A model of the preset's size with random weights, its tokenizer, and their folder `name`."""
    tokenizer = train_tokenizer(iter(["the quick brown fox jumps over it " * 50]), 300, 2**20)
    torch.manual_seed(0)
    model = Transformer(load_config(preset, max_position_embeddings=512).model).eval()
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.02)
    folder = SCRATCH / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_model_folder(folder, model, tokenizer)
    return model, tokenizer, folder
