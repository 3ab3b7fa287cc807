"""`--lang` of the commands that say what they make of a text."""

from __future__ import annotations

from pathlib import Path

import pytest

from jielong import export
from jielong.checkpoint.checkpoint import write_model_folder
from jielong.cli.main import main
from jielong.tokenization.tokenizer import Tokenizer
from tiny import tiny_model


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


def test_generate_and_import_speak_the_language(
    tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    write_model_folder(model, tiny_model(vocab_size=tokenizer.vocab_size), tokenizer)
    (model / "generation_config.json").write_text('{"do_sample": true, "temperature": 0.3}')
    words = ["generate", str(model), "--prompt", "Tale", "--max-new-tokens", "1"]
    assert main([*words, "--lang", "zh"]) == 0
    assert "transformers 按它采样，相当于 --temperature 0.3" in capsys.readouterr().err
    pth = str(export(model, tmp_path / "exported", "minimind"))
    words = ["import", pth, "--tokenizer", str(model), "--out-dir", str(tmp_path / "imported")]
    assert main([*words, "--lang", "zh"]) == 0
    first, *assumed = capsys.readouterr().out.splitlines()
    assert " 模型：" in first and all(line.startswith("  假定 ") for line in assumed)


def test_why_a_file_is_not_read_is_told_in_chinese(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train.txt").write_text("a text of some words\n" * 9)
    for name in ("b.xyz", ".hidden.txt", "test.txt"):
        (tmp_path / name).write_text("a text of other words\n")
    words = ["tokenizer", "--data-path", str(tmp_path), "--vocab-size", "300"]
    assert main([*words, "--out-dir", str(tmp_path / "out"), "--lang", "zh"]) == 0
    said = capsys.readouterr().err
    for why in ("：测试集；要用来测量", "：不是文本格式", "：隐藏文件"):
        assert why in said, said


def test_an_unknown_language_is_told_before_any_work(
    corpus_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--data-path", str(corpus_file), "--out-dir", str(tmp_path / "new"), "--lang", "fr"]
    for command in (["tokenizer"], ["prepare", "--tokenizer", "nowhere"]):
        assert main([*command, *given]) == 2
        assert "lang='fr' is not one of auto, en, zh" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
