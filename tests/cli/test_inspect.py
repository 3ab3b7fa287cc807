"""`jielong inspect`: every view in the terminal, as JSON and as files; a mistake is one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jielong.cli.main import main
from tiny import TINY_RUN, flags

TEXT = "Tale 7. word3"
VIEWS = {
    "data": ["--rows", "1"],
    "tokenizer": [TEXT],
    "model": [],
    "schedule": [],
    "predict": [TEXT],
    "layers": [TEXT],
    "attention": [TEXT],
    "embeddings": ["Ta"],
}


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_is_printed_and_is_json(
    view: str, trained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["inspect", view, str(trained_run), *VIEWS[view]]
    assert main([*words, "--lang", "en"]) == 0
    english = capsys.readouterr().out
    assert main([*words, "--lang", "zh"]) == 0
    chinese = capsys.readouterr().out
    assert len(english.splitlines()) > 5 and english != chinese
    assert any("\u4e00" <= char <= "\u9fff" for char in chinese)
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


def test_a_page_and_a_picture_are_written(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    page, picture = tmp_path / "page.html", tmp_path / "picture.png"
    words = ["inspect", "predict", str(trained_run), TEXT, "--lang", "zh"]
    assert main([*words, "--html", str(page), "--png", str(picture)]) == 0
    assert capsys.readouterr().out.splitlines() == [str(page), str(picture)]
    assert '<html lang="zh">' in page.read_text() and "模型的预测" in page.read_text()
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_model_is_seen_before_there_is_a_text(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["inspect", "model", "--preset", "minimind", "--max-seq-len", "340", "--json"]
    assert main(words) == 0
    seen = json.loads(capsys.readouterr().out)
    assert f"{seen['parameters'] / 1e6:.3f}" == "25.830" and seen["window"] == 340


def test_a_schedule_is_seen_before_a_run_starts(
    corpus_file: Path, tokenizer_dir: Path, trained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"data_path": str(corpus_file), "tokenizer": str(tokenizer_dir)}
    words = flags(TINY_RUN | settings | {"input_noise": 0.2, "bpe_dropout": 0.0})
    assert main(["inspect", "schedule", *words, "--json"]) == 0
    before = json.loads(capsys.readouterr().out)
    assert main(["inspect", "schedule", str(trained_run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == before


def test_text_from_standard_input(
    trained_run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import io
    import sys

    words = ["inspect", "tokenizer", str(trained_run), "-", "--json"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("龙\n".encode())))
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["text_bytes"] == 4
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\xff")))
    assert main(words) == 2
    assert "standard input is not UTF-8 (byte 1)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["data", "nowhere"], "nowhere: no run is here"),
        (["data", "RUN", "--preset", "tiny"], "give a run, or --preset and --config"),
        (["data", "RUN", "--rows", "0"], "rows=0 is below its least value 1"),
        (["data", "RUN", "--stpe", "3"], "unknown flag --stpe; did you mean --step"),
        (["model", "RUN", "--hidden-size", "64"], "the model of a run is as it is"),
        (["model", "nowhere"], "nowhere: no such folder"),
        (["predict", "nowhere", "x"], "nowhere: no such folder"),
        (["predict", "RUN", ""], "there is no text"),
        (["predict", "RUN", "x", "--lang", "fr"], "lang='fr' is not one of auto, en, zh"),
        (["predict", "RUN", "x", "--html", "no/such/x.html"], "there is no folder no/such"),
        (["experts", "RUN", "x"], "this model has no experts"),
        (["attention", "RUN", "x", "--layer", "9"], "layer=9: this model has 2"),
        (["tokenizer", "nowhere", "x"], "nowhere"),
        ([], "the following arguments are required: WHAT"),
    ],
)
def test_a_mistake_is_one_line(
    words: list[str],
    told: str,
    trained_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", *(str(trained_run) if w == "RUN" else w for w in words)]) == 2
    said = capsys.readouterr()
    assert said.out == "" and len(said.err.splitlines()) == 1
    assert told in said.err
