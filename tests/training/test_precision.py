"""A run keeps the precision that it began with."""

from __future__ import annotations

import math

import torch

from jielong.config.load import load_toml
from jielong.config.settings import Config
from jielong.runtime.device import bfloat16_width
from jielong.runtime.run_folder import RunFolder
from jielong.training.minutes import write_chosen
from jielong.training.precision import settle_dtype

CPU = torch.device("cpu")


def _settle(folder, config=None, width=512, begun=False):
    lines: list[str] = []
    config = settle_dtype(config or Config(), width, RunFolder(folder), CPU, begun, lines.append)
    return config.training.dtype, "\n".join(lines)


def test_a_new_run_keeps_what_auto_chose(tmp_path):
    name, said = _settle(tmp_path)
    assert name == ("float32" if math.isinf(bfloat16_width()) else "bfloat16")
    assert ("this one is 512 wide" in said) == (not math.isinf(bfloat16_width()))
    kept = load_toml(tmp_path / "chosen.toml") if (tmp_path / "chosen.toml").exists() else {}
    assert kept.get("dtype", "float32") == name
    assert _settle(tmp_path, begun=True)[0] == name


def test_a_run_that_began_in_float32_goes_on_in_it_on_any_cpu(tmp_path):
    assert _settle(tmp_path, begun=True)[0] == "float32"


def test_a_run_that_began_in_bfloat16_goes_on_in_it_and_says_so(tmp_path):
    write_chosen(tmp_path / "chosen.toml", {"dtype": "bfloat16", "hidden_size": 64})
    name, said = _settle(tmp_path, width=64, begun=True)
    assert name == "bfloat16"
    assert "bfloat16, as before" in said
    assert ("slow" in said) == math.isinf(bfloat16_width())


def test_a_run_of_float16_goes_on_in_float32_on_a_cpu_and_may_return_to_its_gpu(tmp_path):
    write_chosen(tmp_path / "chosen.toml", {"dtype": "float16"})
    name, said = _settle(tmp_path, begun=True)
    assert name == "float32"
    assert "needs a GPU" in said
    assert load_toml(tmp_path / "chosen.toml")["dtype"] == "float16"


def test_what_is_asked_for_is_taken_and_not_kept(tmp_path):
    assert _settle(tmp_path, Config().with_values(dtype="float32"))[0] == "float32"
    assert not (tmp_path / "chosen.toml").exists()
