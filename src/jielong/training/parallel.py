"""How a model is spread over processes: a copy on each (DDP), or a part on each (FSDP2, HSDP)."""

from __future__ import annotations

import torch
from torch import Tensor

from jielong.checkpoint.weights import model_from_tensors, named_weights
from jielong.config.settings import Config
from jielong.errors import ConfigError
from jielong.model.initial import initialise_parts
from jielong.model.moe import Router
from jielong.model.transformer import Transformer
from jielong.runtime.device import available_memory, dtype_of_any_width
from jielong.runtime.distributed import World
from jielong.runtime.gradients import GradientSum
from jielong.runtime.parts import has_shards
from jielong.runtime.processors import local_processes
from jielong.runtime.sharding import ShardedSum, shard_model
from jielong.training.memory import (
    RECOMPUTE_EVERY,
    Sharding,
    checkpoint_bytes,
    least_bytes,
)
from jielong.training.speed import Machine

# of a device's memory that is planned with: the rest is fragments, and what libraries take
USABLE = 0.9
# of a device's memory that gradients may take which wait, whole, for the end of an update
WAITING_GRADIENTS = 0.25


def check_parallel(config: Config, machine: Machine) -> None:
    """Refuse what does not go together, before anything is made.

    Raises:
        ConfigError: `--parallel fsdp` with what it cannot do, or cannot do here.
    """
    t, processes = config.training, machine.processes
    if t.parallel != "fsdp":
        return
    if processes == 1:
        raise ConfigError(
            "training.parallel=fsdp divides a model among processes, and there is one: start "
            "several with torchrun --nproc-per-node N -m jielong pretrain …, or leave it out"
        )
    if why := _fsdp_impossible(config, machine.device):
        raise ConfigError(f"training.parallel=fsdp does not go with {why}")
    if t.shard_degree is not None and processes % t.shard_degree:
        raise ConfigError(
            f"training.shard_degree={t.shard_degree} does not divide the {processes} processes "
            "into groups of that size"
        )
    if t.cpu_offload and machine.device.type == "cpu":
        raise ConfigError("training.cpu_offload is for GPUs: here the device is the CPU already")


def _fsdp_impossible(config: Config, device: torch.device) -> str | None:
    """Return what FSDP2 does not go with."""
    if device.type == "mps":
        return "training.device=mps: it knows CUDA and the CPU"
    if dtype_of_any_width(config.training.dtype, device) == torch.float16:
        return (
            "float16, whose scale each process would choose by its own part of the gradient: use "
            "--dtype bfloat16 or float32"
        )
    return None


def make_parallel_model(
    config: Config, dtype: torch.dtype, world: World, device: torch.device
) -> tuple[Transformer, GradientSum | ShardedSum | None, Sharding | None]:
    """Make a new model on its device, a copy or a part of it on each rank; every rank calls it.

    Weights are drawn from torch's global generator, the same whatever each rank keeps of them. Of a
    model that is divided no rank has more at a time than its part and one whole matrix.

    Args:
        dtype: of the forward pass.

    Returns:
        The model, the sum of its gradients over several ranks, and how it is divided, if it is.
    """
    if not _is_sharded(config, world, device):
        model = Transformer(config.model).to(device)
        return model, GradientSum(model.parameters(), world) if world.world_size > 1 else None, None
    with torch.device("meta"):
        model = Transformer(config.model)
    sharding = shard_among_ranks(model, config, dtype, world, device)
    initialise_parts(model)
    return model, ShardedSum(model, world, sharding.waiting), sharding


