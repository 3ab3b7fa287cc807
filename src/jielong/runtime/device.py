"""Choosing and describing a run's device and precision."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from jielong.errors import ConfigError

LEAST_BFLOAT16_WIDTH = 256  # below it, conversions cost what faster products save
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """Return the device for `name`; `auto` prefers CUDA, then Apple's MPS, then the CPU.

    Raises:
        ConfigError: the device is not available.
    """
    if name == "auto":
        if torch.cuda.is_available():
            name = "cuda"
        else:
            name = "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        built = torch.version.cuda or "none: this is a CPU build of torch"
        raise ConfigError(
            f"training.device=cuda, but torch sees no GPU (CUDA of the build: {built}); "
            "install a CUDA build of torch, or use --device cpu"
        )
    if name == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("training.device=mps, but this torch has no MPS; use --device cpu")
    try:
        return torch.device("cuda", local_rank) if name == "cuda" else torch.device(name)
    except RuntimeError:  # torch knows no such name
        raise ConfigError(f"device={name!r} is not one of auto, cpu, cuda, mps") from None


def choose_dtype(name: str, device: torch.device, width: int) -> torch.dtype:
    """Return the dtype of the forward pass; `auto` takes the fastest with hardware support.

    On a CPU `auto` is bfloat16 where it has instructions for it and the model is so wide that they
    save more than the conversions cost. That is a rule, not a trial: the same run on the same
    machine always has the same precision.

    Args:
        width: the model's hidden size.

    Raises:
        ConfigError: `name` is float16 on a CPU, where gradients would underflow without a scaler.
    """
    if name == "auto":
        if device.type == "cpu":
            return torch.bfloat16 if width >= bfloat16_width() else torch.float32
        if device.type != "cuda":
            return torch.float32
        # is_bf16_supported() also accepts emulation; hardware has it from compute capability 8.0 on
        has_bf16 = torch.cuda.get_device_capability(device)[0] >= 8
        return torch.bfloat16 if has_bf16 else torch.float16
    if name == "float16" and device.type == "cpu":
        raise ConfigError("training.dtype=float16 needs a GPU; use float32 or auto on a CPU")
    return DTYPES[name]


def dtype_of_any_width(name: str, device: torch.device) -> torch.dtype | None:
    """Return the dtype of `choose_dtype`, if it is the same for all models."""
    if name == "auto" and device.type == "cpu" and not math.isinf(bfloat16_width()):
        return None
    return choose_dtype(name, device, width=0)


@functools.cache
def bfloat16_width() -> float:
    """Return the least hidden size at which bfloat16 is faster on this CPU; inf: never.

    Measured (docs/experiments.md) at 128 to 512 on an EPYC with AVX-512, at 128 and 512 on a Xeon
    with AMX; not on ARM.
    """
    if platform.machine().lower() in ("x86_64", "amd64"):
        found = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    else:  # a build without oneDNN, as torch's for macOS, does not have the question
        found = torch.backends.mkldnn.is_available()
        found = found and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return LEAST_BFLOAT16_WIDTH if found else math.inf


@contextlib.contextmanager
def fast_products() -> Iterator[None]:
    """Within, products of float32 matrices on a CPU run in the library that is fastest there.

    torch gives them to MKL, which on AMD's CPUs uses AVX2 at most; oneDNN uses AVX-512 where there
    is any: 2.3 times as fast on an EPYC, to the same precision (docs/experiments.md). The switch
    bears the name of what it does on CPUs with AMX: products in bfloat16. Those are left out. Small
    products take 10 µs longer, so this is for training and for many tokens at once.
    """
    with _products("bf16") if onednn_is_faster() else contextlib.nullcontext():
        yield


def plain_products() -> contextlib.AbstractContextManager[None]:
    """Within, products run where torch has them by default, also inside of `fast_products`."""
    return _products("ieee")


@contextlib.contextmanager
def _products(precision: str) -> Iterator[None]:
    switch: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = switch.fp32_precision
    switch.fp32_precision = precision
    try:
        yield
    finally:
        switch.fp32_precision = before


@functools.cache
def onednn_is_faster() -> bool:
    """Whether oneDNN multiplies large float32 matrices faster than MKL on this CPU."""
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkl.is_available()):
        return False
    wide, amx = torch.cpu._is_avx512_supported(), torch.cpu._is_amx_tile_supported()
    return bool(wide and not amx and _cpu_vendor() == "AuthenticAMD")


def _cpu_vendor() -> str:
    """The maker as the CPU itself names it; empty if unknown."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("vendor_id"):
                return line.partition(":")[2].strip()
    return platform.processor().rpartition(",")[2].strip()  # as Windows has it


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager[Any]:
    """Return the mixed-precision context for a forward pass; a no-op for float32."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype)


def without_autocast(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Return a context without autocast: every operator computes in the dtype of its inputs."""
    if not torch.amp.is_autocast_available(device.type):
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)


def compute_dtype(x: torch.Tensor) -> torch.dtype:
    """Return the dtype of matrix products with `x`: autocast's if it is enabled, else its own."""
    kind = x.device.type
    if kind == "meta":  # tensors without data, which autocast does not know
        return x.dtype
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def to_device(x: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor to the device without waiting for it: from pinned memory to a GPU."""
    if device.type == "cuda" and x.device.type == "cpu":
        x = x.pin_memory()
    return x.to(device, non_blocking=True)


def describe(device: torch.device, dtype: torch.dtype | None) -> str:
    """Describe device, precision and torch version in one line.

    Args:
        dtype: None as long as it depends on the model's width.
    """
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    elif device.type == "cpu":
        count = torch.get_num_threads()
        name = f"{count} thread{'s' if count > 1 else ''}, {platform.machine()}"
    else:
        name = "Apple GPU"
    if dtype is None:
        return f"{device.type} ({name}) · torch {torch.__version__}"
    precision = str(dtype).removeprefix("torch.")
    if device.type == "cpu" and dtype == torch.bfloat16 and math.isinf(bfloat16_width()):
        precision += " (slow: this CPU has no instructions for it; auto takes float32)"
    if device.type == "mps" and dtype == torch.float16:
        precision += " (untested on Apple GPUs; auto takes float32)"
    return f"{device.type} ({name}) · {precision} · torch {torch.__version__}"


def available_memory() -> int | None:
    """Return the bytes of the host's memory that a process can still take; None if unknown."""
    limits = []
    try:
        meminfo = Path("/proc/meminfo").read_text()
        limits.append(1024 * int(meminfo.split("MemAvailable:")[1].split()[0]))
    except (OSError, IndexError, ValueError):
        with contextlib.suppress(ValueError, OSError, AttributeError):
            limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with contextlib.suppress(OSError, ValueError):  # a container's share; "max" if it has none
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())
        limits.append(limit - int((group / "memory.current").read_text()))
    return max(0, min(limits)) if limits else None
