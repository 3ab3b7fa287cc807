"""AdamW and Muon: what they do to a matrix, to a vector, and across a save."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from jielong.errors import CheckpointError
from jielong.training.optimizer import Muon, orthogonalize
from jielong.training.scaling import default_learning_rate
from tiny import new_optimizer, one_step, random_batch, tiny_config, tiny_model


@pytest.mark.parametrize("shape", [(24, 24), (16, 64), (64, 16), (1, 32), (32, 1), (3, 40, 20)])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_orthogonalize_brings_singular_values_near_one(
    shape: tuple[int, ...], scale: float
) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * scale
    batch = matrix.reshape(-1, *shape[-2:])
    values = torch.linalg.svdvals(orthogonalize(batch))
    # a square matrix of chance has some singular value near 0, which a few steps raise but part-way
    least = 0.1 if shape[-1] == shape[-2] else 0.6
    assert least < values.min() and values.max() < 1.25


@pytest.mark.parametrize("shape", [(16, 64), (64, 16)])
def test_orthogonalize_keeps_the_singular_directions(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    inner = u.mT @ orthogonalize(matrix[None])[0] @ vh.mT  # diagonal if U and V are kept
    off = inner - inner.diagonal().diag()
    assert off.abs().max() < 0.02


def test_orthogonalize_of_zero_is_zero() -> None:
    assert not orthogonalize(torch.zeros(2, 8, 16)).any()


def test_a_muon_step_is_momentum_orthogonalised_and_scaled() -> None:
    torch.manual_seed(0)
    start, grads = torch.randn(8, 20), [torch.randn(8, 20) for _ in range(3)]
    p = torch.nn.Parameter(start.clone())
    muon = Muon([p], lr=0.1, momentum=0.9, weight_decay=0.2)
    expected, buffer = start.clone(), torch.zeros(8, 20)
    for grad in grads:
        p.grad = grad.clone()
        muon.step()
        buffer = 0.9 * buffer + 0.1 * grad
        nesterov = 0.1 * grad + 0.9 * buffer
        update = orthogonalize(nesterov[None])[0]
        expected = expected * (1 - 0.1 * 0.2) - 0.1 * 0.2 * 20**0.5 * update
    torch.testing.assert_close(p.detach(), expected)
    # about 0.2 in root mean square an update, as AdamW's
    rms = (0.2 * 20**0.5 * update).square().mean().sqrt()
    assert 0.12 < rms < 0.28


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_only_matrices_decay(kind: str) -> None:
    """With gradients of zero nothing but the decay moves a weight."""
    model = tiny_model()
    optimizer = new_optimizer(
        model, tiny_config(optimizer=kind, weight_decay=0.5, learning_rate=0.1)
    )
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step(0.4)
    for name, p in model.named_parameters():
        shrunk = 1 - 0.1 * 0.4 * 0.5 if p.ndim == 2 else 1.0
        torch.testing.assert_close(p.detach(), before[name] * shrunk, msg=name)


def test_muon_takes_the_hidden_matrices_and_adamw_the_rest() -> None:
    model = tiny_model(tie_word_embeddings=False)
    optimizer = new_optimizer(model, tiny_config(optimizer="muon"))
    adamw, muon = optimizer.parts
    names = {
        part: {optimizer.names[p] for group in part.param_groups for p in group["params"]}
        for part in (adamw, muon)
    }
    for name, p in model.named_parameters():
        hidden = p.ndim == 2 and ".layers." in name
        assert (name in names[muon]) == hidden and (name in names[adamw]) != hidden


def test_the_adamw_step_is_torchs() -> None:
    model, reference = tiny_model(), tiny_model()
    config = tiny_config(
        optimizer="adamw", learning_rate=0.01, weight_decay=0.1, beta1=0.9, beta2=0.95
    )
    optimizer = new_optimizer(model, config)
    matrices = [p for p in reference.parameters() if p.ndim == 2]
    vectors = [p for p in reference.parameters() if p.ndim == 1]
    theirs = torch.optim.AdamW(
        [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}],
        lr=0.01,
        betas=(0.9, 0.95),
        weight_decay=0.1,
    )
    for seed in range(3):
        batch = random_batch(4, 16, seed)
        one_step(model, optimizer, [batch], grad_clip=0.0)
        theirs.zero_grad()
        loss = reference(batch.tokens, batch.targets).loss / batch.target_count
        loss.backward()
        theirs.step()
    for a, b in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("done", [0, 3])
def test_saved_state_goes_on_bit_for_bit(kind: str, done: int) -> None:
    config = tiny_config(optimizer=kind)
    model = tiny_model()
    optimizer = new_optimizer(model, config)
    for seed in range(done):
        one_step(model, optimizer, [random_batch(4, 16, seed)])
    saved = {name: value.clone() for name, value in optimizer.state_tensors().items()}
    other = tiny_model(seed=9)
    other.load_state_dict(model.state_dict())
    other_optimizer = new_optimizer(other, config)
    other_optimizer.load_state_tensors(saved)
    for seed in range(done, done + 3):
        for m, o in ((model, optimizer), (other, other_optimizer)):
            one_step(m, o, [random_batch(4, 16, seed)], lr_scale=0.5)
    assert all(map(torch.equal, model.parameters(), other.parameters()))
    again = other_optimizer.state_tensors()
    assert again.keys() == optimizer.state_tensors().keys()
    assert all(torch.equal(again[name], v) for name, v in optimizer.state_tensors().items())


@pytest.mark.parametrize("fault", ["missing", "added", "misshapen", "another optimizer"])
def test_state_that_does_not_fit_is_refused(fault: str) -> None:
    model = tiny_model()
    optimizer = new_optimizer(model, tiny_config(optimizer="adamw"))
    one_step(model, optimizer, [random_batch(4, 16)])
    state: dict[str, Any] = dict(optimizer.state_tensors())
    if fault == "missing":
        del state["model.norm.weight/exp_avg"]
    if fault == "added":
        state["model.norm.weight/momentum_buffer"] = torch.zeros(32)
    if fault == "misshapen":
        state["model.norm.weight/exp_avg"] = torch.zeros(31)
    kind = "muon" if fault == "another optimizer" else "adamw"
    fresh = new_optimizer(tiny_model(), tiny_config(optimizer=kind))
    with pytest.raises(CheckpointError, match="optimizer state"):
        fresh.load_state_tensors(state)


def test_the_default_rate_falls_with_width() -> None:
    for kind in ("adamw", "muon"):
        narrow, wide = (
            default_learning_rate(tiny_config(optimizer=kind, hidden_size=width))
            for width in (128, 512)
        )
        assert narrow == pytest.approx(2 * wide, rel=0.05)
