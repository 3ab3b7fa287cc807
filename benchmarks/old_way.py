"""The way of the script our users come from, as a contender: written from its formulas.

A document a row, padded and cut to a fixed length; a plain Llama with repeated keys and values and
the logits of the whole batch; the mean over the tokens that are no padding; torch's AdamW; a cosine
from 1.1 to 0.1 times the rate; no shuffle; eager. Its held-out loss is measured by our evaluator,
outside the clock.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Norm(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        scaled = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-5)
        return self.weight * scaled.type_as(x)


class Layer(nn.Module):
    def __init__(self, hidden: int, heads: int, kv_heads: int, inner: int) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.size = heads, kv_heads, hidden // heads
        self.q = nn.Linear(hidden, heads * self.size, bias=False)
        self.k = nn.Linear(hidden, kv_heads * self.size, bias=False)
        self.v = nn.Linear(hidden, kv_heads * self.size, bias=False)
        self.o = nn.Linear(heads * self.size, hidden, bias=False)
        self.gate = nn.Linear(hidden, inner, bias=False)
        self.up = nn.Linear(hidden, inner, bias=False)
        self.down = nn.Linear(inner, hidden, bias=False)
        self.norm1, self.norm2 = Norm(hidden), Norm(hidden)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        B, T, _ = x.shape
        h = self.norm1(x)
        q = self.q(h).view(B, T, self.heads, self.size)
        k = self.k(h).view(B, T, self.kv_heads, self.size)
        v = self.v(h).view(B, T, self.kv_heads, self.size)
        q, k = turn(q, cos, sin), turn(k, cos, sin)
        times = self.heads // self.kv_heads
        q, k, v = (
            q.transpose(1, 2),
            k.repeat_interleave(times, 2).transpose(1, 2),
            v.repeat_interleave(times, 2).transpose(1, 2),
        )
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(out.transpose(1, 2).reshape(B, T, -1))
        h = self.norm2(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Llama(nn.Module):
    def __init__(
        self, vocab: int, hidden: int, layers: int, heads: int, kv_heads: int, length: int
    ) -> None:
        super().__init__()
        inner = 64 * math.ceil(hidden * 8 / 3 / 64)
        self.embed = nn.Embedding(vocab, hidden)
        self.layers = nn.ModuleList(Layer(hidden, heads, kv_heads, inner) for _ in range(layers))
        self.norm = Norm(hidden)
        self.head = nn.Linear(hidden, vocab, bias=False)
        self.apply(
            lambda m: nn.init.normal_(m.weight, std=0.02) if hasattr(m, "in_features") else 0
        )
        nn.init.normal_(self.embed.weight, std=0.02)
        self.head.weight = self.embed.weight
        size = hidden // heads
        angles = torch.outer(torch.arange(length), 1e6 ** -(torch.arange(0, size, 2) / size))
        angles = torch.cat([angles, angles], -1)[None, :, None]
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(
        self, tokens: Tensor, targets: Tensor | None = None, document_ids: Tensor | None = None
    ) -> Tensor:
        x = self.embed(tokens)
        T = tokens.shape[1]
        for layer in self.layers:
            x = layer(x, self.cos[:, :T], self.sin[:, :T])
        return self.head(self.norm(x))


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin


def train(
    model: Llama,
    rows: Tensor,
    *,
    pad: int,
    batch_size: int,
    accumulation: int,
    rate: float,
    measure: Callable[[int, float], bool],
    every: int,
) -> None:
    """One epoch over rows (N, length); `measure(step, seconds)` now and then, true to stop."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    steps = -(-len(rows) // batch_size)
    spent, started = 0.0, time.perf_counter()
    for step in range(steps):
        lr = rate / 10 + 0.5 * rate * (1 + math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = lr
        batch = rows[step * batch_size : (step + 1) * batch_size]
        tokens, targets = batch[:, :-1], batch[:, 1:]
        losses = F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten(), reduction="none")
        mask = (targets != pad).flatten().float()
        ((losses * mask).sum() / mask.sum() / accumulation).backward()
        if (step + 1) % accumulation == 0:
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if (step + 1) % every == 0 or step + 1 == steps:
            spent += time.perf_counter() - started
            if measure(step + 1, spent):
                return
            started = time.perf_counter()
