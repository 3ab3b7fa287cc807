"""Layers that are computed again in the backward pass: the same numbers for less memory."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from jielong.model.dropout import Dropout
from jielong.model.transformer import Transformer
from tiny import random_batch, tiny_model

KINDS: dict[str, dict[str, Any]] = {
    "dense": {},
    "mixture": {"use_moe": True, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
}


def objective_and_gradients(model: Transformer, dtype: torch.dtype) -> list[torch.Tensor]:
    batch = random_batch(3, 16)
    dropout = Dropout(0.2, torch.arange(3))
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        output = model(batch.tokens, batch.targets, dropout=dropout)
    assert output.loss is not None
    objective = output.loss / batch.target_count
    if output.balance_loss is not None:
        objective = objective + output.balance_loss
    objective.backward()
    gradients = [p.grad for p in model.parameters()]
    return [objective.detach(), *(g for g in gradients if g is not None)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradients_keep_their_bits(kind: str, every: int, dtype: torch.dtype) -> None:
    plain, again = (tiny_model(num_hidden_layers=3, **KINDS[kind]) for _ in range(2))
    again.model.recompute_every = every
    expected, found = (objective_and_gradients(m, dtype) for m in (plain, again))
    assert len(found) == len(expected)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(("every", "passes"), [(0, [1, 1, 1]), (2, [2, 1, 2]), (1, [2, 2, 2])])
def test_the_chosen_layers_run_twice_and_only_in_training(every: int, passes: list[int]) -> None:
    model, calls = tiny_model(num_hidden_layers=3), Counter[int]()
    model.model.recompute_every = every
    for number, layer in enumerate(model.model.layers):

        def count(*_: Any, number: int = number) -> None:
            calls[number] += 1

        layer.register_forward_pre_hook(count)
    objective_and_gradients(model, torch.float32)
    assert [calls[n] for n in range(3)] == passes
    calls.clear()
    with torch.inference_mode():
        model(random_batch(1, 8).tokens)
    assert list(calls.values()) == [1, 1, 1]
