"""torch.compile where it pays: its warm-up weighed against the length of the run."""

from __future__ import annotations

import dataclasses

import torch

from jielong.config.settings import Config
from jielong.data.batches import Batch
from jielong.errors import first_line
from jielong.model.moe import Experts
from jielong.model.transformer import Transformer
from jielong.runtime.distributed import World
from jielong.training.state import TrainState
from jielong.training.trial import try_batch

# Training arithmetic below which compiling costs more than it saves. Counted, not timed, so that
# a resumed run decides as the first did: about ten minutes of work. On a CPU it has never brought
# anything (docs/experiments.md).
LEAST_FLOPS = {"cpu": float("inf"), "cuda": 3e16, "mps": float("inf")}
SMALL_VOCABULARY = 64  # of a model that is compiled to see whether that works


def compile_if_it_pays(state: TrainState) -> None:
    """Compile the layers where `--compile` and the length of the run say so."""
    config, model = state.config, state.model
    windows = state.batches.windows_before(state.plan.total_steps)
    tokens = windows * config.data.max_seq_len
    if not wants_compile(config, model.num_parameters(), tokens, model.device):
        return
    divided = state.train_step.sharding is not None
    if divided and config.training.compile == "auto":  # no GPU has tried it
        state.console.line(
            "compile    not the layers of a divided model: they run as written (--compile on)"
        )
        return
    state.console.line("compiling …")
    step = min(state.progress.step, state.plan.total_steps - 1)  # its shards are here
    batch = state.batches.batch(step, state.world.rank, state.world.world_size)
    first, dtype = state.micro_batches(batch, step)[0], state.train_step.dtype
    if divided:
        problem = compile_divided(model, first, dtype, state.world)
    else:
        problem = compile_layers(model, first, dtype)
    if problem:
        state.console.line(
            f"torch.compile does not work here, going on without: {problem}", "yellow"
        )


def wants_compile(config: Config, parameters: int, tokens: int, device: torch.device) -> bool:
    """Whether a run over `tokens` tokens should compile its layers."""
    if config.training.compile != "auto":
        return config.training.compile == "on"
    return 6.0 * parameters * tokens >= LEAST_FLOPS[device.type]


def compile_layers(model: Transformer, batch: Batch, dtype: torch.dtype) -> str | None:
    """Compiles each decoder layer and tries a batch; on failure the model runs uncompiled.

    The layers are alike, so the first one's code serves all: a fraction of the warm-up that the
    whole model takes.

    Returns:
        None, or why it does not compile here.
    """
    _prepare(model, dtype)
    for layer in model.model.layers:
        layer.compile()
    try:
        try_batch(model, batch, dtype)
    except Exception as error:
        for layer in model.model.layers:
            layer._compiled_call_impl = None
        model.model.per_document = True
        torch.compiler.reset()
        return first_line(error)[:120]
    return None


def compile_divided(
    model: Transformer, batch: Batch, dtype: torch.dtype, world: World
) -> str | None:
    """Compile each layer of a model that ranks keep parts of; every rank calls it.

    FSDP's hooks gather a layer's weights before its forward and free them after it. They stay as
    they are around what is compiled. Each pass takes all ranks, so none of them may fail alone:
    each compiles a small model of its own first, and all go on only if all of them could.

    Returns:
        None, or why it does not compile on one of the ranks.
    """
    with torch.random.fork_rng(devices=[]):
        config = dataclasses.replace(model.config, num_hidden_layers=1, vocab_size=SMALL_VOCABULARY)
        small = Transformer(config).to(model.device)
    tokens, targets = batch.tokens % SMALL_VOCABULARY, batch.targets % SMALL_VOCABULARY
    few = dataclasses.replace(batch, tokens=tokens, targets=targets)
    problem = next(filter(None, world.all_gather(compile_layers(small, few, dtype))), None)
    if problem is not None:
        return problem
    _prepare(model, dtype)
    for layer in model.model.layers:
        layer.forward = torch.compile(layer.forward)
    try_batch(model, batch, dtype)
    return None


def _prepare(model: Transformer, dtype: torch.dtype) -> None:
    """Leave out of layers that will be compiled what would compile anew for each length."""
    for module in model.modules():
        if isinstance(module, Experts):
            module.keep_uncompiled(model.device, dtype)
    model.model.per_document = False
