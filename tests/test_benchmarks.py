"""The parts of the benchmarks that decide what is compared."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from filelock import FileLock

from forked import Forked
from jielong.config.load import load_config
from jielong.training.scaling import MODEL_SIZES
from tiny import TEXTS, environment
from training.test_distributed import python_in_ranks

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def benchmark_modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Modules of benchmarks/ can be imported, and are forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file and Path(file).parent == BENCHMARKS:
            del sys.modules[name]


def imported(name: str) -> ModuleType:
    return importlib.import_module(name)


def auto_run(index: int, teachers: int) -> dict[str, Any]:
    size = MODEL_SIZES[index].values()
    window = size.pop("max_seq_len")
    return {
        "bits_per_byte": 2.0,
        "seconds": 590,
        "tokens": 5_000_000,
        "teachers": teachers,
        "size": size | {"vocab_size": 3200, "window": window},
        "choices": {
            "learning_rate": 0.005,
            "global_batch_size": 17,
            "batch_warmup": True,
            "weight_decay": 1.2,
            "dropout": 0.12,
            "input_noise": 0.06,
            "bpe_dropout": 0.06,
        },
    }


@pytest.mark.parametrize("index", range(len(MODEL_SIZES)))
@pytest.mark.parametrize("teachers", [0, 2])
@pytest.mark.usefixtures("benchmark_modules")
def test_a_grid_has_twelve_points_or_more_all_different_and_all_settings_of_a_run(
    index: int, teachers: int
) -> None:
    grid = imported("own_text_grid").grid(auto_run(index, teachers), 10.0)
    configs = [load_config(**settings) for settings in grid.values()]
    assert len(grid) >= 13  # with "the same", which only shows the noise
    assert len(set(map(repr, configs))) == len(configs)


@pytest.mark.usefixtures("benchmark_modules")
def test_a_point_that_another_process_runs_is_left_to_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own_text_grid = imported("own_text_grid")
    with FileLock(tmp_path / "rate_x2.lock"):
        own_text_grid.run("none", tmp_path, "rate x2", {"learning_rate": 1.0}, threads=1)
    assert "another process" in capsys.readouterr().out


@pytest.mark.usefixtures("benchmark_modules")
def test_the_row_of_a_contender_is_its_best_rate_and_a_new_run_replaces_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common, own_text = imported("common"), imported("own_text")
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    monkeypatch.setattr(common, "SCRATCH", tmp_path / "tmp")

    def run(bits: float) -> dict[str, Any]:
        return {"bits_per_byte": bits, "curve": [[1.0, bits]]}

    for key, bits in (("jielong", 1.9), ("nanogpt 0.001", 2.2), ("nanogpt 0.002", 2.1)):
        own_text.keep("one", key, run(bits))
    assert [row["bits_per_byte"] for row in common.results("one")["table"]] == [1.9, 2.1]
    own_text.keep("one", "nanogpt 0.002", run(2.3))
    found = common.results("one")
    assert [row["bits_per_byte"] for row in found["table"]] == [1.9, 2.2]
    assert found["curves"]["nanogpt"] == [[1.0, 2.2]]


@pytest.mark.usefixtures("benchmark_modules")
def test_a_race_ends_when_ten_measures_have_brought_nothing_better() -> None:
    race_module = imported("race")
    found = iter([3.0, 2.0] + [2.5] * 20)
    race = race_module.Race(1e9, lambda model: next(found))
    race.start()
    measures = 0
    while not race.over:
        race.measure(torch.nn.Identity())
        measures += 1
    assert measures == 2 + race_module.PATIENCE


@pytest.mark.usefixtures("benchmark_modules")
def test_the_seconds_of_the_script_are_without_its_saves() -> None:
    times = [(10, 5.0), (20, 10.0), (30, 25.0), (40, 30.0)]  # 0.5 a step, and a save after 20
    assert imported("real_script").seconds_of_a_step(times, {20, 40}) == pytest.approx(0.5)


SCRIPT = """
import argparse, os, torch
p = argparse.ArgumentParser()
for name in ("data_path", "epochs", "accumulation_steps", "device", "num_workers", "hidden_size"):
    p.add_argument("--" + name)
for name in ("log_interval", "save_interval", "batch_size"):
    p.add_argument("--" + name, type=int)
a = p.parse_args()
assert os.path.exists("../model/tokenizer.json")
for step in range(1, 101):
    if step % a.log_interval == 0 or step == 100:
        print(f"Epoch:[1/1]({step}/100), loss: 1")
    if step % a.save_interval == 0 or step == 100:
        torch.save({"step": step}, "new")
        os.replace("new", f"../checkpoints/pretrain_{a.hidden_size}_resume.pth")
"""


@pytest.mark.usefixtures("benchmark_modules")
def test_what_the_script_saves_is_copied_with_the_seconds_of_its_step(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    (checkout / "trainer").mkdir(parents=True)
    (checkout / "trainer" / "train_pretrain.py").write_text(SCRIPT)
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.json").write_text(json.dumps({}))
    saved = imported("real_script").train(
        checkout,
        tmp_path / "place",
        tmp_path / "tokenizer",
        tmp_path / "text.jsonl",
        800,
        {"batch_size": "8", "hidden_size": "16"},
    )
    steps = [torch.load(file)["step"] for _, file in saved]
    assert steps[-1] == 100
    assert steps == sorted(set(steps))
    a_step = saved[-1][0] / 100
    assert [seconds for seconds, _ in saved] == pytest.approx([step * a_step for step in steps])


SPLIT = f"""
import json, sys
sys.path.insert(0, {str(BENCHMARKS)!r})
import splitting
with splitting.init_world("cpu", 600.0) as world:
    print(json.dumps({{name: way(world) for name, way in splitting.WAYS.items()}}))
"""


def test_two_processes_that_split_a_model_compute_what_one_does_and_send_what_is_reckoned() -> None:
    results = python_in_ranks(2, ["-c", SPLIT])
    assert [status for status, _ in results] == [0, 0], results
    ranks = [json.loads(said.splitlines()[-1]) for _, said in results]
    assert ranks[0].keys() == {"tensor", "pipeline", "expert"}
    for way in ranks[0]:
        for rank in ranks:
            assert rank[way]["away"] < 1e-4
            assert rank[way]["kept"] == pytest.approx(rank[way]["kept formula"], rel=0.05)
        given, formula = (sum(rank[way][k] for rank in ranks) for k in ("given", "given formula"))
        assert given == pytest.approx(formula, rel=0.05) and given > 0


SAVES = f"""
import json, sys
sys.path.insert(0, {str(BENCHMARKS)!r})
import saving
print(json.dumps(saving.work(json.loads(sys.argv[1]))))
"""


def test_the_pauses_of_a_run_that_saves_are_measured(tmp_path: Path) -> None:
    rows = (json.dumps({"text": text}) + "\n" for text in TEXTS)
    (tmp_path / "corpus.jsonl").write_text("".join(rows))
    case = {"folder": str(tmp_path), "layers": 1, "saves": 2, "background": True}
    process = Forked(["-c", SAVES, json.dumps(case)], environment())
    said, errors = process.communicate()
    assert process.returncode == 0, errors
    found = json.loads(said.splitlines()[-1])
    assert len(found["pauses_s"]) == 2 and min(found["pauses_s"]) > 0 and found["step_s"] > 0
    # weights, their average and two moments of AdamW, in float32
    assert found["bytes"] == pytest.approx(4 * 4 * found["parameters"], rel=0.02)
