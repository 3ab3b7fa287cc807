"""Runs that diverge: said as such, with the last checkpoint of use, and numbers one can read."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jielong.observe.console import perplexity
from jielong.training.divergence import unigram_loss
from tiny import TINY_RUN, ListStream, flags, in_this_process


def test_the_loss_of_a_unigram_is_that_of_its_definition() -> None:
    train, held_out = ListStream([[0, 1, 1, 2, 1], [1, 2]]), ListStream([[1, 2], [3]])
    counts = [1 + 1, 4 + 1, 2 + 1, 0 + 1]  # plus one each
    expected = -np.mean([math.log(counts[t] / sum(counts)) for t in (1, 2, 3)])
    assert unigram_loss(train, held_out, 4) == pytest.approx(expected, rel=1e-12)


def run(out_dir: Path, corpus: Path, tokenizer: Path, *words: str, **changes: Any) -> str:
    values = TINY_RUN | {"steps": 40, "data_path": corpus, "tokenizer": tokenizer}
    values |= {"out_dir": out_dir, "patience": 0} | changes
    status, said = in_this_process(["pretrain", *flags(values), *words])
    return f"{said}\nstatus {status}"


def test_a_rate_that_is_far_too_high_is_said_to_have_diverged(
    tmp_path: Path, corpus_file: Path, tokenizer_dir: Path
) -> None:
    said = run(tmp_path / "r", corpus_file, tokenizer_dir, learning_rate=3, schedule="constant")
    loss = re.search(r"held-out {4}loss ([0-9.]+)", said)
    assert loss is not None and float(loss[1]) > math.log(270), said
    assert f"the run has diverged: held-out loss {loss[1]}" in said
    assert "no checkpoint is better" in said and "--learning-rate" in said
    assert "diverged" not in run(tmp_path / "fine", corpus_file, tokenizer_dir)


def test_a_rate_of_almost_nothing_is_said_to_have_learnt_nothing(
    tmp_path: Path, corpus_file: Path, tokenizer_dir: Path
) -> None:
    said = run(tmp_path / "r", corpus_file, tokenizer_dir, learning_rate=1e-9, steps=12)
    assert "the run has learnt nothing: held-out loss" in said and "diverged" not in said
    assert "another --learning-rate" in said and "a lower" not in said


def test_a_text_learnt_by_heart_is_not_said_to_have_diverged(tmp_path: Path) -> None:
    lines = [f"{''.join(chr(97 + (i * j) % 26) for j in range(40))}\n\n" for i in range(8)]
    (tmp_path / "mine.txt").write_text("".join(lines))
    (tmp_path / "other.txt").write_text("".join(line[::-1] for line in lines).upper() * 8)
    words = {"validation_path": tmp_path / "other.txt", "weight_decay": 0.0, "dropout": 0.0}
    words |= {"input_noise": 0.0, "bpe_dropout": 0.0, "patience": 0, "steps": 150}
    settings = TINY_RUN | {"data_path": tmp_path / "mine.txt", "out_dir": tmp_path / "r"} | words
    status, said = in_this_process(["pretrain", *flags(settings)])
    assert status == 0 and "diverged" not in said, said


def test_gradients_that_are_not_finite_name_no_checkpoint_as_sound(
    tmp_path: Path, corpus_file: Path, tokenizer_dir: Path
) -> None:
    for rate in (50.0, 1e30):
        out = tmp_path / f"{rate}"
        said = run(out, corpus_file, tokenizer_dir, learning_rate=rate, optimizer="adamw")
        assert "the run has diverged" in said or "the run has learnt nothing" in said, said
        assert "sound" not in said


def test_the_last_checkpoint_that_is_of_use_is_named(
    tmp_path: Path, corpus_file: Path, tokenizer_dir: Path
) -> None:
    out, settings = tmp_path / "r", {"eval_interval": 10, "schedule": "constant"}
    first = run(out, corpus_file, tokenizer_dir, steps=100, **settings)
    assert "diverged" not in first and first.endswith("status 0")
    said = run(
        out, corpus_file, tokenizer_dir, "--override", steps=130, learning_rate=30, **settings
    )
    assert "diverged" in said, said
    assert "the last checkpoint of use is " in said
    named = said.split("the last checkpoint of use is ")[1].split(" ")[0]
    assert Path(named).is_dir() and Path(named).name <= "step-00000100"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(7.125, "7.12"), (999999.0, "999999.00"), (1.5e13, "1.5e+13"), (math.inf, "inf")],
)
def test_large_perplexities_are_powers_of_ten(value: float, shown: str) -> None:
    assert perplexity({"perplexity": value}) == shown
    assert perplexity({"perplexity": None}) == "inf"
