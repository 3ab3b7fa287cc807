"""The weights that are measured and kept: an average that leaves training as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from jielong.checkpoint import checkpoint as ckpt
from jielong.checkpoint.weights import load_tensors
from jielong.data.shards import open_dataset
from jielong.evaluation.likelihood import EvaluationWindows, evaluate_stream
from jielong.training.averaging import POWER, WeightAverage
from tiny import TINY_RUN, tiny_model
from training.test_resume import Launch

STEPS = TINY_RUN["steps"]


def test_weights_count_by_a_power_of_their_step() -> None:
    model = torch.nn.Linear(3, 2, bias=False)
    average = WeightAverage(model)
    weights = [torch.randn(2, 3, dtype=torch.float64) for _ in range(40)]
    for step, value in enumerate(weights, start=1):
        model.weight.data = value.float()
        average.update(step, lr_scale=1.0)
    # the definition in closed form: the shares telescope to a falling product
    shares = [1 - (1 - 1 / t) ** (POWER + 1) for t in range(1, 41)]
    expected, left = torch.zeros(2, 3, dtype=torch.float64), 1.0
    for share, value in zip(reversed(shares), reversed(weights), strict=True):
        expected += left * share * value
        left *= 1 - share
    with average.in_place():
        torch.testing.assert_close(model.weight.double(), expected, atol=1e-6, rtol=1e-5)
    # and nearly t^POWER over their sum
    powers = torch.arange(1, 41, dtype=torch.float64) ** POWER
    nearly = sum(p * w for p, w in zip(powers / powers.sum(), weights, strict=True))
    torch.testing.assert_close(expected, nearly, atol=0.25, rtol=0.0)
    assert torch.equal(model.weight, weights[-1].float())  # the latest are back


def test_a_falling_rate_ends_at_the_latest_weights() -> None:
    model = torch.nn.Linear(3, 2, bias=False)
    average = WeightAverage(model)
    for step in range(1, 101):
        model.weight.data = torch.full((2, 3), float(step))
        average.update(step, lr_scale=1.0 if step < 50 else (101 - step) / 51)
    with average.in_place():
        assert torch.equal(model.weight, torch.full((2, 3), 100.0))


def test_the_latest_weights_come_back_whatever_happens_within() -> None:
    model = tiny_model()
    average = WeightAverage(model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.data.mul_(1.5)
    with pytest.raises(KeyboardInterrupt), average.in_place():
        assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
        raise KeyboardInterrupt
    assert all(torch.equal(p, before[name] * 1.5) for name, p in model.named_parameters())


@pytest.fixture(scope="module")
def launch(tmp_path_factory: pytest.TempPathFactory, corpus_file: Path, tokenizer_dir: Path) -> Any:
    made = Launch(tmp_path_factory.mktemp("averaged"), corpus_file, tokenizer_dir)

    def run(name: str, *more: str, **changes: Any) -> Path:
        status, said = made.here(name, *more, **changes)
        assert status == 0, said
        return made.folder / name

    return run


def test_averaging_changes_nothing_of_the_training(launch: Any) -> None:
    last = ckpt.step_name(STEPS)
    averaged = launch("averaged") / "checkpoints" / last
    plain = launch("plain", average_weights="false") / "checkpoints" / last
    assert not (plain / ckpt.TRAINING_WEIGHTS).exists()
    a, b = (averaged / ckpt.TRAINING_WEIGHTS).read_bytes(), plain / "model.safetensors"
    assert a == b.read_bytes()
    name = "optimizer.safetensors"
    assert (averaged / name).read_bytes() == (plain / name).read_bytes()


def test_the_model_that_is_kept_is_the_one_that_was_measured(launch: Any) -> None:
    run = launch("measured", schedule="constant")
    last = run / "checkpoints" / ckpt.step_name(STEPS)
    kept, latest = (load_tensors(last / n) for n in ("model.safetensors", ckpt.TRAINING_WEIGHTS))
    assert kept.keys() == latest.keys()
    assert not torch.equal(kept["model.norm.weight"], latest["model.norm.weight"])
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    measured = [r["loss"] for r in records if r["kind"] == "validation"][-1]
    model, tokenizer = ckpt.load_model(last)
    held_out = open_dataset(run / "data").validation
    assert held_out is not None
    length = TINY_RUN["max_seq_len"]
    again = evaluate_stream(model, held_out, tokenizer.token_bytes(), EvaluationWindows(length, 4))
    assert again.loss == pytest.approx(measured, rel=1e-6)


def test_a_run_may_go_on_without_the_average_and_with_it_again(launch: Any) -> None:
    same = {"schedule": "constant", "warmup_steps": 0}
    same |= {"weight_decay": 0.1, "dropout": 0.0}  # not by the epochs
    same |= {"input_noise": 0.0, "bpe_dropout": 0.0, "bigram_share": 0.0}
    straight = launch("straight", **same)
    launch("turned", steps=STEPS // 2, **same)
    launch("turned", "--override", average_weights="false", steps=STEPS - 2, **same)
    turned = launch("turned", "--override", **same)
    name = Path("checkpoints") / ckpt.step_name(STEPS) / ckpt.TRAINING_WEIGHTS
    assert (turned / name).read_bytes() == (straight / name).read_bytes()
