"""What the parts of `gpu.py` share: models with random weights, batches, synthetic text."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jielong.config.load import load_config
from jielong.config.model import ModelConfig
from jielong.config.settings import Config
from jielong.data.batches import Batch
from jielong.model.transformer import Transformer
from jielong.training.optimizer import Optimizer
from jielong.training.step import TrainStep


class SkipPart(Exception):  # noqa: N818 (no error)
    """A part that this machine cannot run, and why."""


@dataclass(frozen=True)
class Bench:
    """Where a part runs, and how thoroughly."""

    device: torch.device
    quick: bool
    folder: Path  # empty, for what it writes

    @property
    def is_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def half(self) -> torch.dtype:
        """The half precision that a run would take here; float32 in a rehearsal."""
        if not self.is_gpu:
            return torch.float32
        return torch.bfloat16 if torch.cuda.get_device_capability()[0] >= 8 else torch.float16

    def wait(self) -> None:
        if self.is_gpu:
            torch.cuda.synchronize()


@dataclass(frozen=True)
class Part:
    """A check or a measure: `run` returns what goes into the JSON, or raises."""

    name: str
    kind: str  # check or measure
    run: Callable[[Bench], Any]
    seconds: float = 10.0  # that it usually takes
    timeout: float = 120.0
    may_be_left_out: bool = False  # of a quick run, where a check takes long


MIXTURE = {
    "use_moe": True,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
}
KINDS: dict[str, dict[str, Any]] = {"dense": {}, "mixture": MIXTURE}


def small_model(**changes: Any) -> ModelConfig:
    values: dict[str, Any] = {
        "vocab_size": 512,
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
    }
    return ModelConfig(**(values | changes)).validated()


def new_model(config: ModelConfig, device: torch.device, seed: int = 0) -> Transformer:
    """A model whose every weight matters: a fresh one's layers add nothing yet."""
    model = Transformer(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim > 1:
                std = 0.02 if "embed" in name else 0.5 * p.shape[-1] ** -0.5
                p.copy_(std * torch.randn(p.shape, generator=generator))
    return model.to(device)


def new_step(model: Transformer, dtype: torch.dtype, **changes: Any) -> TrainStep:
    """What trains a model; `changes` are fields of TrainStep, or settings of the optimizer."""
    settings = {k: changes.pop(k) for k in ("optimizer", "learning_rate") if k in changes}
    values = {"optimizer": "muon", "learning_rate": 3e-3, "weight_decay": 0.1, "adam_eps": 1e-6}
    config: Config = load_config(**(values | settings))
    rate = config.training.learning_rate
    assert rate is not None
    optimizer = Optimizer(model, config.training, rate)
    return TrainStep(model, optimizer, **({"grad_clip": 1.0, "dtype": dtype} | changes))


def random_batch(
    vocab_size: int, rows: int, length: int, seed: int = 0, documents: bool = True
) -> Batch:
    """Random windows; with document borders about every 40 tokens, and some targets ignored."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(vocab_size, (rows, length + 1), generator=generator)
    targets = ids[:, 1:].clone()
    borders = None
    if documents:
        targets[torch.rand(rows, length, generator=generator) < 0.05] = -100
        borders = (torch.rand(rows, length, generator=generator) < 1 / 40).int().cumsum(1).int()
    tokens = ids[:, :-1].contiguous()
    return Batch(tokens, targets, borders, np.arange(rows), torch.arange(rows))


def relative(found: Tensor, expected: Tensor) -> float:
    """The norm of the difference, as a share of the expected norm."""
    found, expected = found.detach().double().cpu(), expected.detach().double().cpu()
    return float((found - expected).norm() / expected.norm().clamp_min(1e-30))


def gradients(model: torch.nn.Module) -> list[Tensor]:
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def worst(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest relative difference of the pairs."""
    return max(relative(a, b) for a, b in zip(found, expected, strict=True))


def corpus(folder: Path, documents: int = 400) -> Path:
    """Made-up text with some order in it, the same each time."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghij", k=rng.randint(2, 7))) for _ in range(200)]
    path = folder / "corpus.jsonl"
    with path.open("w") as file:
        for _ in range(documents):
            start = rng.randrange(200)
            text = " ".join(words[(start + i * i) % 200] for i in range(rng.randint(5, 120)))
            file.write(json.dumps({"text": text}) + "\n")
    return path
