"""jielong from Python."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import jielong
import jielong.api
from jielong.errors import CheckpointError, ConfigError
from tiny import TEXTS, TINY_RUN


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, corpus_file: Path, tokenizer_dir: Path) -> Path:
    folder = tmp_path_factory.mktemp("api") / "run"
    settings = {"data_path": str(corpus_file), "tokenizer": str(tokenizer_dir), "steps": 8}
    result = jielong.pretrain(TINY_RUN | settings | {"out_dir": str(folder)}, quiet=True)
    assert result.step == result.total_steps == 8 and result.signal is None
    assert result.folder == folder and result.checkpoint.is_dir()
    assert result.validation is not None and result.validation["step"] == 8
    return folder


def test_these_names_and_no_others_are_public() -> None:
    assert jielong.__all__ == jielong.api.__all__ == sorted(jielong.api.__all__)
    for name in jielong.__all__:
        function = getattr(jielong, name)
        assert callable(function) and function.__doc__
    with pytest.raises(AttributeError):
        jielong.nothing_of_this_name  # noqa: B018


def test_the_functions_stay_functions_after_the_modules_of_their_names_are_imported() -> None:
    import jielong.cli.main
    import jielong.evaluation.likelihood
    import jielong.generation.generate
    import jielong.training.pretrain

    assert all(callable(getattr(jielong, name)) for name in jielong.__all__)


def test_quiet_prints_nothing(
    run: Path, corpus_file: Path, tokenizer_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = {"data_path": str(corpus_file), "tokenizer": str(tokenizer_dir), "steps": 8}
    jielong.pretrain(TINY_RUN | settings | {"out_dir": str(run)}, quiet=True)
    assert capfd.readouterr().out == ""


def test_a_run_is_loaded_generates_and_is_evaluated(run: Path) -> None:
    model, tokenizer = jielong.load(run, "cpu")
    logits = model(torch.tensor([tokenizer.encode("Tale 3.")])).logits
    assert logits.shape[-1] == tokenizer.vocab_size and torch.isfinite(logits).all()
    pieces = list(jielong.generate(model, tokenizer, "Tale", 12, seed=1))
    assert "".join(pieces) == "".join(jielong.generate(model, tokenizer, "Tale", 12, seed=1))
    likelihood = jielong.evaluate(model, tokenizer, TEXTS[:5])
    assert likelihood.bytes == sum(len(text.encode()) for text in TEXTS[:5])
    assert 0 < likelihood.bits_per_byte < 8


def test_mistakes_are_errors_of_ours(run: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        jielong.load(tmp_path)
    model, tokenizer = jielong.load(run, "cpu")
    with pytest.raises(ConfigError, match="temprature"):
        jielong.generate(model, tokenizer, "x", temprature=1.0)
    with pytest.raises(ConfigError, match="hiden_size"):
        jielong.pretrain({"hiden_size": 3})
    with pytest.raises(ConfigError, match=r"nowhere\.toml"):
        jielong.pretrain(tmp_path / "nowhere.toml")


def test_every_verb_of_the_command_line_is_a_function(
    run: Path, corpus_file: Path, tmp_path: Path
) -> None:
    tokenizer = jielong.train_tokenizer(corpus_file, tmp_path / "tokenizer", vocab_size=300)
    assert 256 < tokenizer.vocab_size <= 300
    with pytest.raises(ConfigError, match="already holds a tokenizer"):
        jielong.train_tokenizer(corpus_file, tmp_path / "tokenizer")
    report = jielong.prepare(corpus_file, tmp_path / "tokenizer", tmp_path / "data", strict=True)
    assert not report.reused and report.lines()
    assert jielong.prepare(corpus_file, tmp_path / "tokenizer", tmp_path / "data").reused
    exported = jielong.export(run, tmp_path / "hf", dtype="float32")
    ours, theirs = jielong.load(run, "cpu")[0], jielong.load(exported, "cpu")[0]
    weights = theirs.state_dict()
    assert all((weights[name] == value).all() for name, value in ours.state_dict().items())
    pth = jielong.export(exported, tmp_path / "minimind", format="minimind")
    again = jielong.import_minimind(pth, exported, tmp_path / "again", pth.with_suffix(".json"))
    assert again.family and jielong.load(tmp_path / "again", "cpu")
    with pytest.raises(ConfigError, match="format 'onnx' is not one of hf, gguf, minimind"):
        jielong.export(run, tmp_path / "onnx", format="onnx")
