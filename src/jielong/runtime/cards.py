"""What GPUs can do, by name: the peak rate of their matrix products in bfloat16, and memory."""

from __future__ import annotations

import re
from dataclasses import dataclass

from jielong.errors import ConfigError

# Dense TFLOP/s with float32 sums, from the makers' data sheets. A card is named as its driver does,
# and the longest name that fits counts: "NVIDIA H100 PCIe" is not an H100 of the SXM form.
PEAK_BF16_TFLOPS = {
    "A10": 125.0,
    "A10G": 70.0,
    "A30": 165.0,
    "A40": 149.7,
    "A100": 312.0,
    "A800": 312.0,
    "B200": 2250.0,
    "GB200": 2500.0,
    "GH200": 989.4,
    "H20": 148.0,
    "H100": 989.4,
    "H100 NVL": 835.0,
    "H100 PCIe": 756.0,
    "H200": 989.4,
    "H800": 989.4,
    "L4": 121.0,
    "L40": 181.0,
    "L40S": 362.0,
    "RTX 3090": 71.0,
    "RTX 4090": 165.2,
    "RTX 5090": 209.5,
    "RTX A6000": 154.8,
}


def peak_bf16_flops(card: str) -> float | None:
    """Return the peak FLOP/s of a card's bfloat16 matrix products; None if it is not known.

    Args:
        card: its name, as `torch.cuda.get_device_name` or a data sheet gives it.
    """
    words = " ".join(re.split(r"[\s-]+", card)).lower()
    others = r"(?! (?:ti|super|d|laptop|mobile|max)\b)"  # cards of the same name and another speed
    fitting = [
        name for name in PEAK_BF16_TFLOPS if re.search(rf"\b{name.lower()}\b{others}", words)
    ]
    if not fitting:
        return None
    return PEAK_BF16_TFLOPS[max(fitting, key=len)] * 1e12


@dataclass(frozen=True)
class Card:
    """A GPU that is planned for: `bf16_flops` are a second, `memory` is in bytes."""

    name: str
    bf16_flops: float
    memory: int


CARDS = {  # the largest memory of each, of the SXM form where there are several
    "rtx3090": ("RTX 3090", 24 * 2**30),
    "rtx4090": ("RTX 4090", 24 * 2**30),
    "a100": ("A100", 80 * 2**30),
    "h100": ("H100", 80 * 2**30),
    "h200": ("H200", 141 * 10**9),
}


def card_named(name: str) -> Card:
    """Return a GPU by its name, e.g. rtx4090; `RTX 4090` and `4090` are the same.

    Raises:
        ConfigError: it is not one of CARDS.
    """
    plain = name.lower().replace(" ", "").replace("-", "")
    for known, (card, memory) in CARDS.items():
        if plain in (known, known.removeprefix("rtx")):
            return Card(card, PEAK_BF16_TFLOPS[card] * 1e12, memory)
    raise ConfigError(f"gpu={name!r} is not one of {', '.join(CARDS)}")
