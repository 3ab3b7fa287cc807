"""Mixture of experts: a router, routed SwiGLU experts, and optional shared experts.

Checkpoints use the names of Qwen3-MoE (`mlp.gate`, `mlp.experts.N`) and, for shared experts, of
MiniMind2-MoE (`mlp.shared_experts.N`). In memory the matrices of all experts are stacked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jielong.config.model import ModelConfig
from jielong.model.feedforward import FeedForward
from jielong.model.grouped import combine_rows, gather_rows, grouped_linear, has_kernel
from jielong.runtime.device import compute_dtype, without_autocast
from jielong.runtime.parts import is_sharded

PROJECTIONS = ("gate_proj", "up_proj", "down_proj")  # of an expert


@dataclass
class Routing:
    """A layer's routing decisions.

    Attributes:
        logits: (B, T, E) float32.
        scores: (B, T, E) float32, the softmax of the logits.
        experts: (B, T, k), the chosen experts.
        weights: (B, T, k), the weights of their outputs.
    """

    logits: Tensor
    scores: Tensor
    experts: Tensor
    weights: Tensor


# What layers append their routing to. No list: FSDP copies lists that a layer is given.
Routings = deque[Routing]


class Router(nn.Linear):
    """Softmax over the experts, then the top k (Fedus et al. 2021; Lepikhin et al. 2020).

    With one expert per token, normalised weights are always 1, so the language-model loss would not
    train the router. `norm_topk_prob` is therefore off by default in that case.

    `e_score_correction_bias` (E,) exists if `router_aux_loss = "bias"`. It is added to the scores
    when experts are chosen, never to the weights (Wang et al. 2024; DeepSeek-V3).
    """

    e_score_correction_bias: Tensor | None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config.hidden_size, config.num_experts, bias=False)
        self.top_k, self.normalize = config.num_experts_per_tok, config.normalizes_topk
        has_bias = config.router_aux_loss == "bias"
        bias = torch.zeros(config.num_experts) if has_bias else None
        self.register_buffer("e_score_correction_bias", bias)
        self.bias_rate = config.bias_rate

    def forward(self, x: Tensor) -> Routing:  # type: ignore[override]
        """Route x (B, T, H), in float32 throughout: a rounded score can change the choice."""
        with without_autocast(x.device):
            logits = F.linear(x.float(), self.weight.float())  # (B, T, E)
            scores = logits.softmax(dim=-1)
            ranked = scores
            if self.e_score_correction_bias is not None:
                ranked = scores + self.e_score_correction_bias
            experts = ranked.topk(self.top_k, dim=-1).indices  # (B, T, k)
            weights = scores.gather(-1, experts)
            if self.normalize:
                weights = weights / weights.sum(dim=-1, keepdim=True)
        return Routing(logits, scores, experts, weights)


class Experts(nn.Module):
    """E SwiGLU experts as stacked matrices; each expert sees only the tokens routed to it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        E, H, width = config.num_experts, config.hidden_size, config.expert_size
        self.gate_proj = nn.Parameter(torch.empty(E, width, H).normal_(std=0.02))
        self.up_proj = nn.Parameter(torch.empty(E, width, H).normal_(std=0.02))
        self.down_proj = nn.Parameter(torch.empty(E, H, width).normal_(std=0.02))
        self.grouped_linear = grouped_linear
        self.register_state_dict_post_hook(_split_experts)
        self.register_load_state_dict_pre_hook(_join_experts)

    def keep_uncompiled(self, device: torch.device, dtype: torch.dtype) -> None:
        """Exclude `grouped_linear` from torch.compile where it would recompile for each group size.

        torch.compile traces `F.grouped_mm` in bfloat16 only. This is not done at import, because
        it loads the compiler, which takes a second.
        """
        stacks = self.gate_proj, self.down_proj
        if dtype != torch.bfloat16 or not all(has_kernel(device, dtype, w) for w in stacks):
            self.grouped_linear = torch.compiler.disable(grouped_linear)

    def forward(self, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        """Return Σ weight · expert(x) over each token's k experts; no token is dropped.

        Args:
            x: (N, H).
            experts, weights: (N, k).
        """
        N, k = experts.shape
        E = len(self.down_proj)
        x = x.to(compute_dtype(x))
        choices = experts.flatten()  # (N·k,)
        if torch.is_grad_enabled():
            # one extra row per expert, whose output is not used: on an empty group, grouped
            # kernels hang or write garbage into the gradient, and DDP expects every gradient
            choices = torch.cat([choices, torch.arange(E, device=x.device)])
        ordered, order = choices.sort(stable=True)
        ends = torch.searchsorted(
            ordered, torch.arange(E, device=x.device), right=True, out_int32=True
        )
        token_of_row = (order // k).clamp(max=N - 1)  # (N·k + E,) the token of each row
        row_of_choice = order.argsort()[: N * k].view(N, k)  # the row of each choice
        rows = gather_rows(x, token_of_row, row_of_choice)
        linear = self.grouped_linear
        gate = F.silu(linear(rows, self.gate_proj, ends))
        out = linear(gate * linear(rows, self.up_proj, ends), self.down_proj, ends)
        return combine_rows(out, weights.to(out.dtype), token_of_row, row_of_choice)


class MixtureOfExperts(nn.Module):
    """The feed-forward layer of Qwen3-MoE, plus ungated shared experts if configured."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = Router(config)
        self.experts = Experts(config)
        self.shared_experts = nn.ModuleList(
            FeedForward(config.hidden_size, config.expert_size)
            for _ in range(config.num_shared_experts)
        )

    def forward(self, x: Tensor, routings: Routings | None = None) -> Tensor:
        """Apply the layer: x (B, T, H) → (B, T, H); append its routing to `routings`."""
        routing = self.gate(x)
        if routings is not None:
            routings.append(routing)
        out = self.experts(
            x.flatten(0, 1), routing.experts.flatten(0, 1), routing.weights.flatten(0, 1)
        )
        out = out.view(x.shape)
        for expert in self.shared_experts:
            out = out + expert(x)
        return out


def load_balancing_loss(
    routings: Iterable[Routing],
    counted: Tensor,
    config: ModelConfig,
    reference_load: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute the routers' auxiliary losses and the load of each expert.

    The loss is summed over layers and includes the coefficients. Tokens that do not count, such as
    padding, contribute to neither result. With a `reference_load` the loss is linear in the tokens:
    the losses of the micro-batches, weighted by their counted tokens, add up to that of the batch.

    Args:
        routings: one per layer.
        counted: (B, T) bool.
        reference_load: (layers, E), how often each expert was chosen in the batch to balance. In
            training this is the global batch of the previous update. Default: these tokens.

    Returns:
        The loss, a scalar mean over counted tokens; and the load (layers, E), how often each expert
        was chosen.
    """
    k = config.num_experts_per_tok
    ones = counted.float().repeat_interleave(k, dim=1)  # (B, T·k)
    blank = ones.new_zeros(len(counted), config.num_experts)
    rows = torch.stack(
        [blank.scatter_add(1, routing.experts.flatten(1), ones) for routing in routings]
    )  # (layers, B, E)
    load = rows.sum(dim=1)
    reference = load if reference_load is None else reference_load
    tokens = reference.sum(dim=1, keepdim=True) / k
    shares = reference / tokens.clamp_min(1)  # of the tokens; Σ over E is k
    losses = [
        router_loss(*layer, counted, config) for layer in zip(routings, rows, shares, strict=True)
    ]
    return torch.stack(losses).sum(), load


def router_loss(
    routing: Routing, row_load: Tensor, shares: Tensor, counted: Tensor, config: ModelConfig
) -> Tensor:
    """Compute one layer's auxiliary losses, as a mean over the counted tokens.

    `batch` is E · Σ fᵢ · Pᵢ, where fᵢ is the share of tokens that chose expert i and Pᵢ its mean
    score (Switch, Fedus et al. 2021); it is k when balanced. f is taken from a whole global batch
    (Qiu et al. 2025, arXiv:2501.11873). `sequence` uses f / k and P of each row, and averages over
    rows, weighted by their tokens (DeepSeekMoE, Dai et al. 2024); it is 1 when balanced. The z-loss
    is the mean of logsumexp(logits)² (ST-MoE, Zoph et al. 2022).

    Args:
        row_load: (B, E), how often each expert was chosen in each row.
        shares: (E,), f above.
        counted: (B, T) bool.
    """
    E, k = config.num_experts, config.num_experts_per_tok
    tokens = counted.sum(dim=1, keepdim=True)  # (B, 1)
    n = tokens.sum().clamp_min(1)
    score_sum = (routing.scores * counted[..., None]).sum(dim=1)  # (B, E)
    total = shares.new_zeros(())
    if config.router_aux_loss == "batch":
        total = total + config.aux_coef * E * (shares * score_sum.sum(dim=0)).sum() / n
    elif config.router_aux_loss == "sequence":
        row_shares = row_load / (k * tokens).clamp_min(1)
        total = total + config.aux_coef * E * (row_shares * score_sum).sum() / n
    if config.router_z_loss_coef:
        squares = routing.logits.logsumexp(dim=-1).square() * counted
        total = total + config.router_z_loss_coef * squares.sum() / n
    return total


@torch.no_grad()
def update_router_bias(model: nn.Module, load: Tensor) -> None:
    """Move each router's bias by a fixed step towards a balanced load, after an optimizer step.

    Routers without a bias are left as they are.

    Args:
        load: (layers, E), how often each expert was chosen in the global batch; equal on all ranks.
    """
    routers = [module for module in model.modules() if isinstance(module, Router)]
    for router, counts in zip(routers, load, strict=True):
        if router.e_score_correction_bias is not None:
            step = (counts.mean() - counts).sign()
            router.e_score_correction_bias.add_(step, alpha=router.bias_rate)


def _split_experts(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    """Replace each stack by a named view per expert; copying into a view fills the stack.

    A stack of which ranks keep parts stays as it is: `split_stacks` is for when it is gathered.
    """
    if not is_sharded(state[prefix + PROJECTIONS[0]]):
        _split(state, prefix)


def _split(state: dict[str, Any], prefix: str) -> None:
    for part in PROJECTIONS:
        for expert, matrix in enumerate(state.pop(prefix + part)):
            state[f"{prefix}{expert}.{part}.weight"] = matrix


def split_stacks(state: dict[str, Tensor]) -> None:
    """Replace each stack of experts' matrices, by parameter name, by a named view per expert."""
    ending = "mlp.experts." + PROJECTIONS[0]
    for prefix in [n.removesuffix(PROJECTIONS[0]) for n in state if n.endswith(ending)]:
        _split(state, prefix)


def expert_names(name: str, experts: Iterable[int]) -> list[str] | None:
    """Return the names that a folder gives to matrices of a stack of experts.

    Args:
        name: of a parameter; where it is no such stack the result is None.
        experts: whose matrices.
    """
    prefix, _, part = name.rpartition(".")
    if not prefix.endswith("mlp.experts"):
        return None
    return [f"{prefix}.{expert}.{part}.weight" for expert in experts]


def _join_experts(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Undo `_split_experts`; if an expert is missing, torch reports its stack as missing."""
    for part in PROJECTIONS:
        names = [f"{prefix}{expert}.{part}.weight" for expert in range(len(getattr(module, part)))]
        if all(name in state for name in names):
            state[prefix + part] = torch.stack([state.pop(name) for name in names])
