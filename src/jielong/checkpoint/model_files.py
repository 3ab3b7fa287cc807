"""Writing weights as transformers' model files, with one file's worth in memory at a time."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from jielong.checkpoint.weights import save_tensors
from jielong.errors import CheckpointError
from jielong.runtime.parts import Readable

FILE_BYTES = 4 * 2**30  # most bytes of a file, unless one weight has more


def write_model_files(
    folder: Path,
    names: Iterable[str],
    tensors: Mapping[str, Readable],
    dtype: torch.dtype,
    where: str,
) -> None:
    """Write `model.safetensors`, or several files and their index.

    Args:
        names: of the weights to write.
        tensors: read as they are needed, cast to `dtype`.
        where: they come from, for errors.

    Raises:
        CheckpointError: a weight is not finite in `dtype`, or a file of `tensors` is damaged.
        OSError: the disk refuses.
    """
    groups, sizes = _grouped(names, tensors, dtype)
    weight_map = {}
    for number, group in enumerate(groups, start=1):
        file = "model.safetensors"
        if len(groups) > 1:
            file = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        part = {}
        for name in group:
            part[name] = tensors[name][...].to(dtype)
            if not part[name].isfinite().all():
                shown = str(dtype).removeprefix("torch.")
                raise CheckpointError(f"{where}: weight {name} does not fit in {shown}")
            weight_map[name] = file
        save_tensors(part, folder / file)
    if len(groups) > 1:
        index = {"metadata": {"total_size": sum(sizes)}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))


def _grouped(
    names: Iterable[str], tensors: Mapping[str, Readable], dtype: torch.dtype
) -> tuple[list[list[str]], list[int]]:
    """Return the names of each file's weights, and its bytes."""
    groups, sizes = list[list[str]](), list[int]()
    for name in names:
        size = math.prod(tensors[name].shape) * dtype.itemsize
        if not groups or sizes[-1] + size > FILE_BYTES:
            groups.append([])
            sizes.append(0)
        groups[-1].append(name)
        sizes[-1] += size
    return groups, sizes
