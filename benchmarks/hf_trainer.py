"""The transformers Trainer as a contender: blocks of text, AdamW, warm-up and cosine."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from common import Logits
from race import PATIENCE, Race, Task
from transformers import (
    EarlyStoppingCallback,
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from jielong.config.model import ModelConfig

WARMUP = 0.05


def llama(vocab_size: int, window: int, size: dict[str, int]) -> LlamaForCausalLM:
    """A new model of transformers with the shape that ours has for these sizes."""
    config = LlamaConfig(
        vocab_size=vocab_size,
        intermediate_size=ModelConfig(hidden_size=size["hidden_size"]).mlp_size,
        max_position_embeddings=window,
        tie_word_embeddings=True,
        **size,
    )
    return LlamaForCausalLM(config)


def rows_of(blocks: np.ndarray) -> list[dict[str, torch.Tensor]]:
    """Blocks (N, length) as the Trainer takes them."""
    return [{"input_ids": torch.from_numpy(b), "labels": torch.from_numpy(b)} for b in blocks]


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
    started = time.perf_counter()
    model = llama(vocab_size, blocks.shape[1], model_size)
    rows = rows_of(blocks)
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
            warmup_steps=round(WARMUP * steps),
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


def train_in_time(task: Task, stream: np.ndarray, race: Race) -> int:
    """With early stopping and the best checkpoint, until the time is over; returns the parameters.

    The rate goes by the clock, so that the cosine ends with the time; our measure stands in for the
    Trainer's evaluation.
    """
    set_seed(task.seed)
    blocks = stream[: len(stream) // task.window * task.window].reshape(-1, task.window)
    size = {
        "hidden_size": task.hidden_size,
        "num_hidden_layers": task.num_hidden_layers,
        "num_attention_heads": task.num_attention_heads,
        "num_key_value_heads": task.num_key_value_heads,
    }
    model, rows = llama(task.vocab_size, task.window, size), rows_of(blocks)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=task.rate, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    by_clock = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: race.cosine(WARMUP))

    class ByClock(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if race.begun is None:
                race.start()
            race.trained(task.batch_size * task.window)
            control.should_evaluate = race.due

    class Measured(Trainer):
        def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
            metrics = {"eval_bits": race.measure(Logits(model))}
            control = self.callback_handler.on_evaluate(
                self.args, self.state, self.control, metrics
            )
            control.should_training_stop |= race.over
            self.control = control
            return metrics

        def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
            with race.paused():
                super()._save_checkpoint(*args, **kwargs)

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            per_device_train_batch_size=task.batch_size,
            max_steps=10**7,
            eval_strategy="steps",
            eval_steps=10**9,
            save_strategy="best",
            save_total_limit=1,
            load_best_model_at_end=True,
            metric_for_best_model="bits",
            greater_is_better=False,
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            logging_steps=10**9,
        )
        callbacks = [ByClock(), EarlyStoppingCallback(PATIENCE)]
        trainer = Measured(
            model,
            arguments,
            train_dataset=rows,  # type: ignore[arg-type]
            eval_dataset=rows[:1],  # type: ignore[arg-type]
            callbacks=callbacks,  # type: ignore[arg-type]
            optimizers=(optimizer, by_clock),
        )
        trainer.train()
    loaded = race.bits(Logits(model).eval())
    assert abs(loaded - min(bits for _, bits in race.curve)) < 1e-4, "not the best checkpoint"
    return model.num_parameters()
