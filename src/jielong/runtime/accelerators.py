"""GPUs by name: how much they compute and hold, from their makers' data sheets."""

from __future__ import annotations

from dataclasses import dataclass

from jielong.errors import ConfigError


@dataclass(frozen=True)
class Accelerator:
    """A GPU.

    Attributes:
        bf16_flops: dense products of bfloat16, summed in float32, a second.
        memory: bytes.
    """

    name: str
    bf16_flops: float
    memory: int


ACCELERATORS = {  # without sparsity; SXM where there are several forms
    "rtx3090": Accelerator("RTX 3090", 71e12, 24 * 2**30),  # GA102 whitepaper, table 9
    "rtx4090": Accelerator("RTX 4090", 165.2e12, 24 * 2**30),  # Ada whitepaper, appendix A
    "a100": Accelerator("A100", 312e12, 80 * 2**30),
    "h100": Accelerator("H100", 989e12, 80 * 2**30),
    "h200": Accelerator("H200", 989e12, 141 * 10**9),
}


def accelerator(name: str) -> Accelerator:
    """Return a GPU by its name, e.g. rtx4090; `RTX 4090` and `4090` are the same.

    Raises:
        ConfigError: it is not known.
    """
    plain = name.lower().replace(" ", "").replace("-", "")
    for known, found in ACCELERATORS.items():
        if plain in (known, known.removeprefix("rtx")):
            return found
    raise ConfigError(f"gpu={name!r} is not one of {', '.join(ACCELERATORS)}")
