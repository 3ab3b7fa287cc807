"""A plan against the run that it is for, and what it says in words."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

import jielong
from jielong.cli.main import main
from jielong.data.shards import open_dataset
from jielong.errors import ConfigError
from jielong.insight import planning
from jielong.insight.arithmetic import parts_of
from jielong.insight.plan import PlanView, lasting
from jielong.insight.plan_memory import Training, largest_micro_batch, memory_of
from jielong.insight.plan_text import warnings_of
from jielong.present.words import sayer
from jielong.runtime.cards import card_named
from jielong.runtime.run_folder import RunFolder
from jielong.training.optimizer import Optimizer
from jielong.training.speed import Speed
from tiny import TINY, TINY_RUN, flags, random_batch, split_batch, tiny_config, tiny_model

SPEED = Speed(token=0.001, update=0.5)  # seconds


@pytest.fixture(scope="module")
def settings(corpus_file: Path, tokenizer_dir: Path) -> dict[str, Any]:
    return TINY_RUN | {"data_path": str(corpus_file), "tokenizer": str(tokenizer_dir)}


@pytest.fixture(scope="module")
def planned(settings: dict[str, Any]) -> PlanView:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "measure_speed", lambda *_: SPEED)
        return jielong.plan(settings)


def test_a_plan_has_the_sizes_of_the_run(planned: PlanView, trained_run: Path) -> None:
    lines = map(json.loads, RunFolder(trained_run).metrics_file.read_text().splitlines())
    tokens = max(record.get("tokens", 0) for record in lines)  # targets that counted
    model, _ = jielong.load(trained_run, "cpu")
    assert planned.parameters == planned.active_parameters == model.num_parameters()
    assert sum(planned.parameters_by_part.values()) == planned.parameters
    assert planned.steps == TINY_RUN["steps"]
    assert 0.8 * planned.tokens < tokens <= planned.tokens
    train = open_dataset(trained_run / "data").train
    assert (planned.documents, planned.text_tokens) == (len(train.documents), len(train))
    assert planned.held_out_tokens > 0


def test_the_time_is_that_of_its_parts(planned: PlanView) -> None:
    assert planned.time.training == pytest.approx(planned.tokens * 0.001 + 24 * 0.5)
    validations = 3  # one every 8 of 24 steps
    measured = validations * planned.held_out_tokens * 0.001 / 3
    assert planned.time.validating == pytest.approx(measured + validations * planning.PAUSE_S)
    assert planned.time.total > planned.time.training + planned.time.validating
    assert planned.measured and planned.mfu is None and planned.cost is None


def test_a_named_gpu_takes_the_time_of_its_arithmetic(settings: dict[str, Any]) -> None:
    lines: list[str] = []
    plan = jielong.plan(settings, gpu="RTX 4090", mfu=0.25, price_per_hour=2.0, log=lines.append)
    assert not [line for line in lines if "CPU" in line]  # of this machine, which trains nothing
    seconds = plan.flops * plan.tokens / (165.2e12 * 0.25)
    assert plan.time.training == pytest.approx(seconds)
    assert plan.gpu == "RTX 4090" and plan.available == 24 * 2**30
    assert plan.cost == pytest.approx(2.0 * plan.time.total / 3600)
    said = repr(plan.page(sayer("en")))
    assert "assumed 25% of its peak" in said and "too narrow to keep this GPU busy" in said


def test_states_take_what_the_optimizer_allocates() -> None:
    model = tiny_model()
    config = tiny_config(weight_decay=0.1)
    optimizer = Optimizer(model, config.training, 0.01)
    (batch,) = split_batch(random_batch(2, 16), 1)
    loss = model(batch.tokens, batch.targets).loss
    assert loss is not None
    loss.backward()
    optimizer.step(1.0)
    kept = sum(t.numel() * t.element_size() for t in optimizer.state_tensors().values())
    parts = parts_of(TINY, 16)
    muon = Training(2, 16, 0, muon=True, average=False, on_gpu=False)
    memory = memory_of(TINY, parts, muon)
    largest = 3 * 4 * TINY.num_hidden_layers * TINY.hidden_size * TINY.mlp_size
    assert memory.optimizer - largest == pytest.approx(kept, rel=0.01)  # but for step counts
    assert memory.weights == memory.gradients == 4 * model.num_parameters()
    assert memory.average == 0
    assert memory_of(TINY, parts, dataclasses.replace(muon, average=True)).average == memory.weights
    assert memory.total == sum(dataclasses.asdict(memory).values())


def test_the_micro_batch_is_halved_until_it_fits() -> None:
    parts = parts_of(TINY, 512)
    t = Training(32, 512, 0, muon=True, average=True, on_gpu=True)
    whole = memory_of(TINY, parts, t)
    assert largest_micro_batch(TINY, parts, t, whole.total) == (32, whole)
    size, memory = largest_micro_batch(TINY, parts, t, whole.total - 1)
    assert size == 16 and memory.total < whole.total
    assert largest_micro_batch(TINY, parts, t, 1)[0] == 0
    recomputed = memory_of(TINY, parts, dataclasses.replace(t, recompute_every=1))
    assert recomputed.activations < whole.activations


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"held_out_tokens": 0}, "No text is held out"),
        ({"epochs": 31.0}, "The text is read 31 times"),
        ({"epochs": 5.0}, "The text is read 5.0 times: from about 4 on"),
        ({"tokens": 10}, "Too little for this model"),
        ({"vocabulary": 100_000}, "The vocabulary is large for this text"),
        ({"document_tokens_95": 5}, "A window of 16 tokens is longer than most documents"),
        ({"micro_batch_that_fits": 1}, "Micro-batches of"),
        ({"micro_batch_that_fits": 0}, "Not even one window of 16 tokens fits"),
    ],
)
def test_what_does_not_fit_together_is_said_in_words(
    planned: PlanView, changes: dict[str, Any], said: str
) -> None:
    sound = dataclasses.replace(
        planned, epochs=1.0, tokens=10**7, vocabulary=300, text_bytes=10**6, document_tokens_95=99
    )
    assert warnings_of(sound, sayer("en")) == []
    (warning,) = warnings_of(dataclasses.replace(sound, **changes), sayer("en"))
    assert warning.startswith(said)


def test_mistakes_are_one_line(
    settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    for words, told in (
        (["--gpu", "b100"], "gpu='b100' is not one of rtx3090, rtx4090, a100, h100, h200"),
        (["--gpu", "h100", "--mfu", "2"], "mfu=2: give a share of the peak"),
        (["--price-per-hour", "-1"], "price_per_hour=-1 is below 0"),
        (["--data-path", "nowhere.txt"], "nowhere.txt"),
    ):
        assert main(["plan", *flags(settings), *words]) == 2
        said = capsys.readouterr()
        assert said.out == "" and told in said.err.splitlines()[-1]
    with pytest.raises(ConfigError, match="--minutes measures this machine"):
        jielong.plan({"data_path": settings["data_path"], "minutes": 3}, gpu="a100")
    assert card_named("4090") == card_named("rtx-4090")


def test_a_plan_is_json_and_leaves_nothing_behind(
    settings: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["plan", *flags(settings), "--gpu", "h100", "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["gpu"] == "H100"
    assert "/jielong-" not in said.err and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(9.4, "9s"), (61, "1m 01s"), (3700, "1h 02m"), (7199, "2h 00m"), (86400 * 3, "3d 0h")],
)
def test_a_time_is_told_in_two_units(seconds: float, said: str) -> None:
    assert lasting(seconds) == said
