"""AdamW, and Muon for the hidden matrices: grouping, rates, and state that saves by name.

Neither is a `torch.optim.Optimizer`: making one of those imports torch's compiler, which took 1.2
of the 4.2 seconds before a run's first step.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from jielong.checkpoint.pieces import Piece, state_piece
from jielong.config.settings import TrainingConfig
from jielong.errors import CheckpointError
from jielong.runtime.parts import Readable, gathered, home, is_sharded, local, part_of
from jielong.runtime.sharding import on_whole_matrices, shard_group
from jielong.tokenization.spelling import Spelling
from jielong.training.shared_updates import SharedUpdates

# Quintic coefficients that bring singular values near 1 in a few steps (Jordan et al. 2024).
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 4
PER_TOKEN = "model.embed_tokens.weight", "lm_head.weight"  # have a row for each token
SHARED = ".shared"  # after their names: what rows share in the optimizer's state
MATCH_ADAM_RMS = 0.2  # an update's root mean square beside AdamW's (Liu et al. 2025)


def orthogonalize(matrices: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrices, roughly, by Newton–Schulz iteration.

    Args:
        matrices: (N, rows, columns), a batch. Works in bfloat16 on CUDA and in float32 elsewhere:
            on a CPU without bfloat16 instructions that is a hundred times faster.

    Returns:
        The same shape, in float32; singular values lie within about 0.7 … 1.2.
    """
    x = matrices.to(torch.bfloat16 if matrices.is_cuda else torch.float32)
    wide = x.shape[-2] <= x.shape[-1]
    x = x if wide else x.mT  # the Gram matrix is then the smaller one
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x if wide else x.mT).float()


