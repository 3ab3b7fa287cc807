"""The training loss, computed without holding the logits of a whole batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from jielong.config.settings import IGNORE_INDEX
from jielong.model.soft_targets import SoftTargets
from jielong.runtime.device import compute_dtype

CHUNK_TOKENS = 512  # tokens whose logits are in memory at once: 512 × 6400 floats are 13 MB
# of a chunk's float32 logits on a GPU. Each chunk reads and writes the gradient of the whole head
# once, so small ones would be slow; larger ones than this would only take memory.
GPU_LOGITS_BYTES = 2**28


def chunk_tokens(device: torch.device, compute: torch.dtype, vocab_size: int) -> int:
    """Return how many tokens' logits are computed at once, in products of dtype `compute`."""
    if device.type != "cuda" or compute == torch.float16:  # whose sums over more rows can overflow
        return CHUNK_TOKENS
    fitting = GPU_LOGITS_BYTES // (4 * vocab_size)
    return max(1, fitting // CHUNK_TOKENS) * CHUNK_TOKENS


class _LinearCrossEntropy(torch.autograd.Function):
    """Sum of −log softmax(hidden @ weight.T)[target], chunk by chunk.

    With soft targets the objective is a mixture of that and of the cross-entropy with their
    distributions.

    The forward pass computes the gradients too, while a chunk's logits are in memory. The backward
    pass only scales them (the method of Liger Kernel, Hsu et al. 2024).
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        grad_enabled: bool,
        soft: SoftTargets | None,
    ) -> tuple[Tensor, Tensor]:
        needs_grad = grad_enabled and (hidden.requires_grad or weight.requires_grad)
        compute = compute_dtype(hidden)
        matrix = weight.to(compute)  # (V, H)
        nats = torch.zeros((), dtype=torch.float32, device=hidden.device)
        difference = torch.zeros_like(nats)  # the objective less the nats
        share = soft.share if soft else 0.0
        grad_hidden = torch.empty_like(hidden) if needs_grad else None
        grad_weight = torch.zeros_like(weight) if needs_grad else None
        chunk = chunk_tokens(hidden.device, compute, len(matrix))
        for start in range(0, len(targets), chunk):
            rows = slice(start, start + chunk)
            x, target = hidden[rows].to(compute), targets[rows, None]  # (N, H), (N, 1)
            valid = target != IGNORE_INDEX
            target = target.clamp_min(0)
            logits = (x @ matrix.T).float()  # (N, V): the only wide matrix, modified in place
            largest, target_logit = logits.amax(dim=-1, keepdim=True), logits.gather(1, target)
            taught = None
            if soft is not None:
                taught = soft.of(rows)
                mean = taught.mean(logits)
                difference += torch.where(valid, share * (target_logit - mean), 0.0).sum()
            exponentials = logits.sub_(largest).exp_()
            z = exponentials.sum(dim=-1, keepdim=True)  # (N, 1), at least 1
            nats += torch.where(valid, z.log() + largest - target_logit, 0.0).sum()
            if grad_hidden is not None and grad_weight is not None:
                if compute == torch.float16:  # its maximum is 65504; z can be as large as V
                    exponentials.div_(z)
                    z = torch.ones_like(z)
                # (softmax − one-hot) · z; z and the mask are applied later, to the (N, H) side
                grad = exponentials.scatter_add_(1, target, (share - 1) * z)
                if taught is not None:
                    taught.subtract_from(grad, share * z)
                grad = grad.to(compute)
                scale = (valid / z).to(compute)
                grad_hidden[rows] = (grad @ matrix) * scale
                grad_weight += grad.T @ (x * scale)
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.mark_non_differentiable(nats)
        return nats + difference, nats

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden * grads[0], grad_weight * grads[0], None, None, None


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Compute the summed cross-entropy of the targets, in nats.

    Args:
        hidden: (N, H) last hidden states.
        weight: (V, H) the output head.
        targets: (N,) token ids; `IGNORE_INDEX` marks those that do not count.

    Returns:
        A float32 scalar: the sum, not the mean. Averaging per micro-batch would weight a token by
        how many targets share its micro-batch. If all targets are ignored, it is 0.
    """
    return distillation_loss(hidden, weight, targets, None)[0]


def distillation_loss(
    hidden: Tensor, weight: Tensor, targets: Tensor, soft: SoftTargets | None
) -> tuple[Tensor, Tensor]:
    """Compute a loss of the targets and of soft targets.

    Args:
        hidden, weight, targets: as in `linear_cross_entropy`.
        soft: distributions that are learnt too; without them, only the targets count.

    Returns:
        The objective, (1 − share) · cross-entropy of the targets + share · cross-entropy with the
        soft targets, and the cross-entropy of the targets alone, which has no gradient;
        both summed over the targets that count, in nats.
    """
    # autograd is always off inside `forward`, so it cannot see there whether gradients are needed
    grad_enabled = torch.is_grad_enabled()
    return _LinearCrossEntropy.apply(hidden, weight, targets, grad_enabled, soft)
