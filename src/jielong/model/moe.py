"""Mixture of experts: a router, routed SwiGLU experts, and optional shared ones.

Names in a checkpoint are those of Qwen3-MoE (`mlp.gate`, `mlp.experts.N`) and, for shared experts,
of MiniMind2-MoE (`mlp.shared_experts.N`). In memory the experts are stacks of matrices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jielong.config.model import ModelConfig
from jielong.model.feedforward import FeedForward
from jielong.model.grouped import combine_rows, gather_rows, grouped_linear, has_kernel
from jielong.runtime.device import compute_dtype, without_autocast

PARTS = ("gate_proj", "up_proj", "down_proj")  # of an expert


@dataclass
class Routing:
    """Where a layer's router sends each token.

    `logits`, `scores`: (B, T, E) in float32, scores being the softmax; `experts`, `weights`:
    (B, T, k), the experts chosen and the factors of their outputs.
    """

    logits: Tensor
    scores: Tensor
    experts: Tensor
    weights: Tensor


class Router(nn.Linear):
    """Softmax over the experts, then the top k (Fedus et al. 2021; Lepikhin et al. 2020).

    With one expert a token, normalised weights are the constant 1 and the language-model loss then
    trains no router; hence `norm_topk_prob` is off by default there.

    `e_score_correction_bias` (E,) exists with `router_aux_loss = "bias"`: added to the scores for
    the choice only, never for the weights (Wang et al. 2024; DeepSeek-V3).
    """

    e_score_correction_bias: Tensor | None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config.hidden_size, config.num_experts, bias=False)
        self.top_k, self.normalize = config.num_experts_per_tok, config.normalizes_topk
        corrects = config.router_aux_loss == "bias"
        bias = torch.zeros(config.num_experts) if corrects else None
        self.register_buffer("e_score_correction_bias", bias)
        self.bias_rate = config.bias_rate

    def forward(self, x: Tensor) -> Routing:  # type: ignore[override]
        """x (B, T, H); float32 throughout, since a rounded score changes the choice."""
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
    """E SwiGLU layers, as stacks of matrices, each run on its own tokens only."""

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
        """Takes out of torch.compile what it would compile anew for each size of a group.

        It traces `F.grouped_mm` in bfloat16 only. Not done at import: it loads the compiler, which
        takes a second.
        """
        stacks = self.gate_proj, self.down_proj
        if dtype != torch.bfloat16 or not all(has_kernel(device, dtype, w) for w in stacks):
            self.grouped_linear = torch.compiler.disable(grouped_linear)

    def forward(self, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        """Σ weight · expert(x) over each token's k experts; no token is dropped.

        Args:
            x: (N, H).
            experts, weights: (N, k).
        """
        N, k = experts.shape
        E = len(self.down_proj)
        x = x.to(compute_dtype(x))
        choices = experts.flatten()  # (N·k,)
        if torch.is_grad_enabled():
            # one more row for each expert, whose output no one reads: grouped kernels hang or
            # leave rubbish in the gradient where a group is empty, and DDP wants every gradient
            choices = torch.cat([choices, torch.arange(E, device=x.device)])
        ordered, order = choices.sort(stable=True)
        ends = torch.searchsorted(
            ordered, torch.arange(E, device=x.device), right=True, out_int32=True
        )
        sources = (order // k).clamp(max=N - 1)  # (N·k + E,) the token of each row
        places = order.argsort()[: N * k].view(N, k)  # the row of each choice
        rows = gather_rows(x, sources, places)
        linear = self.grouped_linear
        gate = F.silu(linear(rows, self.gate_proj, ends))
        out = linear(gate * linear(rows, self.up_proj, ends), self.down_proj, ends)
        return combine_rows(out, weights.to(out.dtype), sources, places)


class MixtureOfExperts(nn.Module):
    """The feed-forward layer of a Qwen3-MoE, with ungated shared experts if the config has any."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = Router(config)
        self.experts = Experts(config)
        self.shared_experts = nn.ModuleList(
            FeedForward(config.hidden_size, config.expert_size)
            for _ in range(config.num_shared_experts)
        )

    def forward(self, x: Tensor, routings: list[Routing] | None = None) -> Tensor:
        """x (B, T, H) → (B, T, H); appends what the router did to `routings`."""
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


def balance(
    routings: list[Routing],
    counted: Tensor,
    config: ModelConfig,
    reference_load: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The routers' losses, summed over layers and times their coefficients, and the load.

    Tokens that count nothing, such as padding, have no part in either. With a `reference_load`
    the loss is linear in the tokens: the losses of the parts of a batch, weighted by their
    numbers of counted tokens, add up to the loss of the whole.

    Args:
        routings: one of each layer.
        counted: (B, T) bool.
        reference_load: (layers, E), how often each expert was chosen in the batch to be balanced:
            in training the global batch of the previous update. Default: in these tokens.

    Returns:
        A scalar, a mean over counted tokens; and the load (layers, E): choices of each expert.
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
    shares = reference / tokens.clamp_min(1)  # of tokens: Σ over E is k
    losses = [
        router_loss(*layer, counted, config) for layer in zip(routings, rows, shares, strict=True)
    ]
    return torch.stack(losses).sum(), load


def router_loss(
    routing: Routing, row_load: Tensor, shares: Tensor, counted: Tensor, config: ModelConfig
) -> Tensor:
    """One layer's auxiliary losses: a mean over the counted tokens.

    `batch` is E · Σ fᵢ · Pᵢ with f the share of tokens that chose expert i and P its mean score,
    (Switch, Fedus et al. 2021): k when balanced. f is that of a whole global batch (Qiu et al.
    2025, arXiv:2501.11873). `sequence` takes f / k and P within each row, then the mean over rows,
    by their tokens (DeepSeekMoE, Dai et al. 2024): 1 when balanced. The z-loss is the mean of
    logsumexp(logits)² (ST-MoE, Zoph et al. 2022).

    Args:
        row_load: (B, E) choices of each expert in each row.
        shares: (E,) f.
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
    """Moves each router's bias by a fixed step towards balance, after an optimizer step.

    Nothing happens to a model whose routers have none.

    Args:
        load: (layers, E) choices in the whole global batch, the same on every rank.
    """
    routers = [module for module in model.modules() if isinstance(module, Router)]
    for router, counts in zip(routers, load, strict=True):
        if router.e_score_correction_bias is not None:
            step = (counts.mean() - counts).sign()
            router.e_score_correction_bias.add_(step, alpha=router.bias_rate)


def _split_experts(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    """Stacks → one matrix a name, as views, so that copying into them fills the stacks."""
    for part in PARTS:
        for expert, matrix in enumerate(state.pop(prefix + part)):
            state[f"{prefix}{expert}.{part}.weight"] = matrix


def _join_experts(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """The way back; where an expert is missing, torch then reports its stack as missing."""
    for part in PARTS:
        names = [f"{prefix}{expert}.{part}.weight" for expert in range(len(getattr(module, part)))]
        if all(name in state for name in names):
            state[prefix + part] = torch.stack([state.pop(name) for name in names])
