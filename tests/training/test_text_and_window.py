"""A run whose text has changed, is shorter than its window, or does not fit in memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from jielong.config.load import load_config
from jielong.runtime.device import available_memory
from jielong.training import memory
from tiny import TEXTS, TINY_RUN, flags, in_this_process

ROWS = [json.dumps({"text": text}) + "\n" for text in TEXTS]


def run(corpus: Path, out: Path, *more: str) -> tuple[int, str]:
    words = ["pretrain", "--data-path", str(corpus), "--vocab-size=288", *flags(TINY_RUN)]
    return in_this_process([*words, "--steps=2", "--out-dir", str(out), *more])


@pytest.mark.parametrize("folder", [False, True])
def test_a_resumed_run_says_that_its_text_has_changed_and_what_to_do(
    tmp_path: Path, folder: bool
) -> None:
    corpus = tmp_path / "in" / "corpus.jsonl"
    corpus.parent.mkdir()
    corpus.write_text("".join(ROWS[:50]))
    named = corpus.parent if folder else corpus
    assert run(named, tmp_path / "run")[0] == 0
    assert "has changed since" not in run(named, tmp_path / "run")[1]
    grown = corpus.parent / "more.jsonl" if folder else corpus
    with grown.open("a") as file:
        file.write("".join(ROWS[50:]))
    for more in ((), ("--steps=4", "--override")):
        status, said = run(named, tmp_path / "run", *more)
        assert status == 0
        assert (
            f"the text is not as it was: {'it was made without ' if folder else ''}{grown}" in said
        )
        assert f"--init-from {tmp_path / 'run'} and a new --out-dir" in said
    manifest = json.loads((tmp_path / "run" / "data" / "dataset.json").read_text())
    assert manifest["counts"]["documents"] == 50  # it keeps what it had
    grown.unlink()
    assert run(named, tmp_path / "run", "--steps=4", "--override")[0] == 0


def test_a_window_longer_than_the_text_is_cut_to_it(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(ROWS[:20]))
    for _ in range(2):  # and once more, resumed
        status, said = run(corpus, tmp_path / "run", "--max-seq-len=100000", "--override")
        assert status == 0, said
        manifest = json.loads((tmp_path / "run" / "data" / "dataset.json").read_text())
        tokens = manifest["splits"]["train"]["tokens"]
        assert f"window     {tokens - 1:,} tokens, not 100,000 as data.max_seq_len says" in said
    config = json.loads(
        (tmp_path / "run" / "checkpoints" / "step-00000002" / "config.json").read_text()
    )
    assert config["max_position_embeddings"] == tokens - 1


def test_no_epochs_are_refused(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(ROWS))
    status, said = in_this_process(
        ["pretrain", "--preset=tiny", "--data-path", str(corpus), "--epochs=0"]
    )
    assert status == 2 and "training.epochs=0 trains nothing" in said


def test_a_window_that_cannot_fit_is_refused_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(ROWS))
    monkeypatch.setattr(memory, "available_memory", lambda: 2**16)
    status, said = run(corpus, tmp_path / "run")
    assert status == 2
    assert "a single window of 16 tokens needs 0.0 GiB" in said and "--max-seq-len" in said
    assert "step 1/" not in said


def test_micro_batches_are_halved_until_they_fit_by_the_estimate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = load_config(hidden_size=64, num_hidden_layers=2, vocab_size=288).model
    needs = {rows: memory.least_bytes(model, rows, 512, 512) for rows in (1, 2, 3, 6)}
    for rows in (1, 2, 3, 6):
        monkeypatch.setattr(memory, "available_memory", lambda rows=rows: needs[rows])
        assert memory.rows_that_fit(model, 6, 512, 512) == rows
    # what a layer keeps and its masks grow with the tokens; weights and states do not
    states = 2 * needs[1] - needs[2]
    assert states == 4 * 5 * model.parameter_count
    # a teacher has weights and hidden states, but no gradients, and keeps nothing in its layers
    teacher = load_config(hidden_size=96, num_hidden_layers=4, vocab_size=288).model
    more = memory.least_bytes(model, 3, 512, 512, teacher=teacher) - needs[3]
    assert more == 4 * (teacher.parameter_count + 96 * 3 * 512)
    monkeypatch.setattr(memory, "available_memory", lambda: needs[3])
    assert memory.rows_that_fit(model, 3, 512, 512, teacher=teacher) == 2


def test_the_free_memory_is_some_of_the_machines() -> None:
    available = available_memory()
    assert available is not None and available > torch.zeros(1).nbytes
