"""Metrics of a run: running means, and the records of metrics.jsonl."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, TextIO

import orjson

from jielong.observe.trackers import SafeTracker
from jielong.runtime.atomic import write_file

BAD_STEP_KINDS = ("spike", "skipped")  # records of a step whose batch caused trouble


class MetricsFile:
    """Appends to metrics.jsonl: one JSON object per line, each with a `kind` and a `step`.

    Attributes:
        resumed: the records of the step that the run resumed from, by kind.
    """

    def __init__(self, path: Path, enabled: bool = True) -> None:
        """Name the file, which `open` opens.

        Args:
            enabled: whether this rank writes; true on rank 0 only.
        """
        self.path, self.enabled = path, enabled
        self.tracker: SafeTracker | None = None
        self.file: TextIO | None = None
        self.resumed: dict[str, dict[str, Any]] = {}

    def open(
        self, resume_step: int, omitted: Collection[int] = (), tracker: SafeTracker | None = None
    ) -> None:
        """Open the file and drop records after `resume_step`, which will be written again.

        Args:
            omitted: steps, counted from 0, that training leaves out. Their `spike` and `skipped`
                records are kept, since they will not be written again.
            tracker: also receives every number; it must already resume from `resume_step`.
        """
        self.tracker = tracker
        self._open(resume_step, omitted)

    def rewind(self, step: int, omitted: Collection[int]) -> None:
        """Go back to an earlier `step`; from there on the run leaves out the `omitted` steps."""
        if self.tracker:
            self.tracker.rewind(step)
        if self.file:
            self.file.close()
        self._open(step, omitted)

    def _open(self, resume_step: int, omitted: Collection[int]) -> None:
        self.resumed = {}
        if not self.enabled:
            return
        kept = []
        if self.path.exists():
            for line in self.path.read_bytes().splitlines():
                try:
                    record = orjson.loads(line)
                    later = record["step"] > resume_step
                    final = record["kind"] in BAD_STEP_KINDS and record["step"] - 1 in omitted
                except (orjson.JSONDecodeError, KeyError, TypeError):
                    continue  # a line cut short by a crash
                if final or not later:
                    kept.append(line + b"\n")
                if record["step"] == resume_step:
                    self.resumed[record["kind"]] = record
                if final and later:
                    self._send(record)  # a tracker may have dropped it with the later steps
        write_file(self.path, b"".join(kept))
        self.file = self.path.open("a", encoding="utf-8")

    def write(self, kind: str, step: int, **values: Any) -> None:
        """Append a record and send its numbers to the tracker."""
        # JSON has no NaN or infinity: they become null
        clean = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in values.items()
        }
        record = {"kind": kind, "step": step, **clean, "time": round(time.time(), 3)}
        if self.file:
            self.file.write(json.dumps(record, ensure_ascii=False) + "\n")
            self.file.flush()
        self._send(record)

    def _send(self, record: dict[str, Any]) -> None:
        if self.tracker and record["kind"] != "sample":
            numbers = {
                f"{record['kind']}/{name}": value
                for name, value in record.items()
                if isinstance(value, int | float) and name not in ("step", "time")
            }
            self.tracker.log(record["step"], numbers)

    def train(
        self,
        step: int,
        means: RunningMetrics,
        learning_rate: float,
        grad_norm: float,
        tokens: int,
        **experts: Any,
    ) -> None:
        """Write a `train` record: means since the last record, and the last step's gradient norm.

        Args:
            tokens: targets trained on so far.
            experts: `StepResult.expert_metrics` of a mixture of experts.
        """
        self.write(
            "train",
            step,
            loss=means.loss,
            learning_rate=learning_rate,
            grad_norm=grad_norm,
            tokens=tokens,
            tokens_per_second=means.tokens_per_second,
            **experts,
        )

    def close(self) -> None:
        if self.file:
            self.file.close()
        if self.tracker:
            self.tracker.close()


class RunningMetrics:
    """Mean loss per target and tokens per second since the last record."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.nats, self.targets, self.seconds = 0.0, 0, 0.0
        self.restart_clock()

    def restart_clock(self) -> None:
        """Exclude the time since the last step, spent on something else, from the speed."""
        self.last = time.perf_counter()

    def add(self, loss: float, tokens: int, applied: bool) -> None:
        """Add a step: its mean loss over `tokens` targets, unless its update was skipped."""
        now = time.perf_counter()
        self.seconds, self.last = self.seconds + now - self.last, now
        if applied:
            self.nats += loss * tokens
            self.targets += tokens

    @property
    def loss(self) -> float:
        return self.nats / self.targets if self.targets else math.nan

    @property
    def tokens_per_second(self) -> float:
        return self.targets / max(1e-9, self.seconds)
