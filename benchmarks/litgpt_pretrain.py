"""litgpt's own `pretrain` as a contender; runs in an environment of its own (`make bench-litgpt`).

    python litgpt_pretrain.py FOLDER VOCABULARY WINDOW BATCH RATE HIDDEN OUT.json

Its model, loop, schedule, compilation and clipping are taken as they are; it gets blocks of text,
the well-set AdamW that the others have, and our measure of the held-out text.
"""

from __future__ import annotations

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
from time_to_loss import blocks_of_text, held_out
from torch.utils.data import DataLoader, TensorDataset

from jielong.config.model import ModelConfig
from jielong.tokenization.tokenizer import Tokenizer

MEASURES = 8


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
    pretrain.save_checkpoint = lambda *_: None  # reads the command line as its own
    updates = len(blocks) // batch
    pretrain.setup(
        model_name="ours",
        model_config=Config(
            name="ours",
            block_size=window,
            vocab_size=vocabulary,
            padded_vocab_size=vocabulary,
            n_layer=4,
            n_head=4,
            n_query_groups=2,
            n_embd=hidden,
            rotary_percentage=1.0,
            parallel_residual=False,
            bias=False,
            norm_class_name="RMSNorm",
            mlp_class_name="LLaMAMLP",
            intermediate_size=ModelConfig(hidden_size=hidden).mlp_size,
        ),
        out_dir=folder / "litgpt",
        precision="32-true",
        data=Blocks(blocks),
        train=TrainArgs(
            save_interval=None,
            log_interval=100,
            global_batch_size=batch,
            micro_batch_size=batch,
            max_tokens=updates * batch * window,
            lr_warmup_steps=round(0.05 * updates),
            max_norm=1.0,
            min_lr=float(sys.argv[5]) / 10,
            tie_embeddings=True,
        ),
        eval=EvalArgs(interval=max(1, updates // MEASURES), final_validation=True),
        optimizer={
            "class_path": "torch.optim.AdamW",
            "init_args": {"lr": float(sys.argv[5]), "betas": (0.9, 0.95), "weight_decay": 0.1},
        },
        devices=1,
        logger_name="csv",
    )
    out.write_text(json.dumps(curve))


if __name__ == "__main__":
    main()
