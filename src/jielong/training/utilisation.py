"""How much of a GPU's arithmetic a run uses, and its memory."""

from __future__ import annotations

import sys

import torch

from jielong.config.model import ModelConfig
from jielong.runtime.cards import peak_bf16_flops


def peak_flops(device: torch.device, dtype: torch.dtype) -> float | None:
    """FLOPs per second that a GPU can do at most; None where that is not known."""
    if device.type != "cuda" or dtype == torch.float32:
        return None
    return peak_bf16_flops(torch.cuda.get_device_name(device))


def flops_per_token(model: ModelConfig, active_parameters: int, attended: float) -> float:
    """FLOPs of a forward and a backward pass of one token: 6N + 12LHQT, halved where causal.

    Chowdhery et al. 2022 (PaLM), appendix B. Looking up an embedding takes none.

    Args:
        active_parameters: those that a token passes.
        attended: tokens of what it attends within: its window or document.
    """
    passed = active_parameters
    if not model.tie_word_embeddings:
        passed -= model.vocab_size * model.hidden_size
    width = model.num_attention_heads * model.head_size
    return 6.0 * passed + 12.0 * model.num_hidden_layers * width * attended / 2


def memory_used(device: torch.device) -> int | None:
    """Bytes that this process has used at most: of the GPU, or of the host; None if unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else 1024 * largest
