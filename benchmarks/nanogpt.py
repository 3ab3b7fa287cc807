"""nanoGPT's recipe for small text as a contender: written from its description, not its code.

A GPT-2 without biases (LayerNorm, GELU, learned positions, tied head), dropout 0.2, AdamW 0.9/0.99
with decay 0.1 on matrices, 2 % warm-up, a cosine to a tenth, gradients clipped at 1, windows from
anywhere in the text, eager.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from race import Race, Task
from torch import Tensor, nn

DROPOUT, WARMUP = 0.2, 0.02


class Block(nn.Module):
    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(hidden, bias=False), nn.LayerNorm(hidden, bias=False)
        self.qkv = nn.Linear(hidden, 3 * hidden, bias=False)
        self.out = nn.Linear(hidden, hidden, bias=False)
        self.mlp = nn.Sequential(
            nn.Linear(hidden, 4 * hidden, bias=False),
            nn.GELU(),
            nn.Linear(4 * hidden, hidden, bias=False),
        )
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        B, T, H = x.shape
        qkv = self.qkv(self.norm1(x)).view(B, T, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        share = DROPOUT if self.training else 0.0
        seen = F.scaled_dot_product_attention(*qkv, dropout_p=share, is_causal=True)
        x = x + self.dropout(self.out(seen.transpose(1, 2).reshape(B, T, H)))
        return x + self.dropout(self.mlp(self.norm2(x)))


class GPT(nn.Module):
    """Logits (B, T, V) of tokens (B, T)."""

    def __init__(self, vocabulary: int, hidden: int, layers: int, heads: int, window: int) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, hidden), nn.Embedding(window, hidden)
        self.dropout = nn.Dropout(DROPOUT)
        self.blocks = nn.Sequential(*(Block(hidden, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(hidden, bias=False)
        self.head = nn.Linear(hidden, vocabulary, bias=False)
        self.head.weight = self.tokens.weight
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                into_residual = name.endswith(("out.weight", "mlp.2.weight"))
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * layers if into_residual else 1))

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.dropout(self.tokens(tokens) + self.places(places))
        return self.head(self.norm(self.blocks(x)))


def train(task: Task, stream: np.ndarray, race: Race) -> int:
    """Train until the time is over or the held-out text has turned; returns the parameters."""
    torch.manual_seed(task.seed)
    heads, window = task.num_attention_heads, task.window
    model = GPT(task.vocab_size, task.hidden_size, task.num_hidden_layers, heads, window)
    matrices = [w for w in model.parameters() if w.ndim == 2]
    others = [w for w in model.parameters() if w.ndim != 2]
    groups = [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(
        groups, lr=task.rate, betas=(0.9, 0.99), weight_decay=0.1, fused=True
    )
    tokens = torch.from_numpy(stream)
    span = torch.arange(window + 1)
    race.start()
    while not race.over:
        for group in optimizer.param_groups:
            group["lr"] = task.rate * race.cosine(WARMUP)
        first = torch.randint(len(tokens) - window, (task.batch_size, 1))
        rows = tokens[first + span]
        loss = F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        race.trained(task.batch_size * window)
        if race.due:
            race.measure(model)
    return sum(w.numel() for w in model.parameters())
