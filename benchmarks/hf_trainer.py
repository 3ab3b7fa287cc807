"""The transformers Trainer as a contender: blocks of text, AdamW, warm-up and cosine."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from jielong.config.model import ModelConfig


def train(
    blocks: np.ndarray,
    model_size: dict[str, int],
    vocab_size: int,
    *,
    batch_size: int,
    rate: float,
    measures: int,
    prepared: float,
    bits: Callable[[Any], float],
) -> list[tuple[float, float]]:
    """One epoch over blocks (N, length); seconds and held-out bits per byte now and then."""
    set_seed(0)
    hidden = model_size["hidden_size"]
    started = time.perf_counter()
    config = LlamaConfig(
        vocab_size=vocab_size,
        intermediate_size=ModelConfig(hidden_size=hidden).mlp_size,
        max_position_embeddings=blocks.shape[1],
        tie_word_embeddings=True,
        **model_size,
    )
    model = LlamaForCausalLM(config)
    rows = [{"input_ids": torch.from_numpy(b), "labels": torch.from_numpy(b)} for b in blocks]
    steps = -(-len(rows) // batch_size)
    curve: list[tuple[float, float]] = []
    clock = {"spent": prepared, "started": started}

    class Measure(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step % max(1, steps // measures) == 0 or state.global_step == steps:
                clock["spent"] += time.perf_counter() - clock["started"]
                curve.append((clock["spent"], bits(lambda tokens: model(tokens).logits)))
                clock["started"] = time.perf_counter()

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            per_device_train_batch_size=batch_size,
            num_train_epochs=1,
            learning_rate=rate,
            lr_scheduler_type="cosine",
            warmup_steps=round(0.05 * steps),
            weight_decay=0.1,
            adam_beta2=0.95,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
            logging_steps=10**9,
        )
        Trainer(model, arguments, train_dataset=rows, callbacks=[Measure()]).train()  # type: ignore[arg-type]
    return curve
