"""An update of a mixture of experts: what it minimises, reports and leaves behind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from jielong.config.load import load_config
from jielong.config.settings import IGNORE_INDEX, Config
from jielong.data.batches import Batch
from jielong.model.transformer import Transformer
from jielong.training.optimizer import Optimizer
from jielong.training.step import StepResult, TrainStep
from tiny import new_optimizer


def moe_config(**changes: Any) -> Config:
    values = {
        "vocab_size": 64,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_seq_len": 16,
        "use_moe": True,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
    }
    return load_config(**(values | changes))


def unequal_batches() -> list[Batch]:
    """Two micro-batches, the second mostly padding."""
    tokens = torch.randint(64, (2, 3, 17), generator=torch.Generator().manual_seed(0))
    targets = tokens[:, :, 1:].clone()
    targets[1, :, 4:] = IGNORE_INDEX
    return [Batch(tokens[i, :, :-1], targets[i], None, np.arange(3)) for i in range(2)]


def step(model: Transformer, optimizer: Optimizer, batches: list[Batch]) -> StepResult:
    return TrainStep(model, optimizer, grad_clip=0.0)(batches)


def test_objective_is_mean_loss_plus_balance_weighted_by_targets() -> None:
    c = moe_config(router_aux_loss_coef=0.5, router_z_loss_coef=0.1, learning_rate=0.0)
    torch.manual_seed(0)
    model = Transformer(c.model)
    batches = unequal_batches()
    outputs = [model(batch.tokens, batch.targets) for batch in batches]
    counts = [batch.target_count for batch in batches]
    balance = sum(o.balance_loss * n for o, n in zip(outputs, counts, strict=True)) / sum(counts)
    loss = sum(o.loss for o in outputs) / sum(counts)
    expected = torch.autograd.grad(loss + balance, list(model.parameters()))
    result = step(model, new_optimizer(model, c), batches)
    for p, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, gradient, rtol=1e-4, atol=1e-6)
    assert result.loss == pytest.approx(loss.item(), rel=1e-5)
    assert result.balance_loss == pytest.approx(balance.item(), rel=1e-5)
    assert result.expert_load is not None
    assert result.expert_load.sum(1).tolist() == [2 * sum(counts)] * 2


def test_bias_moves_one_step_towards_balance_in_each_update() -> None:
    c = moe_config(router_aux_loss="bias", router_bias_rate=0.25)
    torch.manual_seed(0)
    model = Transformer(c.model)
    result = step(model, new_optimizer(model, c), unequal_batches())
    assert result.expert_load is not None
    for layer, load in zip(model.model.layers, result.expert_load, strict=True):
        bias = layer.mlp.gate.e_score_correction_bias
        assert bias.tolist() == (0.25 * (load.mean() - load).sign()).tolist()


def test_refused_update_leaves_the_bias_alone() -> None:
    c = moe_config(router_aux_loss="bias")
    model = Transformer(c.model)
    with torch.no_grad():
        model.model.norm.weight.fill_(torch.nan)
    assert not step(model, new_optimizer(model, c), unequal_batches()).applied
    assert not model.model.layers[0].mlp.gate.e_score_correction_bias.any()


@pytest.mark.parametrize("form", ["batch", "sequence"])
def test_balance_loss_evens_out_a_skewed_load(form: str) -> None:
    c = moe_config(router_aux_loss=form, router_aux_loss_coef=1.0, num_experts_per_tok=1)
    torch.manual_seed(0)
    model = Transformer(c.model)
    with torch.no_grad():  # all tokens lean one way, and so to one expert
        model.model.embed_tokens.weight += 0.05
    optimizer, batches = new_optimizer(model, c), unequal_batches()[:1]
    loads = [step(model, optimizer, batches).expert_load for _ in range(40)]
    first, last = (load.max(1).values / load.mean(1) for load in (loads[0], loads[-1]))
    assert first.max() > 2 and last.max() < 1.6
