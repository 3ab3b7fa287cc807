"""Metrics of a run: running means, and the records of metrics.jsonl."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, TextIO

import orjson

from jielong.observe.trackers import Sample, Trackers
from jielong.runtime.atomic import write_file

NOT_TRACKED = ("start", "end", "sample", "warning")  # as numbers: samples go as texts
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
        self.trackers = Trackers(())
        self.file: TextIO | None = None
        self.resumed: dict[str, dict[str, Any]] = {}

    def open(
        self, resume_step: int, omitted: Collection[int] = (), trackers: Trackers | None = None
    ) -> None:
        """Open the file and drop records after `resume_step`, which will be written again.

        Args:
            omitted: steps, counted from 0, that training leaves out. Their `spike` and `skipped`
                records are kept, since they will not be written again.
            trackers: also receive every number and sample; they must already resume from
                `resume_step`.
        """
        self.trackers = trackers or Trackers(())
        self._open(resume_step, omitted)

    def rewind(self, step: int, omitted: Collection[int]) -> None:
        """Go back to an earlier `step`; from there on the run leaves out the `omitted` steps."""
        self.trackers.rewind(step)
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

    def write(self, kind: str, step: int, **values: Any) -> dict[str, Any]:
        """Append a record, send its numbers to the trackers, and return it."""
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
        return record

    def _send(self, record: dict[str, Any]) -> None:
        if record["kind"] in NOT_TRACKED:
            return
        numbers = {
            f"{record['kind']}/{name}": value
            for name, value in record.items()
            if isinstance(value, int | float) and name not in ("step", "time")
        }
        self.trackers.log(record["step"], numbers)

    def samples(self, step: int, samples: Sequence[Sample]) -> None:
        """Write a `sample` record of each prompt and its continuation, and send them together."""
        for prompt, text in samples:
            self.write("sample", step, prompt=prompt, text=text)
        self.trackers.samples(step, samples)

    def train(
        self,
        step: int,
        means: RunningMetrics,
        learning_rate: float,
        grad_norm: float,
        tokens: int,
        **more: Any,
    ) -> dict[str, Any]:
        """Write a `train` record: means since the last record, and the last step's gradient norm.

        Args:
            tokens: targets trained on so far.
            more: of the machine, and `StepResult.expert_metrics` of a mixture of experts.
        """
        return self.write(
            "train",
            step,
            loss=means.loss,
            learning_rate=learning_rate,
            grad_norm=grad_norm,
            tokens=tokens,
            tokens_per_second=means.tokens_per_second,
            **more,
        )

    def close(self, ending: str = "finished") -> None:
        """Close the file, and the trackers of a run that is finished, stopped or failed."""
        if self.file:
            self.file.close()
        self.trackers.close(ending)


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
