"""The precision of matrix products on a CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from jielong.runtime.device import bf16_products, describe

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def with_amx(monkeypatch: pytest.MonkeyPatch, present: bool) -> None:
    capabilities = {"amx_bf16": present}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)


@pytest.mark.parametrize(
    ("name", "device", "amx", "expected"),
    [
        ("auto", CPU, True, True),
        ("auto", CPU, False, False),
        ("float32", CPU, True, False),
        ("bfloat16", CPU, True, False),
        ("auto", GPU, True, False),
    ],
)
def test_auto_takes_bfloat16_products_where_the_cpu_has_units_for_them(
    name: str, device: torch.device, amx: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_amx(monkeypatch, amx)
    matmul: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = matmul.fp32_precision
    with bf16_products(name, device) as found:
        assert found == expected
        assert (matmul.fp32_precision == "bf16") == expected
    assert matmul.fp32_precision == before
    with pytest.raises(ValueError), bf16_products(name, device):
        raise ValueError
    assert matmul.fp32_precision == before
    assert torch.get_float32_matmul_precision() == "highest"  # torch refuses this while it is mixed


def test_products_in_bfloat16_are_near_those_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    with_amx(monkeypatch, True)
    x, w = torch.randn(64, 256), torch.randn(256, 128)
    exact = x.double() @ w.double()
    with bf16_products("auto", CPU):
        found = (x @ w).double()  # in float32 where the CPU has no bfloat16
    assert found.dtype == torch.float64
    assert (found - exact).abs().max() < 0.02 * exact.std()


def test_the_device_line_says_so() -> None:
    assert "float32 with products in bfloat16 (AMX)" in describe(CPU, torch.float32, True)
    assert "products" not in describe(CPU, torch.float32)
