"""What is said where Ray is not installed, and of an engine that there is not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tiny import in_this_process


def test_without_ray_one_line_says_how_to_get_it(
    corpus_file: Path, tokenizer_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # as Python marks what cannot be imported
    text = ["--data-path", str(corpus_file), "--out-dir", str(tmp_path / "out"), "--engine", "ray"]
    for words in (
        ["prepare", *text, "--tokenizer", str(tokenizer_dir)],
        ["tokenizer", *text],
        ["clean", *text],
        ["pretrain", *text, "--preset", "tiny"],
    ):
        status, said = in_this_process(words)
        assert (status, said) == (
            2,
            "error: --engine ray needs Ray: pip install 'jielong[ray]'\n",
        )
        assert not list((tmp_path / "out").glob("*.json"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--engine", "rayy"], "engine='rayy' is not one of local, ray; did you mean ray?"),
        (["--ray-address", "auto"], "ray_address='auto' needs engine=ray: give --engine ray too"),
        (
            ["--engine", "ray", "--ray-address", "ray://head:10001"],
            "ray_address='ray://head:10001': Ray's client is not used: run the command on a "
            "machine of the cluster with --ray-address auto",
        ),
    ],
)
def test_an_engine_that_cannot_be(
    words: list[str], said: str, corpus_file: Path, tmp_path: Path
) -> None:
    command = ["tokenizer", "--data-path", str(corpus_file), "--out-dir", str(tmp_path / "out")]
    assert in_this_process([*command, *words]) == (2, f"error: {said}\n")
