"""`--init-from` chooses the peak learning rate by a trial that leaves nothing else behind."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jielong.checkpoint import checkpoint as ckpt
from jielong.training import plan, rate_trial
from tiny import TINY_RUN, flags, in_this_process
from training.test_distributed import free_port, python_in_ranks

USUAL = 0.012  # 0.07 / √32
STEPS = 60
SHARE = 0.3  # of the run, for the trial: a twentieth would take longer runs than a test should
# Two runs in ranks, one after the other, since importing torch takes longer than they do.
IN_RANKS = """
import json, os, sys
from jielong.cli.main import main
from jielong.training import rate_trial
rate_trial.SHARE = float(sys.argv[1])
for port, words in json.loads(sys.argv[2]):
    os.environ["MASTER_PORT"] = str(port)
    assert main(words) == 0, words
"""
WEIGHTS = ("model.safetensors", "training_weights.safetensors", "optimizer.safetensors")


class Place:
    """A trained model, and runs that go on from it."""

    def __init__(self, folder: Path, corpus: Path, tokenizer: Path) -> None:
        self.folder = folder
        self.settings = TINY_RUN | {"data_path": corpus, "keep_checkpoints": 9, "bpe_dropout": 0.0}
        self.other = folder / "other.jsonl"
        rows = (json.dumps({"text": f"{i * i} times {i} makes {i**3}"}) for i in range(80))
        self.other.write_text("\n".join(rows))
        first = self.settings | {"tokenizer": tokenizer, "out_dir": folder / "base", "steps": 150}
        # as well trained as it can be: the same text then has little more to teach
        first |= {"eval_interval": 50, "input_noise": 0.0, "bpe_dropout": 0.0}
        status, said = in_this_process(["pretrain", *flags(first)])
        assert status == 0, said
        self.settings |= {"init_from": folder / "base", "steps": STEPS, "eval_interval": 20}

    def run(self, name: str, *more: str, **changes: Any) -> tuple[int, str]:
        settings = self.settings | {"out_dir": self.folder / name} | changes
        settings = {k: v for k, v in settings.items() if v is not None}
        return in_this_process(["pretrain", *flags(settings), *more])

    def files(self, name: str) -> list[bytes]:
        last = ckpt.find_model_folder(self.folder / name, "last")
        return [(last / file).read_bytes() for file in WEIGHTS]

    def plan(self, name: str) -> dict[str, Any]:
        last = ckpt.find_model_folder(self.folder / name, "last")
        plan: dict[str, Any] = ckpt.load_training_state(last).values["plan"]
        return plan


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, corpus_file: Path, tokenizer_dir: Path
) -> Iterator[Place]:
    with pytest.MonkeyPatch.context() as m:
        m.setattr(rate_trial, "SHARE", SHARE)
        made = Place(tmp_path_factory.mktemp("rates"), corpus_file, tokenizer_dir)
        for name, changes in (("same", {}), ("new", {"data_path": made.other})):
            status, said = made.run(name, **changes)
            assert status == 0, said
            (made.folder / f"{name}.said").write_text(said)
        yield made


def tried(said: str) -> tuple[float, int, dict[float, float]]:
    """The rate chosen, the steps of each trial and the losses by rate, of the line on them."""
    (line,) = (line for line in said.splitlines() if line.startswith("rate "))
    found = re.match(r"rate +(\S+), by a trial of (\d+) steps", line)
    assert found, line
    chosen, steps = found.groups()
    losses = re.findall(r"([\d.]+) at ([\d.e-]+)", line.split("then")[1])
    return float(chosen), int(steps), {float(rate): float(loss) for loss, rate in losses}


def test_a_new_kind_of_text_gets_a_higher_rate_than_more_of_the_same(place: Place) -> None:
    same, new = (tried((place.folder / f"{name}.said").read_text()) for name in ("same", "new"))
    assert new[0] == USUAL and same[0] < USUAL
    for name, (chosen, _, losses) in (("same", same), ("new", new)):
        assert list(losses) == [float(f"{f * USUAL:.2g}") for f in rate_trial.FACTORS]
        good = [r for r, x in losses.items() if x <= min(losses.values()) * 1.03]
        assert chosen == max(good) == place.plan(name)["learning_rate"]


@pytest.mark.parametrize("name", ["same", "new"])
def test_the_trial_leaves_nothing_behind_but_the_rate(place: Place, name: str) -> None:
    rate = place.plan(name)["learning_rate"]
    data = {"data_path": place.other} if name == "new" else {}
    status, said = place.run(f"{name}-given", learning_rate=rate, **data)
    assert status == 0 and "rate  " not in said, said
    assert place.files(f"{name}-given") == place.files(name)
    states = [
        ckpt.load_training_state(ckpt.find_model_folder(place.folder / run, "last")).values
        for run in (name, f"{name}-given")
    ]
    for values in states:
        for found in ("validation", "best_validation"):
            values["progress"][found].pop("seconds")
    assert states[0]["progress"] == states[1]["progress"] and states[0]["rng"] == states[1]["rng"]


def test_each_loss_is_that_of_a_run_as_short_as_the_trial(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "PLAIN_SHARE", 0.0)  # the trial has the noise of the run's beginning
    _, steps, losses = tried((place.folder / "new.said").read_text())
    schedule = {"schedule": "wsd", "warmup_ratio": 0.1, "decay_ratio": 0.5, "min_lr_ratio": 0}
    short = schedule | {"steps": steps, "average_weights": False, "data_path": place.other}
    # regularisation follows from the epochs of the whole run
    kept = ("weight_decay", "dropout", "input_noise")
    short |= {name: place.plan("new")[name] for name in kept} | {"eval_interval": steps}
    tokens = steps * 8 * 16
    for rate, loss in losses.items():
        name = f"short-{rate}"
        status, said = place.run(name, learning_rate=rate, eval_tokens=tokens, **short)
        assert status == 0, said
        lines = (place.folder / name / "metrics.jsonl").read_text().splitlines()
        (found,) = (r["loss"] for r in map(json.loads, lines) if r["kind"] == "validation")
        assert found == pytest.approx(loss, abs=6e-5)


def test_a_resumed_run_keeps_the_rate_and_tries_nothing(place: Place) -> None:
    shutil.copytree(place.folder / "same", place.folder / "resumed")
    for step in (40, 60):
        shutil.rmtree(place.folder / "resumed" / "checkpoints" / ckpt.step_name(step))
    status, said = place.run("resumed")
    assert status == 0 and "trying" not in said and "resuming from" in said
    assert place.files("resumed") == place.files("same")
    assert place.plan("resumed") == place.plan("same")


def test_a_run_killed_in_its_trial_tries_again_and_chooses_the_same(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = rate_trial._loss_after, []

    def killed(*arguments: Any) -> float:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as m:
        m.setattr(rate_trial, "_loss_after", killed)
        assert place.run("killed")[0] == 130
    assert not ckpt.checkpoints(place.folder / "killed" / "checkpoints")
    status, said = place.run("killed")
    assert status == 0 and tried(said) == tried((place.folder / "same.said").read_text())
    assert place.files("killed") == place.files("same")


def test_where_nothing_can_be_tried_the_usual_rate_is_taken_and_the_run_says_why(
    place: Place,
) -> None:
    for name, changes, why in (
        ("short", {"steps": 10}, "the run is too short"),
        ("blind", {"validation_fraction": 0, "steps": 50}, "no text is held out"),
    ):
        status, said = place.run(name, **changes)
        assert status == 0, said
        assert f"rate       {USUAL:.2g}, that of a new run, since {why}" in said
        assert "--learning-rate 0.0012" in said
        assert place.plan(name)["learning_rate"] == USUAL


def test_the_trial_is_a_small_part_of_the_run(place: Place) -> None:
    _, steps, losses = tried((place.folder / "same.said").read_text())
    windows = 8 * steps  # trained on at each rate, and as many measured
    work = len(losses) * windows * (1 + 1 / 3) + windows / 3
    assert 0.5 * SHARE * STEPS * 8 < work < SHARE * STEPS * 8
    assert steps >= rate_trial.LEAST_STEPS


def test_a_run_by_time_chooses_its_rate_too(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from jielong.training import minutes

    fast = minutes.Speed(token=2e-3, update=1e-4)
    monkeypatch.setattr(minutes, "measure_speed", lambda *_: fast)
    status, said = place.run("timed", steps=None, minutes=0.6)
    assert status == 0 and "by a trial of" in said, said
    kept = (place.folder / "timed" / "chosen.toml").read_text()
    assert "tokens" in kept and "learning_rate" not in kept
    assert tried(said)[0] == place.plan("timed")["learning_rate"]


def test_ranks_with_a_part_of_the_model_each_choose_as_one_process_and_leave_nothing_behind(
    place: Place,
) -> None:
    expected = tried((place.folder / "same.said").read_text())
    shared, jobs = place.settings | {"parallel": "fsdp"}, []
    for name, changes in (("parts", {}), ("parts-given", {"learning_rate": expected[0]})):
        settings = shared | {"out_dir": place.folder / name} | changes
        jobs.append((free_port(), ["pretrain", *flags(settings)]))
    results = python_in_ranks(2, ["-c", IN_RANKS, str(SHARE), json.dumps(jobs)])
    assert [status for status, _ in results] == [0, 0], results
    said = results[0][1]
    assert said.count("FSDP2: 2 processes share one copy") == 2
    chosen, steps, losses = tried(said)
    assert (chosen, steps) == expected[:2]
    assert losses == pytest.approx(expected[2], abs=2e-4)
    assert place.files("parts") == place.files("parts-given")
