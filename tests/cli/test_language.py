"""`--lang` of the commands that say what they make of a text."""

from __future__ import annotations

from pathlib import Path

import pytest

from jielong.cli.main import main


def test_tokenizer_and_prepare_speak_the_language(
    corpus_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = ["--data-path", str(corpus_file)]
    made = ["tokenizer", *text, "--vocab-size", "300", "--out-dir", str(tmp_path / "tokenizer")]
    assert main([*made, "--lang", "zh"]) == 0
    captured = capsys.readouterr()
    assert "个 token 的分词器" in captured.out
    assert captured.err.startswith("文件")
    dataset = ["prepare", *text, "--tokenizer", str(tmp_path / "tokenizer")]
    assert main([*dataset, "--out-dir", str(tmp_path / "zh"), "--lang", "zh"]) == 0
    chinese = capsys.readouterr().out.splitlines()
    assert main([*dataset, "--out-dir", str(tmp_path / "en"), "--lang", "en"]) == 0
    english = capsys.readouterr().out.splitlines()
    assert len(chinese) == len(english) > 8
    for zh, en in zip(chinese, english, strict=True):
        assert zh != en
        assert zh.startswith("  样本") == en.startswith("  sample")


def test_an_unknown_language_is_told_before_any_work(
    corpus_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--data-path", str(corpus_file), "--out-dir", str(tmp_path / "new"), "--lang", "fr"]
    for command in (["tokenizer"], ["prepare", "--tokenizer", "nowhere"]):
        assert main([*command, *given]) == 2
        assert "lang='fr' is not one of auto, en, zh" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
