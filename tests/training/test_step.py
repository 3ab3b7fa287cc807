"""One update: exact over micro-batches, refused whole where anything is not finite."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from jielong.config.settings import IGNORE_INDEX
from jielong.data.batches import Batch, Batches
from jielong.model.transformer import Transformer
from jielong.training.optimizer import Optimizer
from tiny import (
    ListStream,
    new_optimizer,
    one_step,
    random_batch,
    random_documents,
    split_batch,
    tiny_config,
    tiny_model,
)


def optimizer_of(model: Transformer, **values: Any) -> Optimizer:
    return new_optimizer(model, tiny_config(**values))


def gradients(model: Transformer) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def some_batch(kind: str) -> Batch:
    if kind == "random":
        return random_batch(8, 16)
    if kind == "masked unevenly":
        return random_batch(8, 16, ignored=0.5)
    config = tiny_config(packing=kind, max_seq_len=16)
    batches = Batches(ListStream(random_documents(60, 20)), config.data, config.training)
    return batches.load(np.arange(8))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("kind", ["random", "masked unevenly", "pad", "pack"])
def test_eight_micro_batches_update_as_one_of_eight_rows(kind: str, optimizer: str) -> None:
    batch = some_batch(kind)
    results = []
    for parts in (1, 8):
        model = tiny_model()
        step = one_step(
            model,
            optimizer_of(model, optimizer=optimizer, adam_eps=1e-3),
            split_batch(batch, parts),
            grad_clip=0.0,
        )
        results.append((step, gradients(model), dict(model.named_parameters())))
    (one, one_grads, one_weights), (eight, eight_grads, eight_weights) = results
    assert one.tokens == eight.tokens == batch.target_count
    assert one.loss == pytest.approx(eight.loss, rel=1e-6)
    assert one.grad_norm == pytest.approx(eight.grad_norm, rel=1e-5)
    for name, grad in one_grads.items():
        torch.testing.assert_close(eight_grads[name], grad, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(eight_weights[name], one_weights[name], rtol=1e-4, atol=1e-5)


def test_the_gradient_is_that_of_the_mean_over_all_targets() -> None:
    batch = random_batch(6, 16, ignored=0.4)
    model, reference = tiny_model(), tiny_model()
    result = one_step(model, optimizer_of(model), split_batch(batch, 3), grad_clip=0.0)
    logits = reference(batch.tokens).logits.flatten(0, 1)
    mean = torch.nn.functional.cross_entropy(
        logits, batch.targets.flatten(), ignore_index=IGNORE_INDEX
    )
    mean.backward()
    assert result.loss == pytest.approx(float(mean.detach()), rel=1e-5)
    for name, grad in gradients(reference).items():
        torch.testing.assert_close(gradients(model)[name], grad, rtol=1e-4, atol=1e-6)
    norm = torch.cat([g.flatten() for g in gradients(reference).values()]).norm()
    assert result.grad_norm == pytest.approx(float(norm), rel=1e-5)


def test_clipping_scales_the_gradient_to_the_limit() -> None:
    model, free = tiny_model(), tiny_model()
    batch = random_batch(4, 16)
    norm = one_step(free, optimizer_of(free), [batch], grad_clip=0.0).grad_norm
    limit = norm / 3
    assert one_step(model, optimizer_of(model), [batch], grad_clip=limit).grad_norm == norm
    for name, grad in gradients(model).items():
        torch.testing.assert_close(grad, gradients(free)[name] / 3, rtol=1e-3, atol=1e-7)


def snapshot(model: Transformer, optimizer: Optimizer) -> dict[str, torch.Tensor]:
    tensors = dict(model.state_dict()) | optimizer.state_tensors()
    return {name: value.clone() for name, value in tensors.items()}


def is_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_step_that_is_not_finite_changes_nothing(
    optimizer: str, value: float, where: str
) -> None:
    model = tiny_model()
    opt = optimizer_of(model, optimizer=optimizer)
    batches = split_batch(random_batch(4, 16), 2)
    assert one_step(model, opt, batches).applied
    before, reference = snapshot(model, opt), copy.deepcopy(model)

    def spoil_loss(module: Any, inputs: Any, output: Any) -> None:
        output.loss = output.loss * value

    if where == "loss":
        hook = model.register_forward_hook(spoil_loss)
    else:
        hook = model.model.norm.register_full_backward_hook(lambda m, i, o: (i[0] * value,))
    refused = one_step(model, opt, batches)
    hook.remove()
    assert not refused.applied
    assert is_same(snapshot(model, opt), before)
    assert is_same(dict(model.state_dict()), dict(reference.state_dict()))
    assert one_step(model, opt, batches).applied  # and the next step is none the worse
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_a_batch_without_targets_is_finite() -> None:
    model = tiny_model()
    batch = random_batch(2, 16)
    batch.targets.fill_(IGNORE_INDEX)
    result = one_step(model, optimizer_of(model), [batch])
    assert result.tokens == 0 and result.loss == 0 and result.grad_norm == 0
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_a_micro_batch_without_targets_changes_nothing_beside_another() -> None:
    batch, empty = random_batch(4, 16), random_batch(4, 16, seed=1)
    empty.targets.fill_(IGNORE_INDEX)
    one, two = tiny_model(), tiny_model()
    one_step(one, optimizer_of(one), [batch])
    one_step(two, optimizer_of(two), [batch, empty])
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_one_document_is_memorised() -> None:
    document = [1, *np.random.default_rng(0).integers(3, 64, size=46).tolist(), 2]
    config = tiny_config(max_seq_len=48, batch_size=1, accumulation_steps=1)
    batches = Batches(ListStream([document]), config.data, config.training)
    torch.manual_seed(0)
    model = Transformer(tiny_model().config)
    optimizer = new_optimizer(model, config.with_values(learning_rate=0.01, weight_decay=0.0))
    losses = [one_step(model, optimizer, [batches.batch(step)]).loss for step in range(60)]
    assert losses[0] == pytest.approx(np.log(64), abs=0.3)
    assert losses[-1] < 0.1
