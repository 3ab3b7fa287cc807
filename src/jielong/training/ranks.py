"""What each rank runs on, and how long its own part of the steps takes, in `ranks.jsonl`."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from pathlib import Path
from typing import Any

import torch

from jielong.runtime.device import available_memory, describe
from jielong.runtime.distributed import World
from jielong.training.utilisation import memory_used


class RankLog:
    """`ranks.jsonl`: what the ranks are, and how long each took; rank 0 writes it for all."""

    def __init__(self, path: Path, world: World, device: torch.device) -> None:
        self.path, self.world, self.device = path, world, device

    def start(self, step: int, dtype: torch.dtype) -> None:
        """Write what each rank runs on; nothing for a process that is alone."""
        if self.world.world_size == 1:
            return
        rank = {
            "rank": self.world.rank,
            "host": socket.gethostname(),
            "process": os.getpid(),
            "device": str(self.device),
            "name": describe(self.device, dtype),
            "threads": torch.get_num_threads(),
            "memory_bytes": memory_used(self.device),
            "host_memory_left_bytes": available_memory(),
            "seed": torch.initial_seed(),
        }
        for found in self.world.all_gather(rank):
            self._write({"kind": "rank", "step": step, **found})

    def steps(self, step: int, own_s: float) -> dict[str, Any]:
        """Write how long each rank's own part of a step takes, and its memory.

        Returns:
            For the record of progress: `rank_seconds`, by rank, and the `slowest_rank`; nothing of
            a process that is alone.
        """
        if self.world.world_size == 1:
            return {}
        pairs = self.world.all_gather((round(own_s, 6), memory_used(self.device)))
        seconds = [own for own, _ in pairs]
        slowest = max(range(len(seconds)), key=seconds.__getitem__)
        found = {"rank_seconds": seconds, "slowest_rank": slowest}
        self._write({"kind": "step", "step": step, **found, "memory_bytes": [m for _, m in pairs]})
        return found

    def _write(self, record: dict[str, Any]) -> None:
        if self.world.is_main:
            with contextlib.suppress(OSError), self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
