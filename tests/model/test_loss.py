"""The chunked loss against torch's own cross-entropy."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from jielong.config.settings import IGNORE_INDEX
from jielong.model.loss import CHUNK_TOKENS, distillation_loss, linear_cross_entropy
from jielong.model.soft_targets import TeacherTargets


def make(
    count: int, ignored: float, scale: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    hidden = torch.randn(count, 24, generator=generator) * scale
    weight = torch.randn(50, 24, generator=generator)
    targets = torch.randint(50, (count,), generator=generator)
    targets[torch.rand(count, generator=generator) < ignored] = IGNORE_INDEX
    return hidden, weight, targets


@pytest.mark.parametrize("count", [1, CHUNK_TOKENS - 1, CHUNK_TOKENS, 3 * CHUNK_TOKENS + 7])
@pytest.mark.parametrize("ignored", [0.0, 0.4])
def test_value_and_gradients_equal_cross_entropy(count: int, ignored: float) -> None:
    hidden, weight, targets = make(count, ignored)
    ours = [hidden.clone().requires_grad_(), weight.clone().requires_grad_()]
    loss = linear_cross_entropy(*ours, targets)
    (loss * 0.37).backward()
    exact = [hidden.double().requires_grad_(), weight.double().requires_grad_()]
    expected = F.cross_entropy(exact[0] @ exact[1].T, targets, reduction="sum")
    (expected * 0.37).backward()
    torch.testing.assert_close(loss.double(), expected.detach(), rtol=1e-5, atol=1e-4)
    for got, wanted in zip(ours, exact, strict=True):
        assert got.grad is not None and wanted.grad is not None
        torch.testing.assert_close(got.grad.double(), wanted.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_with_a_teacher_it_is_the_mixture_of_both_cross_entropies(share: float) -> None:
    hidden, weight, targets = make(CHUNK_TOKENS + 90, 0.3)
    generator = torch.Generator().manual_seed(1)
    theirs = torch.randn(len(targets), 7, generator=generator)
    head = torch.randn(50, 7, generator=generator)
    ours = [hidden.clone().requires_grad_(), weight.clone().requires_grad_()]
    objective, nats = distillation_loss(*ours, targets, TeacherTargets(theirs, head, share))
    (objective * 0.37).backward()
    exact = [hidden.double().requires_grad_(), weight.double().requires_grad_()]
    kept = targets != IGNORE_INDEX
    logits = (exact[0] @ exact[1].T)[kept]
    hard = F.cross_entropy(logits, targets[kept], reduction="sum")
    taught = (theirs.double() @ head.double().T)[kept].softmax(-1)
    soft = F.cross_entropy(logits, taught, reduction="sum")
    expected = (1 - share) * hard + share * soft
    (expected * 0.37).backward()
    torch.testing.assert_close(objective.double(), expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(nats.double(), hard, rtol=1e-5, atol=1e-4)
    assert not nats.requires_grad
    for got, wanted in zip(ours, exact, strict=True):
        assert got.grad is not None and wanted.grad is not None
        torch.testing.assert_close(got.grad.double(), wanted.grad, rtol=1e-4, atol=1e-4)


def test_all_ignored_is_zero_with_zero_gradients() -> None:
    hidden, weight, _ = make(300, 0.0)
    hidden.requires_grad_()
    weight.requires_grad_()
    loss = linear_cross_entropy(hidden, weight, torch.full((300,), IGNORE_INDEX))
    loss.backward()
    assert float(loss.detach()) == 0
    assert not hidden.grad.any() and not weight.grad.any()  # type: ignore[union-attr]


def test_ignored_rows_count_nothing_even_where_they_are_not_finite() -> None:
    hidden, weight, targets = make(10, 0.0)
    expected = F.cross_entropy(hidden[:8] @ weight.T, targets[:8], reduction="sum")
    hidden[8:] = 1e4
    targets[8:] = IGNORE_INDEX
    torch.testing.assert_close(linear_cross_entropy(hidden, weight, targets), expected)


def test_very_sure_logits_stay_finite() -> None:
    hidden, weight, targets = make(100, 0.1, scale=1e3)
    loss = linear_cross_entropy(hidden, weight, targets)
    expected = F.cross_entropy((hidden @ weight.T).double(), targets, reduction="sum")
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-2)


def test_without_gradients_none_are_made() -> None:
    hidden, weight, targets = make(20, 0.0)
    weight.requires_grad_()
    with torch.no_grad():
        assert not linear_cross_entropy(hidden, weight, targets).requires_grad


@pytest.mark.parametrize("which", [0, 1])
def test_a_gradient_can_be_asked_of_one_side_alone(which: int) -> None:
    hidden, weight, targets = make(20, 0.0)
    sides = [hidden, weight]
    sides[which].requires_grad_()
    linear_cross_entropy(hidden, weight, targets).backward()
    got = sides[which].grad
    sides[which].grad = None
    F.cross_entropy(hidden @ weight.T, targets, reduction="sum").backward()
    torch.testing.assert_close(got, sides[which].grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_it_is_close_and_float32(dtype: torch.dtype) -> None:
    hidden, weight, targets = make(64, 0.2)
    weight.requires_grad_()
    with torch.autocast("cpu", dtype):
        loss = linear_cross_entropy(hidden, weight, targets)
    loss.backward()
    expected = F.cross_entropy(hidden @ weight.T, targets, reduction="sum")
    assert loss.dtype == torch.float32
    assert weight.grad is not None and weight.grad.dtype == torch.float32
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-2)
    (exact,) = torch.autograd.grad(expected, weight)
    assert (weight.grad - exact).norm() < 0.02 * exact.norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_vocabulary_beyond_the_range_of_half_precision_stays_finite(dtype: torch.dtype) -> None:
    hidden = torch.zeros(4, 8, requires_grad=True)  # all tokens alike: the sum is the vocabulary
    weight = torch.zeros(70_000, 8, requires_grad=True)
    with torch.no_grad():
        hidden[:, 0] = 1.0
    with torch.autocast("cpu", dtype):
        loss = linear_cross_entropy(hidden, weight, torch.tensor([1, 2, 3, 69_999]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(4 * math.log(70_000), rel=1e-4)
    assert weight.grad is not None
    for target in (1, 2, 3, 69_999):
        assert float(weight.grad[target, 0]) == pytest.approx(-1.0, rel=1e-2)
