"""Tiny models, streams and batches that several tests build on."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from forked import Forked
from jielong.cli.main import main
from jielong.config.load import load_config
from jielong.config.model import ModelConfig
from jielong.config.settings import IGNORE_INDEX, Config
from jielong.data.batches import Batch
from jielong.model.transformer import Transformer
from jielong.training.optimizer import Optimizer
from jielong.training.scaling import default_learning_rate
from jielong.training.step import StepResult, TrainStep

TINY = ModelConfig(
    vocab_size=64,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    intermediate_size=48,
    max_position_embeddings=64,
)
TEXTS = [
    f"Tale {i}. " + " ".join(f"word{i * j % 17}" for j in range(4 + i * 7 % 23)) for i in range(60)
]
# settings of runs that take a second
TINY_RUN: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_seq_len": 16,
    "batch_size": 4,
    "accumulation_steps": 2,
    "steps": 24,
    "validation_fraction": 0.1,
    "log_interval": 1,
    "eval_interval": 8,
    "sample_tokens": 0,
    "report": False,
    "device": "cpu",
}
# what a text that is read many times gets
REGULARISED: dict[str, Any] = {
    "weight_decay": 1.0,
    "dropout": 0.2,
    "input_noise": 0.1,
    "bpe_dropout": 0.1,
}
SOURCE = Path(__file__).parents[1] / "src"


def with_random_weights(model: torch.nn.Module, seed: int = 0) -> None:
    """Draws all weights anew: some begin at zero or one, and would hide a mistake."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            noise = torch.randn(p.shape, generator=generator)
            p.copy_(1 + 0.2 * noise if p.ndim == 1 else noise * p.shape[-1] ** -0.5)


def tiny_model(seed: int = 0, **changes: Any) -> Transformer:
    """A small model in eval mode, in which every weight matters."""
    model = Transformer(dataclasses.replace(TINY, **changes).validated()).eval()
    with_random_weights(model, seed)
    return model


class ListStream:
    """A stream of documents held in memory."""

    def __init__(self, documents: Sequence[Sequence[int]]) -> None:
        lengths = [len(document) for document in documents]
        self.documents = np.cumsum([0, *lengths[:-1]], dtype=np.int64)
        self.tokens = np.concatenate([np.asarray(d, dtype=np.uint16) for d in documents])

    def __len__(self) -> int:
        return len(self.tokens)

    def read(self, start: int, stop: int) -> np.ndarray:
        return self.tokens[start:stop].copy()

    def at_hand(self) -> list[tuple[int, int]]:
        return [(0, len(self))]


def random_documents(count: int, longest: int, seed: int = 0, vocab: int = 64) -> list[list[int]]:
    """Documents of 2 … `longest` tokens, from bos (1) to eos (2)."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, longest - 1, size=count)
    return [[1, *rng.integers(3, vocab, size=n).tolist(), 2] for n in lengths]


def random_batch(rows: int, length: int, seed: int = 0, ignored: float = 0.0) -> Batch:
    """Random tokens and targets; a share of the targets ignored, unevenly over the rows."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(64, (rows, length + 1), generator=generator)
    targets = tokens[:, 1:].clone()
    shares = torch.linspace(0, 2 * ignored, rows)[:, None]
    targets[torch.rand(rows, length, generator=generator) < shares] = IGNORE_INDEX
    return Batch(tokens[:, :-1], targets, None, np.arange(rows))


def split_batch(batch: Batch, parts: int) -> list[Batch]:
    """The rows of a batch as several micro-batches."""
    return [batch.rows(r) for r in np.array_split(np.arange(len(batch.tokens)), parts)]


def new_optimizer(model: torch.nn.Module, config: Config) -> Optimizer:
    """The optimizer of a run with these settings, its learning rate filled in."""
    given = config.training.learning_rate
    learning_rate = default_learning_rate(config) if given is None else given
    decay = 0.1 if config.training.weight_decay is None else config.training.weight_decay
    training = dataclasses.replace(config.training, weight_decay=decay)
    return Optimizer(model, training, learning_rate)


