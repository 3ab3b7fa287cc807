"""`--compile on` under FSDP2: FSDP's hooks stay around the layers that are compiled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jielong.cli.main import main
from training.test_distributed import free_port, python_in_ranks
from training.test_sharded import SHARED
from training.test_torchrun import assert_same_run, words

# Traced as ever, but run as traced: to generate code takes a minute.
QUICK = """
import functools, json, os, sys
import torch
torch.compile = functools.partial(torch.compile, backend="eager")
from jielong.cli.main import main
from jielong.training import compilation
if sys.argv[2] == "broken" and os.environ["RANK"] == "1":
    def broken(*arguments):
        raise RuntimeError("no compiler is here")
    compilation.try_batch = broken
for port, words in json.loads(sys.argv[1]):
    os.environ["MASTER_PORT"] = str(port)
    assert main(words) == 0, words
    found = torch._dynamo.utils.counters
    assert found["stats"]["unique_graphs"] > 0 or sys.argv[2] == "broken"
    assert not found["graph_break"], found["graph_break"]
"""


@pytest.fixture(scope="module")
def settings(corpus_file: Path, tokenizer_dir: Path) -> dict[str, Any]:
    texts = {"data_path": str(corpus_file), "tokenizer": str(tokenizer_dir)}
    settings = SHARED | texts | {"steps": 4, "eval_interval": 4}
    return settings | {"activation_checkpointing": "selective"}


@pytest.fixture(scope="module")
def alone(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process, as written."""
    run = tmp_path_factory.mktemp("alone") / "run"
    assert main(words(settings | {"compile": "off"}, run)) == 0
    return run


@pytest.mark.parametrize("how", ["", "broken"])
def test_compiled_layers_of_a_divided_model_train_what_one_process_does(
    how: str, settings: dict[str, Any], alone: Path, tmp_path: Path
) -> None:
    """Where one of the processes cannot compile, none does."""
    both = settings | {"parallel": "fsdp", "compile": "on"}
    job = [free_port(), words(both, tmp_path / "run")]
    found = python_in_ranks(2, ["-c", QUICK, json.dumps([job]), how])
    assert [status for status, _ in found] == [0, 0], found
    said = found[0][1]
    assert "compiling …" in said
    assert ("going on without: no compiler is here" in said) == (how == "broken")
    assert_same_run(tmp_path / "run", alone)
