"""A GPU without a GPU: tensors on it have shape, dtype and device, but no data.

Whatever stays on the CPU is real. What is put on `cuda` becomes a FakeTensor, so CUDA's own
autocast, shape and device rules hold for it, and what is read back from there is all ones. So a
whole run can be driven through the paths that only a GPU takes, and `Kernels` checks what the real
kernels would be given: they refuse, say, queries and keys of two dtypes, which no CPU does.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo  # before torch.Generator is another class
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map_only

from jielong.model import grouped
from jielong.model.transformer import Transformer

HALF = (torch.bfloat16, torch.float16)
CPU_SLOT, CUDA_SLOT = 0, 1  # of torch's table of devices
aten = torch.ops.aten


class FakeGpu(FakeTensorMode):
    """Operators on `cuda` tensors are fake, all others real; counts those that kernels run."""

    avoid_device_init = True  # whatever torch.cuda.is_available() has been told to say

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)
        self.kernels: Counter[tuple[str, torch.dtype]] = Counter()
        self.host_reads = 0  # for which the host waits until the device has done all before

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        flat, _ = tree_flatten((args, kwargs))
        tensors = [x for x in flat if isinstance(x, Tensor)]
        fake = [x for x in tensors if isinstance(x, FakeTensor)]
        target = kwargs.get("device")
        to_gpu = target is not None and torch.device(target).type == "cuda"
        if not fake and not to_gpu:
            return func(*args, **kwargs)
        if tensors and not fake:  # on its way to the GPU: its data stays behind
            args, kwargs = tree_map_only(Tensor, self.from_tensor, (args, kwargs))
        if func is aten._local_scalar_dense.default:
            self.host_reads += 1
            return {torch.bool: True}.get(args[0].dtype, 1.0 if args[0].is_floating_point() else 1)
        if fake and target is not None and torch.device(target).type == "cpu":
            self.host_reads += 1
            with torch.utils._python_dispatch._disable_current_modes():
                dtype = kwargs.get("dtype") or fake[0].dtype
                return torch.ones(fake[0].shape, dtype=dtype)
        check(func, args, kwargs, tensors)
        if fake:
            floats = [x.dtype for x in fake if x.is_floating_point()]
            self.kernels[func.name(), floats[0] if floats else fake[0].dtype] += 1
        return super().__torch_dispatch__(func, types, args, kwargs)


def check(func: Any, args: Any, kwargs: Any, tensors: Sequence[Tensor]) -> None:
    """What the CUDA kernel behind an operator asks of its inputs.

    Raises:
        AssertionError: the real kernel would refuse them.
    """
    name = func.name()
    if func is not aten._to_copy.default and func is not aten.copy_.default:
        homes = {x.device for x in tensors if x.ndim}
        assert len(homes) <= 1, f"{name}: tensors on {homes}"
    if "varlen_attn" in name and "backward" not in name:
        q, k, v, starts, ends = args[:5]
        assert q.dtype == k.dtype == v.dtype and q.dtype in HALF, f"{name}: {q.dtype} {k.dtype}"
        assert starts.dtype == ends.dtype == torch.int32
        assert q.ndim == k.ndim == v.ndim == 3 and q.shape[-1] % 8 == 0 and q.shape[-1] <= 256
        assert all(x.stride(-1) == 1 for x in (q, k, v))
    elif name.startswith("aten::_grouped_mm"):
        a, b = args[:2]
        assert a.dtype == b.dtype, f"{name}: {a.dtype} and {b.dtype}"
        for x in (a, b):  # rows, or columns, begin at multiples of 16 bytes
            wide = max(s for s in x.stride()[-2:])
            assert wide * x.element_size() % 16 == 0 and 1 in x.stride()[-2:]
    elif name.startswith("aten::_fused_adamw_"):
        assert {x.dtype for x in tensors} == {torch.float32}
    elif name.startswith("aten::_embedding_bag") and kwargs.get("per_sample_weights") is not None:
        assert args[0].dtype == kwargs["per_sample_weights"].dtype


class Calls(TorchFunctionMode):
    """Checks calls of torch's attention, which fake tensors decompose before they are seen.

    And gives the device its index, for which torch would ask the GPU's driver.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.to:
            args, kwargs = tree_map_only((str, torch.device), _with_index, (args, kwargs))
        if func is F.scaled_dot_product_attention and args[0].device.type == "cuda":
            q, k, v = args[:3]
            mask = args[3] if len(args) > 3 else kwargs.get("attn_mask")
            if not torch.is_autocast_enabled("cuda"):  # which casts all three
                assert q.dtype == k.dtype == v.dtype
            half = torch.is_autocast_enabled("cuda") or q.dtype in HALF
            # the fused kernels that take a mask or float32 do not share key heads: torch would
            # silently compute a (T, T) matrix of scores
            assert q.shape[1] == k.shape[1] or (half and mask is None)
            assert mask is None or mask.device == q.device
        return func(*args, **kwargs)


def _with_index(device: str | torch.device) -> str | torch.device:
    return torch.device("cuda", 0) if str(device) == "cuda" else device