def one_step(
    model: torch.nn.Module, optimizer: Optimizer, batches: Sequence[Batch], **changes: Any
) -> StepResult:
    """One update in float32 on this process; `changes` are fields of TrainStep or arguments."""
    call = {name: changes.pop(name) for name in ("lr_scale", "reference_load") if name in changes}
    return TrainStep(model, optimizer, **({"grad_clip": 1.0} | changes))(batches, **call)


def tiny_config(**values: Any) -> Config:
    return load_config(**(TINY_RUN | values))


def flags(values: dict[str, Any]) -> list[str]:
    """Settings as flags of the command line."""
    words = []
    for name, value in values.items():
        words += [f"--{name}", *(map(str, value) if isinstance(value, tuple) else [str(value)])]
    return words


def in_this_process(words: Sequence[str]) -> tuple[int, str]:
    """Runs `jielong …` here: its exit status and what it said."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = main(list(words))
    return status, said.getvalue()


def environment(**changes: str) -> dict[str, str]:
    """Of processes that tests start: they find our source, and use one thread."""
    path = os.pathsep.join([str(SOURCE), str(Path(__file__).parent)])
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "200"} | changes


def kill_when(moment: Callable[[], bool], process: subprocess.Popen[Any] | Forked) -> None:
    """Kills a process with SIGKILL at a moment, unless it has ended before."""
    while process.poll() is None:
        with contextlib.suppress(FileNotFoundError):  # renamed while we looked
            if moment():
                break
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()


def until(happens: Callable[[], bool], looks: int = 12_000) -> bool:
    """Waits until something happens; whether it did.

    The limit is in looks and not in seconds, 10 minutes on a quiet machine: a busy one looks less
    often, and one that is suspended does not look at all.
    """
    for _ in range(looks):
        if happens():
            return True
        time.sleep(0.05)
    return False


@contextlib.contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """This process can write no more than `limit` bytes to a file: as where a disk is full."""
    import pytest

    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def steps_trained(run: Path) -> int:
    """Steps that the metrics of a run tell of so far."""
    with contextlib.suppress(FileNotFoundError):
        return (run / "metrics.jsonl").read_bytes().count(b'"train"')
    return 0


def rank_timeout() -> int:
    """Seconds after which a silent rank has failed: far longer than this machine is busy now."""
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", ""], check=True)
    return max(4, math.ceil(80 * (time.monotonic() - started)))


def forked(*words: str) -> Forked:
    """Starts `jielong …` as a process, quickly; its output can be read once it has ended."""
    return Forked(["-m", "jielong", *words], environment())


# sends itself a signal once the run in a folder has recorded a step
_SIGNALLED = """
import json, signal, sys
from jielong.cli.main import main
from jielong.observe.metrics import MetricsFile
folder, step, number, words = json.loads(sys.argv[1])
record = MetricsFile.train

def record_and_signal(self, done, *values, **more):
    written = record(self, done, *values, **more)
    if done == step and str(self.path.parent) == folder:
        signal.raise_signal(number)
    return written

MetricsFile.train = record_and_signal
sys.exit(main(words))
"""


def signalled(words: Sequence[str], run: Path, step: int, number: int) -> tuple[int, str]:
    """Runs `jielong …`, which gets a signal in `step` of `run`: its exit status, and its errors.

    It sends the signal itself: from here it might come after the end of so short a run.
    """
    arguments = json.dumps([str(run), step, int(number), list(words)])
    process = Forked(["-c", _SIGNALLED, arguments], environment())
    said = process.communicate(timeout=600)[1]
    assert process.returncode is not None
    return process.returncode, said


def jielong(*words: str, **options: Any) -> subprocess.Popen[str]:
    """Starts `jielong …` as a user does; its output can be read as text, line by line."""
    return subprocess.Popen(
        [sys.executable, "-m", "jielong", *words],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
