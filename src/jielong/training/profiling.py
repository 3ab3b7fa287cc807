"""Where the time of a step goes: a trace of some steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

WARM_UP = 3  # steps of a start that are not like the later ones
ROWS = 30  # of the table of operations


class StepProfiler:
    """Profiles some steps of a run, and writes `trace.json` and `operations.txt`.

    The trace opens in Perfetto or chrome://tracing.
    """

    def __init__(self, steps: int, folder: Path) -> None:
        """Profile `steps` steps, or none, and write to `folder`, which is made then."""
        self.steps, self.folder = steps, folder
        self.first: int | None = None  # step that is profiled first
        self.profile: Any = None  # torch's, while it records

    def before(self, step: int, total_steps: int, log: Callable[[str], None]) -> None:
        """Start or end the profile where it is due; called before each step."""
        if not self.steps:
            return
        if self.first is None:
            self.first = step + WARM_UP
            # what is profiled ends before the last step, since only steps are told of
            self.steps = min(self.steps, total_steps - 1 - self.first)
            if self.steps < 1:
                log("profile    the run is too short for one")
                self.steps = 0
        elif step == self.first:
            from torch.profiler import profile

            self.profile = profile()  # of everything that this machine can record
            self.profile.__enter__()
        elif step == self.first + self.steps and self.profile is not None:
            self._write(log)

    def _write(self, log: Callable[[str], None]) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.profile.__exit__(None, None, None)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.profile.export_chrome_trace(str(self.folder / "trace.json"))
        averages = self.profile.key_averages()
        on_gpu = any(event.self_device_time_total for event in averages)
        by = "self_device_time_total" if on_gpu else "self_cpu_time_total"
        table = averages.table(sort_by=by, row_limit=ROWS, max_name_column_width=70)
        (self.folder / "operations.txt").write_text(table, encoding="utf-8")
        self.profile, self.steps = None, 0
        log(f"profile    {self.folder}/operations.txt and trace.json, which Perfetto shows")
