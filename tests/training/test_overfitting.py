"""A run that trains too long: it stops, says so, and its model is the best it has measured."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

import jielong
from jielong.checkpoint import checkpoint as ckpt
from jielong.errors import CheckpointError, ConfigError
from tiny import TINY_RUN, flags, in_this_process

STEPS = 240


def random_words(folder: Path) -> list[str]:
    """A text that can only be memorised; settings of a run that does."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefgh", k=4)) for _ in range(40)]
    for name, count in (("train", 12), ("held-out", 12)):
        texts = [" ".join(rng.choices(words, k=30)) for _ in range(count)]
        lines = [json.dumps({"text": text}) for text in texts]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    settings = TINY_RUN | {
        "data_path": folder / "train.jsonl",
        "validation_path": folder / "held-out.jsonl",
        "out_dir": folder / "run",
        "vocab_size": 300,
        "steps": STEPS,
        "hidden_size": 64,
        "eval_interval": 5,
        "weight_decay": 0.0,
        "dropout": 0.0,
        "input_noise": 0.0,
        "bpe_dropout": 0.0,
    }
    return ["pretrain", *flags(settings)]


def validations(run: Path) -> dict[int, float]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return {r["step"]: r["loss"] for r in lines if r["kind"] == "validation"}


@pytest.fixture(scope="module")
def turned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], str]:
    folder = tmp_path_factory.mktemp("turned")
    words = random_words(folder)
    status, said = in_this_process(words)
    assert status == 0, said
    return folder / "run", words, said


def test_it_stops_soon_after_the_turn_and_says_what_happened(
    turned: tuple[Path, list[str], str],
) -> None:
    run, _, said = turned
    losses = validations(run)
    best, last = min(losses, key=losses.__getitem__), max(losses)
    assert last < STEPS and losses[last] > 1.01 * losses[best]
    clearly_worse = [step for step in losses if losses[step] > 1.01 * losses[best] and step > best]
    assert clearly_worse[-3:] == [last - 10, last - 5, last]
    assert "the held-out loss turned" in said and f"at step {best} (epoch " in said
    assert f"not at step {STEPS}" in said and "memorises" in said and "--patience 0" in said
    assert f"step-{best:08d} (the best; the last is of step {last})" in said


def test_the_best_checkpoint_is_what_is_used_and_the_folder_says_which_it_is(
    turned: tuple[Path, list[str], str],
) -> None:
    run, _, _ = turned
    losses = validations(run)
    best, last = min(losses, key=losses.__getitem__), max(losses)
    folder = run / "checkpoints"
    found = json.loads((folder / "best.json").read_text())
    assert found["checkpoint"] == ckpt.step_name(best) and found["loss"] == losses[best]
    assert ckpt.find_model_folder(run) == folder / ckpt.step_name(best)
    assert ckpt.find_model_folder(run, "last") == folder / ckpt.step_name(last)
    assert ckpt.find_model_folder(run, str(last)) == folder / ckpt.step_name(last)
    with pytest.raises(CheckpointError, match=f"no checkpoint of step 1; there are: {best}, "):
        ckpt.find_model_folder(run, "1")
    with pytest.raises(ConfigError, match="use best, last or a step"):
        ckpt.find_model_folder(run, "newest")
    held_out = run.parent / "held-out.jsonl"
    for which, step in (("best", best), ("last", last)):
        words = [
            "evaluate",
            str(run),
            "--data-path",
            str(held_out),
            "--json",
            "--checkpoint",
            which,
        ]
        status, out = in_this_process(words)
        assert status == 0
        loss = json.loads(out.splitlines()[-1])["loss"]
        assert loss == pytest.approx(losses[step], rel=0.2)
    texts = [json.loads(line)["text"] for line in held_out.read_text().splitlines()]
    by_name = [jielong.evaluate(*jielong.load(run, "cpu", w), texts).loss for w in ("best", "last")]
    assert by_name[0] < by_name[1]


def test_the_same_command_says_it_again_and_patience_0_trains_on(
    turned: tuple[Path, list[str], str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(turned[0], run)
    words = [str(run) if word == str(turned[0]) else word for word in turned[1]]
    last = max(validations(run))
    status, said = in_this_process(words)
    assert status == 0 and max(validations(run)) == last
    assert "the held-out loss turned" in said
    status, said = in_this_process([*words, "--patience", "0"])
    assert status == 0, said
    assert max(validations(run)) == STEPS
    assert "the held-out loss turned" in said and "The run ends here" not in said


def test_a_damaged_best_checkpoint_is_not_used(tmp_path: Path) -> None:
    status, said = in_this_process(random_words(tmp_path))
    assert status == 0, said
    run = tmp_path / "run"
    best: Any = ckpt.best_checkpoint(run / "checkpoints")
    assert best is not None
    (best / "config.json").write_text("{}")
    assert ckpt.best_checkpoint(run / "checkpoints") is None
    assert ckpt.find_model_folder(run) == ckpt.find_model_folder(run, "last")
