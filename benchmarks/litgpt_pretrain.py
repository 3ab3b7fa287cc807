"""litgpt's own `pretrain` as a contender; runs in an environment of its own (`make bench-litgpt`).

    python litgpt_pretrain.py FOLDER VOCABULARY WINDOW BATCH RATE HIDDEN OUT.json

Its model, loop, schedule, compilation and clipping are taken as they are; it gets blocks of text,
the well-set AdamW that the others have, and our measure of the held-out text.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from litgpt import pretrain
from litgpt.args import EvalArgs, TrainArgs
from litgpt.config import Config
from litgpt.data import DataModule
from race import Race, Task
from time_to_loss import blocks_of_text, held_out
from torch.utils.data import DataLoader, TensorDataset

from jielong.config.model import ModelConfig
from jielong.tokenization.tokenizer import Tokenizer

MEASURES, WARMUP = 8, 0.05


class Blocks(DataModule):
    """Windows with one token more than the model reads, in a shuffled order."""

    def __init__(self, blocks: np.ndarray) -> None:
        super().__init__()
        self.blocks, self.batch = torch.from_numpy(blocks), 1

    def connect(self, tokenizer: Any = None, batch_size: int = 1, max_seq_length: int = -1) -> None:
        self.batch = batch_size

    def train_dataloader(self) -> DataLoader[Any]:
        rows = TensorDataset(self.blocks)
        return DataLoader(rows, self.batch, shuffle=True, drop_last=True, collate_fn=stacked)

    val_dataloader = train_dataloader  # not read: the measure is ours


def stacked(items: list[tuple[torch.Tensor]]) -> torch.Tensor:
    return torch.stack([item[0] for item in items])


def run(
    blocks: np.ndarray,
    sizes: dict[str, int],
    *,
    vocabulary: int,
    batch: int,
    rate: float,
    updates: int,
    measures: int,
    out_dir: Path,
    seed: int = 42,
) -> None:
    """Call litgpt's `setup` with blocks (N, window + 1) and sizes by its own names."""
    window = blocks.shape[1] - 1
    pretrain.save_checkpoint = lambda *_: None  # reads the command line as its own
    pretrain.setup(
        model_name="ours",
        model_config=Config(
            name="ours",
            block_size=window,
            vocab_size=vocabulary,
            padded_vocab_size=vocabulary,
            rotary_percentage=1.0,
            parallel_residual=False,
            bias=False,
            norm_class_name="RMSNorm",
            mlp_class_name="LLaMAMLP",
            intermediate_size=ModelConfig(hidden_size=sizes["n_embd"]).mlp_size,
            **sizes,
        ),
        out_dir=out_dir,
        precision="32-true",
        data=Blocks(blocks),
        train=TrainArgs(
            save_interval=None,
            log_interval=100,
            global_batch_size=batch,
            micro_batch_size=batch,
            max_tokens=updates * batch * window,
            lr_warmup_steps=round(WARMUP * updates),
            max_norm=1.0,
            min_lr=rate / 10,
            tie_embeddings=True,
        ),
        eval=EvalArgs(interval=max(1, updates // measures), final_validation=True),
        optimizer={
            "class_path": "torch.optim.AdamW",
            "init_args": {"lr": rate, "betas": (0.9, 0.95), "weight_decay": 0.1},
        },
        devices=1,
        logger_name="csv",
        seed=seed,
    )


class TimeOverError(Exception):
    """The time is over."""


def train_in_time(task: Task, stream: np.ndarray, race: Race) -> int:
    """Until the time is over or the held-out text has turned; returns the parameters.

    The rate goes by the clock, so that the cosine ends with the time.
    """
    length = task.window + 1
    blocks = stream[: len(stream) // length * length].reshape(-1, length)
    models: list[torch.nn.Module] = []  # as litgpt makes it, before it is compiled
    initialize = pretrain.initialize_weights

    def initialize_weights(fabric: Any, model: torch.nn.Module, **sizes: int) -> None:
        models.append(model)
        initialize(fabric, model, **sizes)

    def rate_now(rate: float, updates_done: int, *_: Any) -> float:
        if updates_done == 1:
            race.start()  # the first one compiled the model
        if updates_done:
            race.trained(task.batch_size * task.window)
        if race.due:
            race.measure(models[0])
        if race.over:
            raise TimeOverError
        return rate * race.cosine(WARMUP)

    pretrain.validate = lambda *_, **__: torch.zeros(())
    pretrain.initialize_weights = initialize_weights
    pretrain.get_lr = rate_now
    sizes = {
        "n_layer": task.num_hidden_layers,
        "n_head": task.num_attention_heads,
        "n_query_groups": task.num_key_value_heads,
        "n_embd": task.hidden_size,
    }
    with contextlib.suppress(TimeOverError):
        run(
            blocks,
            sizes,
            vocabulary=task.vocab_size,
            batch=task.batch_size,
            rate=task.rate,
            updates=10**7,
            measures=1,
            out_dir=Path(task.folder) / "litgpt",
            seed=task.seed,
        )
    return sum(weight.numel() for weight in models[0].parameters())


def main() -> None:
    folder, out = Path(sys.argv[1]), Path(sys.argv[7])
    vocabulary, window, batch, hidden = (int(sys.argv[i]) for i in (2, 3, 4, 6))
    tokenizer = Tokenizer.load(folder / "tokenizer")
    started = time.perf_counter()
    blocks = blocks_of_text(folder, tokenizer, window + 1)
    curve: list[tuple[float, float]] = []
    clock = {"validating": 0.0}

    def validate(fabric: Any, model: Any, loader: Any, max_iters: int, verbose: bool = True) -> Any:
        now = time.perf_counter()
        if verbose:  # the first call only tries the settings
            model.eval()
            bits = held_out(
                folder, tokenizer, window, model._forward_module._orig_mod
            ).bits_per_byte
            model.train()
            curve.append((now - started - clock["validating"], bits))
        clock["validating"] += time.perf_counter() - now
        return torch.zeros(())

    pretrain.validate = validate
    updates = len(blocks) // batch
    rate = float(sys.argv[5])
    run(
        blocks,
        {"n_layer": 4, "n_head": 4, "n_query_groups": 2, "n_embd": hidden},
        vocabulary=vocabulary,
        batch=batch,
        rate=rate,
        updates=updates,
        measures=MEASURES,
        out_dir=folder / "litgpt",
    )
    out.write_text(json.dumps(curve))


if __name__ == "__main__":
    main()
