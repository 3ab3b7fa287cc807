"""How much of a GPU's arithmetic a run uses, and its memory."""

from __future__ import annotations

import re
import sys

import torch

from jielong.config.model import ModelConfig

# Dense products of bfloat16 or float16 with sums in float32, FLOPs per second, as in the makers'
# data sheets; the first name that is part of the GPU's counts.
PEAK_FLOPS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
    "RTX A6000": 155e12,
    "RTX 5090": 210e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
    "V100": 125e12,
    "T4": 65e12,
}


def peak_flops(device: torch.device, dtype: torch.dtype) -> float | None:
    """FLOPs per second that a GPU can do at most; None where that is not known."""
    if device.type != "cuda" or dtype == torch.float32:
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAK_FLOPS.items() if _has(name, part)), None)


def _has(name: str, part: str) -> bool:
    return re.search(rf"\b{re.escape(part)}\b", name) is not None


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
