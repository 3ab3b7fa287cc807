"""Mistakes that are made often are told in Chinese with `--lang zh`, others in English."""

from __future__ import annotations

from pathlib import Path

import pytest

from jielong.cli.main import main
from jielong.errors import ConfigError

RUN = ["pretrain", "--data-path", "{good}", "--out-dir", "{new}"]
# the words of a command, and what must stand in what is told
MISTAKES = {
    "a flag that is not there": ([*RUN, "--no-such-thing", "1"], "--no-such-thing"),
    "a flag mistyped": ([*RUN, "--learning-rat", "1"], "是不是 --learning-rate？"),
    "a flag of others": ([*RUN, "--lr", "1"], "--learning-rate"),
    "a command mistyped": (["pretrian"], "是不是 pretrain？"),
    "a command that is not there": (["frobnicate"], "没有 'frobnicate' 这个命令；有：pretrain"),
    "a text without its flag": (["pretrain", "{good}"], "文本用 --data-path"),
    "words too many": ([*RUN, "--minutes", "1", "2"], "加引号"),
    "an argument too few": (["tokenizer", "--data-path", "{good}"], "缺少必需的参数"),
    "a format that is not there": (["export", "{new}", "--format", "x", "--out", "y"], "'x'"),
    "a flag without its value": (["evaluate", "{new}", "--device"], "--device"),
    "no text": (["pretrain", "--out-dir", "{new}"], "--data-path"),
    "no text to measure": (["evaluate", "{model}"], "--suite NAME"),
    "neither a model nor a text to measure": (["evaluate", "{bare}"], "没有模型"),
    "a path that is not there": (
        ["pretrain", "--data-path", "{new}", "--out-dir", "y"],
        "没有这个",
    ),
    "a path mistyped": (
        ["pretrain", "--data-path", "{good}l", "--out-dir", "{new}", "--steps", "1"],
        "是不是",
    ),
    "a kind of file": (["pretrain", "--data-path", "{odd}", "--out-dir", "{new}"], "不认识"),
    "a folder without text": (
        ["pretrain", "--data-path", "{bare}", "--out-dir", "{new}"],
        "没有文本",
    ),
    "an empty file": (["pretrain", "--data-path", "{empty}", "--out-dir", "{new}"], "没有文本"),
    "another field": ([*RUN, "--text-field", "body"], "有字段：text；用 --text-field text"),
    "another encoding": (["pretrain", "--data-path", "{gb}", "--out-dir", "{new}"], "--encoding"),
    "a value of another type": ([*RUN, "--steps", "many"], "不是有效的"),
    "a choice that is not there": ([*RUN, "--optimizer", "sgd"], "不在可选值之中"),
    "a choice mistyped": ([*RUN, "--optimizer", "moun"], "是不是 muon？"),
    "a value too small": ([*RUN, "--steps", "0"], "小于最小值"),
    "two budgets": ([*RUN, "--steps", "9", "--minutes", "1"], "只给一个"),
    "a preset that is not there": ([*RUN, "--preset", "smal"], "是不是 small？"),
    "a width for no heads": (
        [*RUN, "--hidden-size", "30", "--num-attention-heads", "4"],
        "head_dim",
    ),
    "a window too long": (
        [*RUN, "--max-seq-len", "999", "--max-position-embeddings", "64"],
        "超过",
    ),
    "a model that is not there": (["generate", "{bare}", "--prompt", "a"], "没有模型"),
    "a folder that is not there": (["generate", "{new}"], "没有这个文件夹"),
    "a checkpoint that is not there": (
        ["generate", "{bare}", "--prompt", "a", "--checkpoint", "7"],
        "第 7 步",
    ),
    "a checkpoint of no name": (["generate", "{bare}", "--checkpoint", "x"], "best、last"),
    "a file in a folder's place": ([*RUN[:-1], "{good}/run", "--steps", "1"], "不能写入"),
    "a tokenizer that is not there": (
        ["prepare", "--data-path", "{good}", "--tokenizer", "{bare}/t", "--out-dir", "{new}"],
        "jielong tokenizer",
    ),
    "settings that cannot be read": ([*RUN, "--config", "{new}"], "没有这个文件"),
    "settings that are no TOML": ([*RUN, "--config", "{good}"], "TOML"),
    "a picture in no folder": (
        ["evaluate", "{bare}", "--suite", "text", "--png", "{new}/a.png"],
        "没有文件夹",
    ),
}


@pytest.fixture
def places(trained_run: Path, tmp_path: Path) -> dict[str, str]:
    places = {
        "model": trained_run,
        "new": tmp_path / "new",
        "good": tmp_path / "good.jsonl",
        "odd": tmp_path / "a.xyz",
    }
    places |= {
        "bare": tmp_path / "bare",
        "empty": tmp_path / "empty.txt",
        "gb": tmp_path / "gb.txt",
    }
    places["good"].write_text('{"text": "some text of a few words"}\n' * 9)
    places["odd"].write_text("text")
    places["empty"].write_text("")
    places["gb"].write_bytes("文本里的一些字句，写得稍微长一点。\n".encode("gb18030") * 40)
    places["bare"].mkdir()
    return {name: str(path) for name, path in places.items()}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_frequent_mistake_is_told_in_chinese(
    mistake: str,
    places: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    words, told = MISTAKES[mistake]
    words = [word.format(**places) for word in words]
    if words[-1] != "--device":
        words += ["--lang", "zh"]
    else:
        monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith("错误：") and said.count("\n") == 1 and told in said, said
    plain = said.removeprefix("错误：")
    assert sum("\u4e00" <= char <= "\u9fff" for char in plain) >= 2, said


def test_a_mistake_that_has_no_chinese_is_told_in_english(
    places: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ConfigError("something odd: that nobody foresaw")

    monkeypatch.setattr("jielong.cli.pretrain.load_config", fails)
    words = [word.format(**places) for word in RUN]
    assert main([*words, "--lang=zh"]) == 2
    assert capsys.readouterr().err == "错误：something odd: that nobody foresaw\n"
    assert main([*words, "--lang", "en"]) == 2
    assert capsys.readouterr().err == "error: something odd: that nobody foresaw\n"


def test_an_unknown_language_is_told_by_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (
        ["generate", "x"],
        ["export", "x", "--format", "hf", "--out", "y"],
        ["runs", "x"],
    ):
        assert main([*words, "--lang", "fr"]) == 2
        assert capsys.readouterr().err == "error: lang='fr' is not one of auto, en, zh\n"


def test_what_evaluate_leaves_out_is_told_in_chinese(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "a.jsonl"
    text.write_text('{"text": "Tale 1. word1 word2"}\n' * 9 + "not json\n")
    assert main(["evaluate", str(trained_run), "--data-path", str(text), "--lang", "zh"]) == 0
    said = capsys.readouterr().err
    assert "略去：" in said and "占文本的" in said and "left out" not in said, said
