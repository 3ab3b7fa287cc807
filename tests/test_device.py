"""The precision of matrix products on a CPU."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

from jielong.runtime.device import bf16_products, describe
from tiny import environment

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


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "1000"),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, None),
    ],
)
def test_threads_spin_shortly_unless_the_user_has_said_how_they_wait(
    given: dict[str, str], expected: str | None
) -> None:
    say = "import os, jielong; print(os.environ.get('GOMP_SPINCOUNT'))"
    named = {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}
    env = {k: v for k, v in environment().items() if k not in named} | given
    found = subprocess.run([sys.executable, "-c", say], env=env, capture_output=True, text=True)
    assert found.stdout.strip() == str(expected), found.stderr


def test_the_device_line_says_so() -> None:
    assert "float32 with products in bfloat16 (AMX)" in describe(CPU, torch.float32, True)
    assert "products" not in describe(CPU, torch.float32)
