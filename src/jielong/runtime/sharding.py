"""Dividing a model among ranks (FSDP2), and what they must do together about its gradients."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from jielong.runtime.distributed import World
from jielong.runtime.parts import is_sharded, local

# Keeps the groups that parts are gathered in, for the reason of `distributed._last_group`.
_meshes: list[Any] = []


def shard_model(
    model: nn.Module,
    blocks: Iterable[nn.Module],
    whole: Iterable[Tensor],
    device: torch.device,
    dtype: torch.dtype,
    world: World,
    degree: int,
    offload: bool = False,
) -> None:
    """Divide a model's parameters among the ranks, in place (FSDP2; HSDP if degree < world size).

    A block's weights are gathered before it runs, in `dtype`, and freed after it; those of no block
    (embedding and output head, which may be one) are gathered in float32, as autocast has them.
    Gradients are added up in float32.

    Args:
        model: its weights equal on all ranks; they may be on the host yet, or on no device (meta):
            then parts and buffers get memory here, and no values.
        blocks: modules of it, each gathered as one.
        whole: parameters that every rank keeps whole, in float32. `ShardedSum` adds up their
            gradients, since FSDP does not.
        dtype: that of the forward pass.
        degree: ranks that share one copy of the model; it divides the world size.
        offload: parts, their gradients and the optimizer's state stay in the host's memory.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, fully_shard

    replicas = world.world_size // degree
    if replicas == 1:
        mesh = init_device_mesh(device.type, (degree,), mesh_dim_names=("shard",))
    else:
        names = ("replicate", "shard")
        mesh = init_device_mesh(device.type, (replicas, degree), mesh_dim_names=names)
    _meshes.append(mesh)
    options: dict[str, Any] = {"mesh": mesh, "ignored_params": set(whole)}
    if offload:
        options["offload_policy"] = CPUOffloadPolicy(pin_memory=device.type == "cuda")
    half = None if dtype == torch.float32 else dtype
    # the residual stream stays float32, so inputs are not cast
    policy = MixedPrecisionPolicy(half, torch.float32, cast_forward_inputs=False)
    for block in blocks:
        _sums(fully_shard(block, mp_policy=policy, **options))
    policy = MixedPrecisionPolicy(None, torch.float32, cast_forward_inputs=False)
    _sums(fully_shard(model, mp_policy=policy, **options))
    if any(p.is_meta for p in model.parameters()):
        model.to_empty(device="cpu" if offload else device)
    for tensor in (*model.parameters(), *model.buffers()):
        if not is_sharded(tensor):
            tensor.data = tensor.data.to(device)
    model.register_forward_hook(_reshard_after_evaluation)


def _sums(module: Any) -> None:
    """Have a module's gradients summed over ranks, not averaged."""
    module.set_gradient_divide_factor(1.0)
    module.set_force_sum_reduction_for_comms(True)


def _reshard_after_evaluation(model: nn.Module, *_: Any) -> None:
    """Free what was gathered where no backward pass will: else it would outlive an update."""
    if not torch.is_grad_enabled():
        cast(Any, model).reshard()


def shard_group(parameter: Tensor) -> dist.ProcessGroup:
    """Return the ranks that share one copy of a sharded parameter."""
    mesh = cast(Any, parameter).device_mesh
    return mesh.get_group(mesh.ndim - 1)


class ShardedSum:
    """The gradients of a model that is divided among ranks, and their sum; used as `GradientSum`.

    FSDP sums those of the parts, within the backward pass, and this the rest: of parameters that
    every rank keeps whole. A rank whose memory runs out cannot take part in the passes of the
    others, so they wait for it in vain.
    """

    def __init__(self, model: nn.Module, world: World, waiting: bool) -> None:
        """Use the gradients of a model.

        Args:
            waiting: they wait, whole, for the end of an update; else each pass sums them.
        """
        self.model, self.world, self.waiting = cast(Any, model), world, waiting
        self.whole = [p for p in model.parameters() if not is_sharded(p)]

    def begin(self) -> None:
        """Begin an update."""
        self.model.set_requires_gradient_sync(not self.waiting)

    @contextlib.contextmanager
    def last_pass(self) -> Iterator[None]:
        """Within, the backward pass sums what has waited."""
        self.model.set_requires_gradient_sync(True)
        yield

    def finish(self) -> None:
        """Sum what FSDP does not; every rank must come here."""
        grads = [p.grad for p in self.whole if p.grad is not None]
        if grads:
            total = self.world.sum(torch.cat([g.flatten() for g in grads]))
            for grad, value in zip(grads, total.split([g.numel() for g in grads]), strict=True):
                grad.copy_(value.view_as(grad))


def gradient_norm(parameters: Sequence[Tensor]) -> Tensor:
    """Return the norm of all gradients together, the same on all ranks; parts count once."""
    grads = [p.grad for p in parameters if p.grad is not None]
    parts = [local(g) for g in grads if is_sharded(g)]  # of few rows a rank may have none
    whole = nn.utils.get_total_norm([g for g in grads if not is_sharded(g)])
    if not parts:
        return whole
    squares = nn.utils.get_total_norm(parts).square().to(whole.device)
    divided = next(p for p in parameters if is_sharded(p))
    dist.all_reduce(squares, group=shard_group(divided))
    return (squares + whole.square()).sqrt()


def scale_gradients(parameters: Sequence[Tensor], limit: float, norm: Tensor) -> None:
    """Scale all gradients so that their norm is at most `limit`, as torch clips them."""
    share = (limit / (norm + 1e-6)).clamp(max=1.0)
    by_device: dict[torch.device, list[Tensor]] = defaultdict(list)
    for p in parameters:
        if p.grad is not None:
            by_device[p.grad.device].append(local(p.grad))
    for device, grads in by_device.items():
        torch._foreach_mul_(grads, share.to(device))


def on_whole_matrices(
    function: Callable[[Tensor], Tensor],
    parts: Tensor,
    rows: int,
    group: dist.ProcessGroup,
    first: int,
) -> Tensor:
    """Apply a function to each of N matrices that are divided by rows; each rank does some of them.

    Each element crosses the network once there and once back, so that a rank sends 2 / ranks of
    what all N matrices hold, where gathering them would bring it all of that.

    Args:
        function: of (n, rows, columns), n of the matrices, whole; returns the same shape.
        parts: (N, this rank's rows, columns).
        rows: of a whole matrix.
        group: the ranks that have a part each; all of them call this.
        first: the rank that gets one more if N is no multiple of the ranks, and so on from there.

    Returns:
        This rank's rows of the results, (N, this rank's rows, columns).
    """
    ranks, rank = group.size(), group.rank()
    count, _, columns = parts.shape
    counts = [count // ranks + ((r - first) % ranks < count % ranks) for r in range(ranks)]
    chunk = -(-rows // ranks)  # as torch.chunk divides
    heights = [max(0, min(chunk, rows - r * chunk)) for r in range(ranks)]
    sent = [n * parts[0].numel() for n in counts]
    received = [counts[rank] * height * columns for height in heights]
    flat = parts.new_empty(sum(received))
    dist.all_to_all_single(flat, parts.flatten(), received, sent, group=group)
    pieces = zip(flat.split(received), heights, strict=True)
    whole = torch.cat([p.view(counts[rank], height, columns) for p, height in pieces], dim=1)
    found = function(whole).to(parts.dtype) if counts[rank] else whole
    back = torch.cat([piece.flatten() for piece in found.split(heights, dim=1)])
    own = torch.empty_like(parts)
    dist.all_to_all_single(own.view(-1), back, sent, received, group=group)
    return own