class _Part:
    """Parameters in groups, each with its rate, and the state of each."""

    quantities: ClassVar[tuple[str, ...]]  # of a parameter's state

    def __init__(self, groups: list[dict[str, Any]], lr: float) -> None:
        self.param_groups = [group | {"lr": lr} for group in groups]
        self.state: dict[Tensor, dict[str, Tensor]] = {}

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            by_device: dict[torch.device, list[Tensor]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    by_device[p.device].append(p)
            for params in by_device.values():  # one, unless some are offloaded
                self.update(params, group)

    def update(self, params: list[Tensor], group: dict[str, Any]) -> None:
        raise NotImplementedError


class AdamW(_Part):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019), by torch's fused kernel."""

    quantities = ("step", "exp_avg", "exp_avg_sq")

    def __init__(
        self, groups: list[dict[str, Any]], lr: float, betas: tuple[float, float], eps: float
    ) -> None:
        super().__init__(groups, lr)
        self.betas, self.eps = betas, eps

    def update(self, params: list[Tensor], group: dict[str, Any]) -> None:
        states = [self._state(p) for p in params]
        steps = [state["step"] for state in states]
        torch._foreach_add_(steps, 1)
        torch._fused_adamw_(
            [local(p) for p in params],
            [local(p.grad) for p in params if p.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            steps,
            lr=group["lr"],
            beta1=self.betas[0],
            beta2=self.betas[1],
            weight_decay=group["weight_decay"],
            eps=self.eps,
            amsgrad=False,
            maximize=False,
        )

    def _state(self, p: Tensor) -> dict[str, Tensor]:
        if p not in self.state:
            self.state[p] = {
                "step": torch.zeros((), device=p.device),
                "exp_avg": torch.zeros_like(local(p)),
                "exp_avg_sq": torch.zeros_like(local(p)),
            }
        return self.state[p]


class Muon(_Part):
    """Momentum, orthogonalised (Jordan et al. 2024), scaled to the size of AdamW's updates.

    Matrices of one shape are stacked and orthogonalised in one batch. A parameter of more than two
    dimensions is a stack of matrices (of experts), each orthogonalised by itself. Where ranks keep
    parts of the matrices, each matrix is orthogonalised once among them, by the rank that gets it
    whole; a stack of experts is divided between matrices, so that its parts are whole.
    """

    quantities = ("momentum_buffer",)

    def __init__(
        self, params: Sequence[Tensor], lr: float, momentum: float, weight_decay: float
    ) -> None:
        super().__init__([{"params": params, "weight_decay": weight_decay}], lr)
        self.momentum = momentum

    def update(self, params: list[Tensor], group: dict[str, Any]) -> None:
        by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
        for p in params:
            by_shape[p.shape].append(p)
        done = 0  # matrices, so that ranks take turns in having one more
        for shape, alike in by_shape.items():
            momenta = torch.stack([self._momentum(p) for p in alike])
            moved = momenta.to(home(alike[0]))
            if is_sharded(alike[0]) and len(shape) == 2:
                moved = self._among_ranks(moved, alike[0], done)
                done += len(alike)
            else:
                moved = orthogonalize(moved.flatten(0, -3)).view(momenta.shape)
            updates = moved.to(momenta.device)
            scale = MATCH_ADAM_RMS * max(shape[-2:]) ** 0.5
            own = [local(p) for p in alike]
            torch._foreach_mul_(own, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(own, list(updates.unbind()), alpha=-group["lr"] * scale)

    def _among_ranks(self, momenta: Tensor, parameter: Tensor, done: int) -> Tensor:
        """Orthogonalise matrices of which each rank has some rows, (N, rows, columns)."""
        # what `orthogonalize` would round to, so that it loses nothing
        sent = momenta.to(torch.bfloat16) if momenta.is_cuda else momenta
        group = shard_group(parameter)
        first = done % group.size()
        return on_whole_matrices(orthogonalize, sent, len(parameter), group, first).float()

    def _momentum(self, p: Tensor) -> Tensor:
        assert p.grad is not None
        if p not in self.state:
            self.state[p] = {"momentum_buffer": torch.zeros_like(local(p))}
        grad = local(p.grad)
        buffer = self.state[p]["momentum_buffer"].lerp_(grad, 1 - self.momentum)
        return grad.lerp(buffer, self.momentum)  # Nesterov


class Optimizer:
    """The optimizers of a run behind one `step`, with their state by parameter name."""

    def __init__(
        self,
        model: nn.Module,
        t: TrainingConfig,
        learning_rate: float,
        spelling: Spelling | None = None,
    ) -> None:
        """Optimize a model's parameters.

        Args:
            learning_rate: its peak.
            spelling: of the tokens, if those that are spelled alike are to learn together.
        """
        assert t.weight_decay is not None, "resolve() fills it in"
        self.peak = learning_rate
        self.names: dict[Tensor, str] = {p: name for name, p in model.named_parameters()}
        hidden = [
            p
            for name, p in model.named_parameters()
            if p.ndim >= 2 and "layers." in name and "mlp.gate." not in name  # a router's: a head
        ]
        muon = hidden if t.optimizer == "muon" else []
        rest = [p for p in self.names if not any(p is m for m in muon)]
        groups = [
            {"params": [p for p in rest if p.ndim >= 2], "weight_decay": t.weight_decay},
            {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.shared: list[SharedUpdates] = []
        if spelling is not None and spelling.feature_count:
            for p, name in list(self.names.items()):
                if name in PER_TOKEN:
                    shared = SharedUpdates(p, spelling)
                    self.shared.append(shared)
                    self.names[shared.shared] = f"{name}{SHARED}"
            groups.append({"params": [s.shared for s in self.shared], "weight_decay": 0.0})
        self.parts: list[_Part] = [AdamW(groups, self.peak, (t.beta1, t.beta2), t.adam_eps)]
        if muon:
            self.parts.append(Muon(muon, self.peak, t.muon_momentum, t.weight_decay))

    def step(self, lr_scale: float) -> None:
        """One update at `lr_scale` of the peak rate."""
        for shared in self.shared:
            shared.gather()
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = self.peak * lr_scale
            part.step()
        for shared in self.shared:
            shared.spread()

    def zero_grad(self) -> None:
        for p in self.names:
            p.grad = None

    def state_tensors(self, keep: bool = True) -> dict[str, Tensor]:
        """State as `{parameter name}/{quantity}`, e.g. `model.norm.weight/exp_avg`.

        Where ranks keep parts of the parameters it is gathered, and every rank calls this.

        Args:
            keep: whether this rank wants what is gathered.
        """
        return {
            f"{self.names[p]}/{quantity}": value if quantity == "step" else gathered(p, value, keep)
            for part in self.parts
            for p, state in part.state.items()
            for quantity, value in state.items()
        }

    def state_pieces(self) -> list[Piece]:
        """This rank's part of what `state_tensors` gathers."""
        return [
            state_piece(self.names[p], quantity, value, p)
            for part in self.parts
            for p, state in part.state.items()
            for quantity, value in state.items()
        ]

    def load_state_tensors(self, tensors: Mapping[str, Readable]) -> None:
        """Restores what `state_tensors` gave; where ranks keep parts, each reads its own.

        Raises:
            CheckpointError: a parameter's state is missing, misshapen, or belongs to none of ours.
        """
        left = dict(tensors)
        if left and not any(SHARED in name for name in left):
            self._share_nothing()  # as the run that saved it: it goes on as it began
        for part in self.parts:
            part.state.clear()  # a run that goes back has state of steps it now forgets
            for p in (p for group in part.param_groups for p in group["params"]):
                keys = {quantity: f"{self.names[p]}/{quantity}" for quantity in part.quantities}
                if not any(key in left for key in keys.values()):
                    continue  # a checkpoint of step 0: no state yet
                state = part.state[p] = {}
                for quantity, key in keys.items():
                    if key not in left:
                        raise CheckpointError(f"optimizer state {key} is missing")
                    value = left.pop(key)
                    if quantity != "step" and (value.shape, value.dtype) != (p.shape, p.dtype):
                        raise CheckpointError(
                            f"optimizer state {key} is {value.dtype} of {tuple(value.shape)}, "
                            f"the parameter {p.dtype} of {tuple(p.shape)}"
                        )
                    own = value[...] if quantity == "step" else part_of(value, p)
                    state[quantity] = own.to(p.device, copy=True)
        if left:
            raise CheckpointError(
                f"optimizer state {min(left)} belongs to no parameter of this optimizer"
            )

    def _share_nothing(self) -> None:
        if self.shared:
            self.parts[0].param_groups.pop()  # theirs is the last of AdamW's groups
        for shared in self.shared:
            del self.names[shared.shared]
        self.shared = []
