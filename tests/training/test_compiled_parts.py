"""`--compile on` under FSDP2: FSDP's hooks stay around the layers that are compiled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jielong.cli.main import main
from training.test_distributed import free_port, python_in_ranks
from training.test_sharded import EXPERTS, SHARED
from training.test_torchrun import assert_same_run, words

KINDS: dict[str, dict[str, Any]] = {
    "dense": {"activation_checkpointing": "selective"},
    "experts": EXPERTS,
}
# Traced and split into forward and backward as ever, but run by torch: to generate code takes a
# minute.
QUICK = """
import functools, json, os, sys
import torch
torch.compile = functools.partial(torch.compile, backend="aot_eager")
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
    assert not found["graph_break"] or "use_moe" in str(words), found["graph_break"]
"""


@pytest.fixture(scope="module")
def settings(corpus_file: Path, tokenizer_dir: Path) -> dict[str, Any]:
    texts = {"data_path": str(corpus_file), "tokenizer": str(tokenizer_dir)}
    return SHARED | texts | {"steps": 4, "eval_interval": 4}


@pytest.fixture(scope="module")
def alone(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each of KINDS trained by one process, as written."""
    folder = tmp_path_factory.mktemp("alone")
    for name, changes in KINDS.items():
        assert main(words(settings | changes | {"compile": "off"}, folder / name)) == 0
    return folder


def launch(jobs: list[list[str]], how: str = "") -> str:
    numbered = json.dumps([(free_port(), job) for job in jobs])
    found = python_in_ranks(2, ["-c", QUICK, numbered, how])
    for status, said in found:
        assert status == 0, said
    return found[0][1]


def test_compiled_layers_of_a_divided_model_train_what_one_process_does(
    settings: dict[str, Any], alone: Path, tmp_path: Path
) -> None:
    both = settings | {"parallel": "fsdp", "compile": "on"}
    said = launch([words(both | changes, tmp_path / name) for name, changes in KINDS.items()])
    assert said.count("compiling …") == 2 and "does not work" not in said
    for name in KINDS:
        assert_same_run(tmp_path / name, alone / name)


def test_where_one_process_cannot_compile_none_does(
    settings: dict[str, Any], alone: Path, tmp_path: Path
) -> None:
    both = settings | KINDS["dense"] | {"parallel": "fsdp", "compile": "on"}
    said = launch([words(both, tmp_path / "run")], "broken")
    assert "going on without: no compiler is here" in said
    assert_same_run(tmp_path / "run", alone / "dense")
