"""What a run says: a live bar or plain lines, and every record in metrics.jsonl."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, TextIO

import orjson

from jielong.observe.trackers import Guarded

OF_A_BATCH = ("spike", "skipped")  # kinds that say what went wrong with the text of one step


class MetricsFile:
    """metrics.jsonl: one JSON object a line, each with its `kind` and `step`.

    `resumed` has the records of the step that the run went on from, by kind.
    """

    def __init__(
        self,
        path: Path,
        resume_step: int,
        omitted: Collection[int] = (),
        enabled: bool = True,
        tracker: Guarded | None = None,
    ) -> None:
        """Opens it to append; records of later steps than `resume_step` will come again.

        Args:
            omitted: steps, from 0, that are left out: what went wrong there will not come again.
            enabled: false on all ranks but one: nothing is written there.
            tracker: where the numbers go too; it goes on from `resume_step` already.
        """
        self.path, self.enabled, self.tracker = path, enabled, tracker
        self.file: TextIO | None = None
        self._open(resume_step, omitted)

    def rewind(self, step: int, omitted: Collection[int]) -> None:
        """The run goes on from `step`, a lower one, and leaves the steps `omitted` out."""
        if self.tracker:
            self.tracker.rewind(step)
        if self.file:
            self.file.close()
        self._open(step, omitted)

    def _open(self, resume_step: int, omitted: Collection[int]) -> None:
        self.resumed: dict[str, dict[str, Any]] = {}
        if not self.enabled:
            return
        kept = []
        if self.path.exists():
            for line in self.path.read_bytes().splitlines():
                try:
                    record = orjson.loads(line)
                    later = record["step"] > resume_step
                    final = record["kind"] in OF_A_BATCH and record["step"] - 1 in omitted
                except (orjson.JSONDecodeError, KeyError, TypeError):
                    continue  # a line cut short by a crash
                if final or not later:
                    kept.append(line + b"\n")
                if record["step"] == resume_step:
                    self.resumed[record["kind"]] = record
                if final and later:
                    self._send(record)  # a tracker may have hidden it with what comes again
        temporary = self.path.with_suffix(".jsonl.partial")
        temporary.write_bytes(b"".join(kept))
        temporary.replace(self.path)
        self.file = self.path.open("a", encoding="utf-8")

    def write(self, kind: str, step: int, **values: Any) -> None:
        # NaN is no JSON; a diverged loss becomes null
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
        means: Averages,
        learning_rate: float,
        grad_norm: float,
        tokens: int,
        **experts: Any,
    ) -> None:
        """The record of a stretch of training: means since the last, and the last step's norm.

        Args:
            tokens: targets trained on so far.
            experts: of a mixture, `StepResult.expert_metrics`.
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


class Averages:
    """Means since the last record: loss over all targets, speed over all tokens."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.nats, self.targets, self.seconds = 0.0, 0, 0.0
        self.restart_clock()

    def restart_clock(self) -> None:
        """Leaves the time since the last step out of the speed: it went to something else."""
        self.last = time.perf_counter()

    def add(self, loss: float, tokens: int, applied: bool) -> None:
        """Takes in a step: its mean loss over so many targets, if its update was applied."""
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
