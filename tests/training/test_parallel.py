"""Which of DDP and FSDP2 a run of several processes takes, and what is refused before it begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from jielong.config.model import ModelConfig
from jielong.errors import ConfigError
from jielong.runtime.distributed import World
from jielong.training import memory, parallel
from jielong.training.parallel import check_parallel
from jielong.training.speed import Machine
from tiny import flags, in_this_process, tiny_config

CPU, GPU, APPLE = (torch.device(name) for name in ("cpu", "cuda", "mps"))


@pytest.mark.parametrize(
    ("settings", "where", "processes", "words"),
    [
        ({}, CPU, 1, "torchrun --nproc-per-node"),
        ({"dtype": "float16"}, GPU, 2, "--dtype bfloat16 or float32"),
        ({}, APPLE, 2, "training.device=mps"),
        ({"shard_degree": 4}, CPU, 6, "shard_degree=4 does not divide the 6 processes"),
        ({"shard_degree": 4}, CPU, 2, "shard_degree=4 does not divide the 2 processes"),
        ({"cpu_offload": True}, CPU, 2, "training.cpu_offload is for GPUs"),
    ],
)
def test_what_fsdp_cannot_do_is_refused_in_one_line(
    settings: dict[str, Any], where: torch.device, processes: int, words: str
) -> None:
    config = tiny_config(parallel="fsdp", **settings)
    with pytest.raises(ConfigError) as refused:
        check_parallel(config, Machine(where, processes))
    assert words in str(refused.value) and "\n" not in str(refused.value)
    others = {n: value for n, value in settings.items() if n == "dtype"}
    for kind in ("ddp", "auto"):
        check_parallel(tiny_config(parallel=kind, **others), Machine(where, processes))


@pytest.mark.parametrize("setting", [{"shard_degree": 2}, {"cpu_offload": True}])
@pytest.mark.parametrize("kind", ["auto", "ddp"])
def test_what_is_for_fsdp_alone_is_refused_elsewhere(setting: dict[str, Any], kind: str) -> None:
    with pytest.raises(ConfigError, match=r"is for --parallel fsdp alone"):
        tiny_config(parallel=kind, **setting)


def test_one_process_says_so_before_it_makes_anything(tmp_path: Path, corpus_file: Path) -> None:
    settings = {"data_path": str(corpus_file), "out_dir": str(tmp_path / "run"), "steps": 2}
    status, said = in_this_process(["pretrain", *flags(settings | {"parallel": "fsdp"})])
    assert status != 0 and said.count("error: ") == 1 and "there is one" in said
    assert not (tmp_path / "run" / "data").exists()


class Ranks(World):
    """Two ranks that see the same."""

    def all_gather(self, value: Any) -> list[Any]:
        return [value, value]


def test_a_model_is_divided_where_a_copy_of_all_does_not_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = tiny_config(hidden_size=64)
    needs = memory.least_bytes(config.model, 1, config.data.max_seq_len, 0)
    # weights, gradients, their average and AdamW's two moments, in float32
    assert needs >= 20 * config.model.parameter_count
    for free, divided in ((needs - 1, True), (needs, False), (None, False)):
        monkeypatch.setattr(parallel, "available_memory", lambda free=free: free)
        assert parallel._is_sharded(config, Ranks(0, 2), CPU) == divided
        assert not parallel._is_sharded(config, World(), CPU)
        for kind in ("ddp", "fsdp"):
            asked = config.with_values(parallel=kind)
            assert parallel._is_sharded(asked, Ranks(0, 2), CPU) == (kind == "fsdp")
    # two processes on one host share what is free
    monkeypatch.setattr(parallel, "available_memory", lambda: needs)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert parallel._is_sharded(config, Ranks(0, 2), CPU)


def test_a_rank_keeps_a_share_and_what_is_whole_for_a_moment() -> None:
    model = ModelConfig(vocab_size=1000, hidden_size=64, num_hidden_layers=4).validated()
    P, V, H = model.parameter_count, 1000, 64
    assert model.tie_word_embeddings
    waiting = memory.Sharding(4, waiting=True).parameters(model, 5)
    assert waiting == 5 * P // 4 + P
    at_once = memory.Sharding(4, waiting=False).parameters(model, 5)
    assert at_once == 5 * P // 4 + V * H + 2 * (P - V * H) // 4
    rows = [
        memory.least_bytes(model, 2, 16, 0, sharding=d) for d in (None, memory.Sharding(4, False))
    ]
    assert rows[0] - rows[1] == 4 * (5 * P - at_once)
