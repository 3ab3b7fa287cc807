"""The products and the precision that are fastest on this machine."""

from __future__ import annotations

import math
import platform

import torch

from jielong.runtime.device import (
    bfloat16_width,
    choose_dtype,
    dtype_of_any_width,
    fast_products,
)

CPU = torch.device("cpu")


def test_fast_products_have_the_precision_of_float32():
    generator = torch.Generator().manual_seed(0)
    for rows, inner, columns in ((512, 192, 640), (64, 48, 1000), (1, 64, 64)):
        a = torch.randn(rows, inner, generator=generator, requires_grad=True)
        b = torch.randn(columns, inner, generator=generator, requires_grad=True)
        exact = a.detach().double() @ b.detach().double().mT
        with fast_products():
            product = torch.nn.functional.linear(a, b)
            product.sum().backward()
        assert (product.double() - exact).abs().max() < 1e-5 * exact.abs().max()
        expected = b.detach().double().sum(0).expand(rows, inner)
        assert (a.grad.double() - expected).abs().max() < 1e-5 * expected.abs().max()


def test_outside_of_fast_products_torch_is_as_it_was_also_after_an_error():
    switch = torch.backends.mkldnn.matmul
    before = switch.fp32_precision
    try:
        with fast_products():
            raise ValueError
    except ValueError:
        pass
    assert switch.fp32_precision == before


def test_a_narrow_model_trains_in_float32_on_every_cpu():
    assert choose_dtype("auto", CPU, width=64) == torch.float32


def test_a_wide_model_trains_in_bfloat16_where_the_cpu_has_instructions_for_it():
    expected = torch.float32 if math.isinf(bfloat16_width()) else torch.bfloat16
    assert choose_dtype("auto", CPU, width=4096) == expected
    if platform.machine() == "x86_64" and not torch.cpu._is_avx512_supported():
        assert expected == torch.float32


def test_a_precision_that_is_asked_for_is_that_of_any_width():
    assert dtype_of_any_width("float32", CPU) == torch.float32
    assert dtype_of_any_width("bfloat16", CPU) == torch.bfloat16
    known = dtype_of_any_width("auto", CPU)
    assert known == (torch.float32 if math.isinf(bfloat16_width()) else None)
