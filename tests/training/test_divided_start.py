"""A divided model begins with the weights of a whole one, and no process ever holds all of it."""

from __future__ import annotations

import json
import sys

import pytest

from training.test_distributed import python_in_ranks

EXPERTS = {"use_moe": True, "num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
MODELS = {
    # 5 rows of keys and values, 37 of the feed-forward: parts of unequal size, and none
    "dense": {"head_dim": 10, "intermediate_size": 37, "tie_word_embeddings": True},
    "apart": {"tie_word_embeddings": False, "qk_norm": True},
    "experts": EXPERTS | {"router_aux_loss": "bias", "num_shared_experts": 1},
}
SAME = """
import json, sys
import torch
from jielong.checkpoint.weights import stored_tensors
from jielong.config.load import load_config
from jielong.model.transformer import Transformer
from jielong.runtime.distributed import init_world
from jielong.runtime.parts import has_shards, local, part_of
from jielong.training.parallel import make_parallel_model
CPU = torch.device("cpu")
with init_world("cpu", 300.0) as world:
    for name, values in json.loads(sys.argv[1]).items():
        for degree in (4, 2):
            config = load_config(parallel="fsdp", shard_degree=degree, **values)
            torch.manual_seed(7)
            whole = Transformer(config.model)
            drawn = torch.get_rng_state()
            torch.manual_seed(7)
            model, _, sharding = make_parallel_model(config, torch.float32, world, CPU)
            assert sharding.degree == degree and has_shards(model)
            assert torch.equal(torch.get_rng_state(), drawn), name
            found, expected = stored_tensors(model), stored_tensors(whole)
            assert found.keys() == expected.keys()
            for key, value in found.items():
                own = part_of(expected[key], value)
                assert local(value).dtype == own.dtype and torch.equal(local(value), own), key
            for ours, theirs in zip(model.buffers(), whole.buffers(), strict=True):
                assert torch.equal(ours, theirs)
            assert model.model.rotary.theta == whole.model.rotary.theta
            tied = model.lm_head.weight is model.model.embed_tokens.weight
            assert tied == config.model.tie_word_embeddings
            model(torch.zeros(1, 4, dtype=torch.long))
            assert not any(p.is_meta for p in model.parameters())
"""
# How much the most memory of a process grows when it makes its part of a model.
PEAK = """
import resource
import torch
from jielong.config.load import load_config
from jielong.runtime.distributed import init_world
from jielong.training.parallel import make_parallel_model
VALUES = {"hidden_size": 512, "num_hidden_layers": 8, "vocab_size": 2048}
def most():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
with init_world("cpu", 300.0) as world:
    small = load_config(parallel="fsdp", hidden_size=64, num_hidden_layers=1, vocab_size=64)
    # what is imported for the first
    make_parallel_model(small, torch.float32, world, torch.device("cpu"))
    config = load_config(parallel="fsdp", **VALUES)
    before = most()
    make_parallel_model(config, torch.float32, world, torch.device("cpu"))
    whole, grown = 4 * config.model.parameter_count, most() - before
    assert whole > 90e6
    assert grown < 0.75 * whole, (grown, whole)
"""


def test_the_initial_weights_are_those_of_a_whole_model_to_the_bit() -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"num_key_value_heads": 1, "vocab_size": 70, "max_seq_len": 16}
    models = {name: sizes | values for name, values in MODELS.items()}
    for status, said in python_in_ranks(4, ["-c", SAME, json.dumps(models)]):
        assert status == 0, said


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units elsewhere")
def test_a_process_needs_memory_for_its_part_and_a_matrix() -> None:
    """Half of the weights, a matrix that is drawn, and what an allocator does not give back."""
    for status, said in python_in_ranks(2, ["-c", PEAK]):
        assert status == 0, said
