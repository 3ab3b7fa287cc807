"""What a run shows of itself never stops it, and is recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from jielong.config.model import ModelConfig
from jielong.errors import TrainingError
from jielong.model.transformer import Transformer
from jielong.observe.health import Finding, Health
from jielong.training import watch
from jielong.training.utilisation import flops_per_token, peak_flops
from tiny import TINY_RUN, flags, in_this_process


@pytest.fixture
def words(tmp_path: Path, corpus_file: Path, tokenizer_dir: Path) -> list[str]:
    settings = TINY_RUN | {
        "data_path": corpus_file,
        "tokenizer": tokenizer_dir,
        "steps": 8,
        "report": True,
    }
    return ["pretrain", *flags(settings | {"eval_interval": 2, "out_dir": tmp_path / "run"})]


def records(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [r for r in map(json.loads, lines) if r["kind"] == kind]


def test_a_run_records_how_it_starts_and_ends(words: list[str], tmp_path: Path) -> None:
    status, said = in_this_process(words)
    assert status == 0, said
    (start,) = records(tmp_path / "run", "start")
    assert (start["step"], start["total_steps"], start["processes"]) == (0, 8, 1)
    assert start["machine"].startswith("cpu") and start["choices"]["learning_rate"] > 0
    assert start["parameters"] > 0 and start["flops_per_token"] > 6 * start["parameters"]
    (end,) = records(tmp_path / "run", "end")
    assert (end["step"], end["state"]) == (8, "finished")
    assert all(r["memory_bytes"] > 10**7 for r in records(tmp_path / "run", "train"))
    assert f"report      {tmp_path / 'run' / 'report.html'}" in said


def test_a_report_that_cannot_be_written_is_said_once_and_training_goes_on(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise PermissionError(13, "no room for it")

    monkeypatch.setattr(watch, "write_report", broken)
    monkeypatch.setattr(watch, "REPORT_SHARE", 1e9)  # try at each validation
    status, said = in_this_process(words)
    assert status == 0 and said.count("report.html could not be written") == 1
    assert "no room for it" in said and "Traceback" not in said
    assert records(tmp_path / "run", "end")[0]["state"] == "finished"


def test_reports_are_written_seldom_where_they_take_long(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    monkeypatch.setattr(watch, "write_report", lambda *_: written.append(1))
    monkeypatch.setattr(watch, "REPORT_SHARE", 1e-9)
    assert in_this_process(words)[0] == 0
    assert len(written) == 2  # at the first validation and at the end


def test_a_run_that_fails_says_so_in_its_records(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(state: Any, batch: Any, lr_scale: float) -> Any:
        raise TrainingError("the run has diverged\nsecond line")

    monkeypatch.setattr("jielong.training.pretrain.step_with_recovery", fails)
    assert in_this_process(words)[0] == 2
    (end,) = records(tmp_path / "run", "end")
    assert (end["state"], end["why"]) == ("failed", "the run has diverged")
    assert "the run has diverged" in (tmp_path / "run" / "report.html").read_text()


def test_what_looks_wrong_is_said_and_recorded_and_not_again_after_a_resume(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finding = Finding("odd", "something is odd. Try <b>this</b>")
    monkeypatch.setattr(Health, "findings", lambda self: [finding])
    status, said = in_this_process(words)
    assert status == 0 and said.count("something is odd") == 1
    (warning,) = records(tmp_path / "run", "warning")
    assert (warning["name"], warning["text"]) == ("odd", finding.text)
    assert "Try &lt;b&gt;this" in (tmp_path / "run" / "report.html").read_text()
    words[words.index("--steps") + 1] = "16"
    status, said = in_this_process([*words, "--override"])
    assert status == 0 and "something is odd" not in said
    assert len(records(tmp_path / "run", "start")) == 2


def test_checks_that_break_are_off_and_training_goes_on(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Health, "findings", lambda self: [][0])
    status, said = in_this_process(words)
    assert status == 0 and said.count("the checks of this run are off") == 1


@pytest.mark.parametrize("tied", [True, False])
def test_arithmetic_is_six_times_the_parameters_that_multiply_and_the_attention(tied: bool) -> None:
    config = ModelConfig(
        vocab_size=100,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
    )
    with torch.device("meta"):
        model = Transformer(config)
    matrices = sum(
        p.numel() for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name
    )
    head = 100 * 32 if tied else 0  # which the embedding's weights are
    # queries by keys and weights by values: 2 · 2 · width · keys, three times, of half the window
    attention = 3 * (2 * 2 * 32 * 16 / 2) * 3
    counted = flops_per_token(config, model.num_active_parameters(), 16)
    assert counted == pytest.approx(6 * (matrices + head) + attention, rel=0.01)


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA GeForce RTX 4090", 165.2e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA A10", 125e12),
        ("NVIDIA A1000", None),
    ],
)
def test_the_peak_is_that_of_the_gpu_and_unknown_for_others(
    name: str, peak: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    device = torch.device("cuda", 0)
    assert peak_flops(device, torch.bfloat16) == peak
    assert peak_flops(device, torch.float32) is None
    assert peak_flops(torch.device("cpu"), torch.bfloat16) is None
