"""`jielong tokenizer` and `prepare` take a mixture as `pretrain` does, and give what it makes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

import jielong
from jielong.config.load import load_config
from jielong.errors import ConfigError, DataError
from jielong.tokenization.tokenizer import Tokenizer
from tiny import TEXTS, TINY_RUN, flags, in_this_process


@pytest.fixture
def mixture(tmp_path: Path) -> list[str]:
    """A text of words and a smaller one of digits."""
    words = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS)
    (tmp_path / "words.jsonl").write_text(words)
    (tmp_path / "digits.txt").write_text("\n\n".join("71077345 " * 40 for _ in range(30)))
    return [f"words=0.5:{tmp_path}/words.jsonl", f"digits=0.5:{tmp_path}/digits.txt"]


def mixed(mixture: list[str]) -> list[str]:
    return [word for text in mixture for word in ("--data", text)]


def test_a_run_on_what_was_made_before_is_the_run_that_makes_it_itself(
    mixture: list[str], tmp_path: Path
) -> None:
    status, said = in_this_process(
        ["tokenizer", *mixed(mixture), "--vocab-size", "300", "--out-dir", str(tmp_path / "t")]
    )
    assert status == 0, said
    assert "words: files" in said and "digits: files" in said
    made = ["--tokenizer", str(tmp_path / "t")]
    status, said = in_this_process(
        [
            *("prepare", *mixed(mixture), *made, "--out-dir", str(tmp_path / "d")),
            *("--validation-fraction", str(TINY_RUN["validation_fraction"])),
        ]
    )
    assert status == 0, said
    (line,) = (line for line in said.splitlines() if line.startswith("to train on them: "))
    staged = shlex.split(line.partition("jielong pretrain ")[2])
    assert staged[1] == f"words=0.5:{tmp_path / 'd' / 'words'}"
    short = TINY_RUN | {"steps": 2, "vocab_size": 300}
    for name, given in (("a", [*staged, *made]), ("b", mixed(mixture))):
        settings = flags(short | {"out_dir": str(tmp_path / name)})
        status, said = in_this_process(["pretrain", *given, *settings])
        assert status == 0, said
    weights = "checkpoints/step-00000002/training_weights.safetensors"
    assert (tmp_path / "a" / weights).read_bytes() == (tmp_path / "b" / weights).read_bytes()


def test_from_python_each_text_has_a_report(mixture: list[str], tmp_path: Path) -> None:
    tokenizer = jielong.train_tokenizer(None, tmp_path / "t", mixture=mixture, vocab_size=300)
    assert len(tokenizer.encode("71077345")) < 8  # the digits are half of the sample
    for reused in (False, True):
        reports = jielong.prepare_mixture(mixture, tmp_path / "t", tmp_path / "d")
        assert list(reports) == ["words", "digits"]
        assert reports["words"].documents == len(TEXTS)
        assert [report.reused for report in reports.values()] == [reused, reused]


def test_mistakes_in_any_text_are_said_before_work_is_done(
    mixture: list[str], tmp_path: Path, tokenizer: Tokenizer
) -> None:
    tokenizer.save(tmp_path / "t")
    out = tmp_path / "d"
    wrong = [*mixture, f"more=0.5:{tmp_path}/none.txt"]
    with pytest.raises(DataError, match=r"data\.mixture='more=.*no such file"):
        jielong.prepare_mixture(wrong, tmp_path / "t", out)
    assert not out.exists()
    jielong.prepare_mixture(mixture, tmp_path / "t", out)
    ready = [f"words=0.5:{out}/words", mixture[1]]
    with pytest.raises(ConfigError, match="is a prepared dataset already: name its text"):
        jielong.prepare_mixture(ready, tmp_path / "t", tmp_path / "again")
    with pytest.raises(ConfigError, match=r"data\.mixture and data\.data_path are both given"):
        load_config(mixture=tuple(mixture), data_path=("a.txt",))
