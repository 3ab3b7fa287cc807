"""`--eval-suite`: measured at each validation, recorded once, and of no effect on training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from jielong.checkpoint.checkpoint import load_model
from jielong.training.validation_suites import WORD
from tiny import TINY_RUN, flags, in_this_process

BLIMP = Path(__file__).parents[1] / "fixtures" / "blimp"
SUITES = ["--eval-suite", "cloze", f"grammar={BLIMP}"]


@pytest.fixture
def words(corpus_file: Path, tokenizer_dir: Path) -> list[str]:
    settings = {"steps": 6, "eval_interval": 3, "max_seq_len": 32, "validation_fraction": 0.3}
    settings |= {"data_path": corpus_file, "tokenizer": tokenizer_dir, "save_interval": 3}
    return ["pretrain", *flags(TINY_RUN | settings)]


def records(folder: Path, kind: str) -> list[dict[str, Any]]:
    every = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [record for record in every if record["kind"] == kind]


def test_suites_are_recorded_with_what_was_seen_and_change_nothing(
    words: list[str], tmp_path: Path
) -> None:
    status, said = in_this_process([*words, *SUITES, "--out-dir", str(tmp_path / "with")])
    assert status == 0 and "cloze · continuation" in said and "grammar · all sets" in said
    assert in_this_process([*words, "--out-dir", str(tmp_path / "without")])[0] == 0
    a, b = (load_model(tmp_path / n / "checkpoints/step-00000006")[0] for n in ("with", "without"))
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        assert torch.equal(p, q)
    cloze, grammar = (records(tmp_path / "with", f"suite_{n}") for n in ("cloze", "grammar"))
    assert [r["step"] for r in cloze] == [r["step"] for r in grammar] == [3, 6]
    tokens = {r["step"]: r["tokens"] for r in records(tmp_path / "with", "train")}
    for record in cloze:
        assert record["tokens"] == tokens[record["step"]]
        assert 0 < record["words"] < record["tokens"]
        assert 0 <= record["next token"] <= 1 and record["next token ±"] >= 0
    assert "npi_present_2" in grammar[0] and "all sets ±" in grammar[0]
    # going on adds nothing that is there already
    assert in_this_process([*words, *SUITES, "--out-dir", str(tmp_path / "with")])[0] == 0
    assert len(records(tmp_path / "with", "suite_cloze")) == 2


def test_a_bad_file_is_told_before_training(words: list[str], tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text("{}\n")
    folder = tmp_path / "run"
    for given, said in (
        (f"grammar={file}", "pairs.jsonl:1: sentence_good is missing"),
        ("grammar", "grammar needs minimal pairs"),
        (f"text={tmp_path / 'no'}", "no such file or folder"),
        ("clozes", "did you mean cloze?"),
    ):
        status, output = in_this_process([*words, "--eval-suite", given, "--out-dir", str(folder)])
        assert status == 2 and said in output
        assert not (folder / "data").exists()


def test_a_suite_without_its_text_does_not_stop_the_run(words: list[str], tmp_path: Path) -> None:
    words = [*words, "--validation-fraction", "0", "--eval-suite", "cloze", "copying"]
    status, said = in_this_process([*words, "--out-dir", str(tmp_path / "run")])
    assert status == 0 and "suite cloze is left out: cloze needs held-out text" in said
    assert len(records(tmp_path / "run", "suite_copying")) == 2


def test_words_are_what_stands_between_spaces_or_a_chinese_character() -> None:
    assert WORD.findall("Don't go, 春眠 不觉 x") == ["Don't", "go,", *"春眠不觉", "x"]
