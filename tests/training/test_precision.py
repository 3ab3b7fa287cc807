"""Half precision: whole updates beside float32, the gradient scaler, compiled layers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from jielong.cli.main import main
from jielong.model.moe import Router
from tiny import (
    TINY_RUN,
    flags,
    new_optimizer,
    one_step,
    random_batch,
    split_batch,
    tiny_config,
    tiny_model,
)

HALVES = [torch.bfloat16, torch.float16]
KINDS: dict[str, dict[str, Any]] = {
    "dense": {},
    "llama": {"qk_norm": False},
    "mixture": {"use_moe": True, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
}


def scaler_for(dtype: torch.dtype) -> torch.amp.GradScaler:
    return torch.amp.GradScaler("cpu", enabled=dtype == torch.float16)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_an_update_in_half_precision_is_close_to_that_in_float32(
    kind: str, dtype: torch.dtype
) -> None:
    batches = split_batch(random_batch(6, 16, ignored=0.3), 2)
    results, gradients = [], []
    for precision in (torch.float32, dtype):
        model = tiny_model(**KINDS[kind])
        optimizer = new_optimizer(model, tiny_config(optimizer="adamw"))
        scaler = scaler_for(precision)
        results.append(
            one_step(model, optimizer, batches, dtype=precision, scaler=scaler, grad_clip=0.0)
        )
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    exact, rounded = results
    assert rounded.applied and rounded.loss == pytest.approx(exact.loss, rel=0.01)
    assert rounded.grad_norm == pytest.approx(exact.grad_norm, rel=0.05)
    away = (gradients[1] - gradients[0]).norm() / gradients[0].norm()
    assert 0 < away < 0.1


def test_the_routers_gradient_is_that_of_float32_in_a_half_precision_pass() -> None:
    """Its matrix products were once in bfloat16 on the way back, under autocast."""
    seen: list[torch.dtype] = []

    class Watched(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
            seen.append((grads[0] @ grads[0].mT).dtype)  # what a product here is made in
            return grads[0]

    model = tiny_model(**KINDS["mixture"])
    for module in model.modules():
        if isinstance(module, Router):
            module.register_forward_hook(
                lambda m, i, out: setattr(out, "weights", Watched.apply(out.weights))
            )
    optimizer = new_optimizer(model, tiny_config())
    one_step(model, optimizer, [random_batch(2, 8)], dtype=torch.bfloat16)
    assert seen and set(seen) == {torch.float32}


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_the_scaler_changes_no_update_and_backs_off_where_it_was_too_large(kind: str) -> None:
    batch, weights = random_batch(4, 16), []
    for scaler in (
        torch.amp.GradScaler("cpu", enabled=False),
        torch.amp.GradScaler("cpu", init_scale=2.0**10),
    ):
        model = tiny_model()
        optimizer = new_optimizer(model, tiny_config(optimizer=kind))
        for _ in range(3):
            assert one_step(model, optimizer, [batch], scaler=scaler).applied
        weights.append({n: p.detach().clone() for n, p in model.named_parameters()})
    for name, value in weights[0].items():  # a power of two is taken out again exactly
        torch.testing.assert_close(weights[1][name], value, rtol=1e-5, atol=1e-6)

    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    result = one_step(model, optimizer, [batch], scaler=scaler, dtype=torch.float16)
    assert not result.applied and scaler.get_scale() == 2.0**39
    assert all(torch.equal(before[n], p) for n, p in model.named_parameters())


def losses(folder: Path) -> list[float]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [r["loss"] for r in map(json.loads, lines) if r["kind"] in ("train", "validation")]


@pytest.mark.parametrize("use_moe", [False, True], ids=["dense", "mixture"])
def test_compiled_layers_learn_what_plain_ones_do(
    use_moe: bool,
    corpus_file: Path,
    tokenizer_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    settings = TINY_RUN | {"data_path": corpus_file, "tokenizer": tokenizer_dir, "steps": 6}
    settings |= {"num_hidden_layers": 1, "use_moe": use_moe, "learning_rate": 1e-3}
    for name, choice in (("plain", "off"), ("compiled", "on")):
        words = flags(settings | {"out_dir": tmp_path / name, "compile": choice})
        assert main(["pretrain", *words]) == 0
    said = capsys.readouterr().out
    assert "compiling" in said and "does not work here" not in said
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "plain"), abs=1e-4)


def test_where_layers_do_not_compile_the_run_says_so_and_goes_on(
    corpus_file: Path,
    tokenizer_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(self: torch.nn.Module, *rest: Any, **named: Any) -> None:
        def call(*args: Any, **kwargs: Any) -> None:
            raise RuntimeError("no compiler is installed\nin two lines")

        self._compiled_call_impl = call

    monkeypatch.setattr(torch.nn.Module, "compile", fails)
    settings = TINY_RUN | {"data_path": corpus_file, "tokenizer": tokenizer_dir, "steps": 3}
    words = flags(settings | {"out_dir": tmp_path / "run", "compile": "on"})
    assert main(["pretrain", *words]) == 0
    said = capsys.readouterr().out
    assert "torch.compile does not work here, going on without: no compiler is installed" in said
    assert len(losses(tmp_path / "run")) == 4
