"""Peak rates of cards, by the names that drivers give them."""

from __future__ import annotations

import pytest

from jielong.runtime.cards import peak_bf16_flops


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA H100 NVL", 835.0),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA A10G", 70.0),  # not an A10
        ("NVIDIA L40S", 362.0),  # not an L40, nor an L4
        ("h200", 989.4),
    ],
)
def test_a_card_is_found_by_the_longest_name_that_fits(name: str, tflops: float) -> None:
    assert peak_bf16_flops(name) == tflops * 1e12


@pytest.mark.parametrize("name", ["a fake GPU", "Tesla T4", "NVIDIA GeForce RTX 3090 Ti", ""])
def test_of_other_cards_nothing_is_claimed(name: str) -> None:
    assert peak_bf16_flops(name) is None
