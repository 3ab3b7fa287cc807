"""What the benchmarks share: the machine in words, results on disk, corpora, plots."""

from __future__ import annotations

import datetime
import json
import platform
import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import torch

from jielong.checkpoint.checkpoint import write_model_folder
from jielong.config.load import load_config
from jielong.data.sources.samples import fetch_sample
from jielong.model.transformer import Transformer
from jielong.tokenization.tokenizer import Tokenizer, train_tokenizer

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
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    return path


def corpus(name: str, documents: int | None = None) -> list[str]:
    """Documents of a benchmark: `shakespeare` in pieces of about 500 tokens, `poems`, `python`."""
    if name == "python":
        texts = list(_python_sources())
    else:
        lines = fetch_sample(name)[0].read_bytes().splitlines()
        texts = [orjson.loads(line)["text"] for line in lines]
        if name == "shakespeare":
            texts = [piece for text in texts for piece in pieces(text, 1700)]
        else:  # spread over the dynasties, which stand one after another
            texts = texts[:: max(1, len(texts) // (documents or len(texts)))]
    return texts[:documents]


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
