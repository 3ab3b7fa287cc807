"""One row through a linear layer, whichever way it is multiplied."""

from __future__ import annotations

import pytest
import torch

from jielong.model.linear import Linear


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("shape", [(24,), (1, 24), (1, 1, 24), (5, 24), (2, 3, 24)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("grad", [False, True])
def test_it_is_the_product_that_torch_gives(
    threads: int, shape: tuple[int, ...], dtype: torch.dtype, grad: bool
) -> None:
    before = torch.get_num_threads()
    torch.manual_seed(0)
    layer = Linear(24, 16, bias=False).to(dtype)
    x = torch.randn(shape, dtype=dtype)
    torch.set_num_threads(threads)  # 3 does not divide 16
    try:
        with torch.set_grad_enabled(grad):
            got = layer(x)
    finally:
        torch.set_num_threads(before)
    assert got.shape == (*shape[:-1], 16) and got.dtype == dtype
    assert got.requires_grad == grad
    torch.testing.assert_close(
        got.detach(), (x.float() @ layer.weight.float().T).to(dtype).detach()
    )