def gradients(outputs: Sequence[Tensor], grads: Sequence[Tensor]) -> dict[Tensor, Tensor]:
    """Gradient of each leaf, node by node: torch's engine needs a build with the device's streams.

    Does as the engine does: sums over broadcast dimensions, casts to the input's dtype.
    """
    order: list[Any] = []
    seen: set[Any] = set()

    def visit(node: Any) -> None:
        stack = [(node, False)]
        while stack:
            node, done = stack.pop()
            if done:
                order.append(node)
            elif node not in seen:
                seen.add(node)
                stack.append((node, True))
                stack.extend((before, False) for before, _ in node.next_functions if before)

    waiting: dict[Any, dict[int, Tensor]] = defaultdict(dict)
    for output, grad in zip(outputs, grads, strict=True):
        visit(output.grad_fn)
        waiting[output.grad_fn][output.output_nr] = grad
    leaves: dict[Tensor, Tensor] = {}
    with torch.no_grad():
        for node in reversed(order):
            arrived = waiting.pop(node, {})
            if not arrived:  # every gradient that leads here is zero: torch passes none either
                continue
            if hasattr(node, "variable"):
                assert arrived[0].device == node.variable.device
                leaves[node.variable] = arrived[0].to(node.variable.dtype)
                continue
            inputs = [arrived.get(i) for i in range(len(node._input_metadata))]
            results = node.apply(*inputs) if hasattr(node, "_forward_cls") else node(*inputs)
            results = results if isinstance(results, tuple) else (results,)
            for (before, place), grad in zip(node.next_functions, results, strict=False):
                if before is None or grad is None:
                    continue
                wanted = before._input_metadata[place]
                grad = grad.sum_to_size(wanted.shape).to(wanted.dtype)
                known = waiting[before].get(place)
                waiting[before][place] = grad if known is None else known + grad
    return leaves


_backward_passes = 0


def _backward(loss: Tensor) -> None:
    global _backward_passes
    _backward_passes += 1
    assert not torch.is_autocast_enabled("cuda"), "backward passes belong outside of autocast"
    for leaf, grad in gradients([loss], [torch.ones_like(loss)]).items():
        leaf.grad = grad if leaf.grad is None else leaf.grad + grad


def _autograd_grad(output: Tensor, inputs: Sequence[Tensor], grad: Tensor) -> list[Tensor]:
    leaves = gradients([output], [grad])
    return [leaves[x] for x in inputs]


@contextlib.contextmanager
def _device_guard() -> Iterator[None]:
    """Lets a build of torch without CUDA switch to the device `cuda`: it has nothing to switch.

    Raises:
        pytest.skip.Exception: torch's table of devices is not to be found in this build.
    """
    torch._C._ensureCUDADeviceGuardSet()  # all that a build with CUDA needs
    if torch.version.cuda:
        yield
        return
    suffix = {"darwin": "dylib", "win32": "dll"}.get(sys.platform, "so")
    library = Path(torch.__file__).parent / "lib" / f"libc10.{suffix}"
    try:
        table = (ctypes.c_void_p * 2).in_dll(
            ctypes.CDLL(str(library)), "_ZN3c104impl26device_guard_impl_registryE"
        )
    except (OSError, ValueError):
        pytest.skip("this build of torch has no table of devices by that name")
    before = table[CUDA_SLOT]
    table[CUDA_SLOT] = table[CPU_SLOT]
    try:
        yield
    finally:
        table[CUDA_SLOT] = before


class _Generator(torch.Generator):
    """Of any device; a fake tensor draws nothing from it."""

    def __new__(cls, device: Any = "cpu") -> _Generator:
        return super().__new__(cls)


def _groups_alike(rows: Tensor, weights: Tensor, ends: Tensor) -> Tensor:
    """`grouped._loop` with groups of one size: the real ones would have to be read back."""
    groups = zip(rows.tensor_split(len(weights)), weights.unbind(), strict=True)
    return torch.cat([F.linear(group, weight) for group, weight in groups])


@contextlib.contextmanager
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGpu]:
    """Within, torch sees one GPU of compute capability 9.0, whose tensors are fake."""
    for name, value in {
        "is_available": True,
        "is_bf16_supported": True,
        "get_device_capability": (9, 0),
        "get_device_name": "a fake GPU",
        "current_device": 0,
        "empty_cache": None,
        "max_memory_allocated": 2**30,
        "get_rng_state": torch.get_rng_state(),
        "set_rng_state": None,
        "synchronize": None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value, **__: value)
    real_to = nn.Module.to
    monkeypatch.setattr(torch, "Generator", _Generator)
    monkeypatch.setattr(Tensor, "pin_memory", lambda x: x)
    monkeypatch.setattr(Tensor, "backward", _backward)
    monkeypatch.setattr(torch.autograd, "grad", _autograd_grad)
    # by which layers that are computed again know that one backward pass asks several times
    monkeypatch.setattr(torch._C, "_current_graph_task_id", lambda: _backward_passes)

    def to(model: Transformer, *args: Any, **kwargs: Any) -> Transformer:
        real_to(model, *args, **kwargs)
        model.tie_weights()  # real tensors stay one when they move
        return model

    monkeypatch.setattr(Transformer, "to", to)
    monkeypatch.setattr(grouped, "_loop", _groups_alike)
    with _device_guard(), FakeGpu() as mode, Calls():
        yield mode