def shard_among_ranks(
    model: Transformer, config: Config, dtype: torch.dtype, world: World, device: torch.device
) -> Sharding:
    """Divide a model among the ranks, as `make_parallel_model` does if the settings say so.

    Args:
        model: with the same weights on all ranks; or on no device, whose parts get memory alone.
    """
    t = config.training
    # a router's gradient comes from outside of its layer too, and a rounded weight of it could
    # change a choice; norms are as small
    small: list[Tensor] = [p for p in model.parameters() if p.ndim == 1]
    small += [module.weight for module in model.modules() if isinstance(module, Router)]
    degree = t.shard_degree or world.world_size
    layers = model.model.layers
    shard_model(model, layers, small, device, dtype, world, degree, t.cpu_offload)
    usable, gradients = usable_memory(device), 4 * model.num_parameters()
    waiting = usable is None or gradients <= WAITING_GRADIENTS * usable
    return Sharding(degree, all(world.all_gather(waiting)))


def _is_sharded(config: Config, world: World, device: torch.device) -> bool:
    """Whether each rank gets a part of the model; the ranks agree."""
    t = config.training
    if world.world_size == 1 or t.parallel != "auto":
        return world.world_size > 1 and t.parallel == "fsdp"
    if _fsdp_impossible(config, device):
        return False
    return not all(world.all_gather(_a_copy_fits(config, device)))


def _a_copy_fits(config: Config, device: torch.device) -> bool:
    """Whether all that DDP keeps of a model fits, with a pass of one window."""
    usable = usable_memory(device)
    recompute = RECOMPUTE_EVERY[config.training.activation_checkpointing]
    window = config.data.max_seq_len
    return usable is None or least_bytes(config.model, 1, window, 0, recompute) <= usable


def saves_in_shards(config: Config, sharding: Sharding | None, world: World) -> bool:
    """Whether each rank writes its part of a checkpoint; every rank calls it.

    Where the settings leave it open it is so for a divided model whose weights, average and
    optimizer state do not fit in the memory of rank 0's host, which would gather them.
    """
    if config.run.checkpoint_format != "auto":
        return config.run.checkpoint_format == "sharded"
    if sharding is None:
        return False
    t, free = config.training, available_memory()
    needed = checkpoint_bytes(config.model, t.optimizer == "muon", t.average_weights)
    return bool(world.all_gather(free is not None and needed > USABLE * free)[0])


def whole_fits(
    config: Config, sharding: Sharding | None, world: World, device: torch.device
) -> bool:
    """Whether rank 0 can hold all of a divided model, for samples; every rank calls it."""
    if sharding is None:
        return True
    weights, free = 4 * config.model.parameter_count, available_memory()
    fits = free is None or 2 * weights <= USABLE * free  # what is gathered, and the model
    usable = usable_memory(device) if device.type == "cuda" else None
    if usable is not None:
        window = config.data.max_seq_len
        recompute = RECOMPUTE_EVERY[config.training.activation_checkpointing]
        own = least_bytes(config.model, 1, window, 0, recompute, sharding=sharding)
        fits = fits and own + weights <= usable
    return bool(world.all_gather(fits)[0])


def usable_memory(device: torch.device) -> int | None:
    """Bytes of a GPU, or this process's share of what the host has free; None if unknown."""
    if device.type == "cuda":
        return int(USABLE * torch.cuda.get_device_properties(device).total_memory)
    free = available_memory() if device.type == "cpu" else None
    return None if free is None else free // local_processes()


def whole_model(model: Transformer, keep: bool) -> Transformer | None:
    """Return the model, or a copy put together from the parts on all ranks; every rank calls it.

    Args:
        keep: whether this rank wants it; the others get None.
    """
    if not has_shards(model):
        return model if keep else None
    weights = named_weights(model, keep=keep)
    if not keep:
        return None
    return model_from_tensors(model.config, weights, "the model in parts").to(model.device)


def describe_parallel(world: World, sharding: Sharding | None) -> list[str]:
    """Return a line on how a model is spread over several processes; none for one."""
    n = world.world_size
    if n == 1:
        return []
    if sharding is None:
        return [f"parallel   DDP: each of {n} processes holds the whole model"]
    when = "once an update" if sharding.waiting else "with each micro-batch"
    share = f"FSDP2: {n} processes share one copy"
    if sharding.degree < n:
        share = f"HSDP: each {sharding.degree} of {n} processes share a copy"
    return [f"parallel   {share} of the model; gradients are added up {when}"]
