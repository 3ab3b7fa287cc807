"""What a run says: a live bar or plain lines, and every record in metrics.jsonl."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TextIO

import orjson
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from jielong.evaluation.likelihood import Likelihood
from jielong.observe.trackers import Guarded
from jielong.training.step import StepResult

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
        self, step: int, means: Averages, rate: float, result: StepResult, tokens: int
    ) -> None:
        """The record of a stretch of training: means since the last, and the last step's norm."""
        self.write(
            "train",
            step,
            loss=means.loss,
            learning_rate=rate,
            grad_norm=result.grad_norm,
            tokens=tokens,
            tokens_per_second=means.tokens_per_second,
            **_expert_record(result),
        )

    def close(self) -> None:
        if self.file:
            self.file.close()
        if self.tracker:
            self.tracker.close()


def _expert_record(result: StepResult) -> dict[str, Any]:
    """Of a mixture of experts, at the last step: its balance loss and how evenly tokens spread.

    `imbalance` is the busiest expert's load over the mean, in the worst layer: 1 is even. No token
    is ever dropped, so the loads of a layer add up to tokens × experts per token.
    """
    if result.expert_load is None:
        return {}
    load = result.expert_load.float()  # (layers, experts)
    return {
        "balance_loss": result.balance_loss,
        "imbalance": round(float((load.amax(1) / load.mean(1).clamp_min(1e-9)).max()), 4),
        "dropped_tokens": 0,
        "expert_load": result.expert_load.long().tolist(),
    }


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

    def add(self, result: StepResult) -> None:
        now = time.perf_counter()
        self.seconds, self.last = self.seconds + now - self.last, now
        if result.applied:
            self.nats += result.loss * result.tokens
            self.targets += result.tokens

    @property
    def loss(self) -> float:
        return self.nats / self.targets if self.targets else math.nan

    @property
    def tokens_per_second(self) -> float:
        return self.targets / max(1e-9, self.seconds)


class Display:
    """Progress on the screen: a live bar on a terminal, lines elsewhere, nothing if not `shown`."""

    def __init__(self, shown: bool = True) -> None:
        self.console = Console(quiet=not shown, highlight=False, soft_wrap=True)
        self.shown = shown
        self.first_step, self.total_steps = 0, 0
        self.work: Callable[[int], float] = float
        self.trained_s = 0.0  # since the start, without validations
        self.bar: Progress | None = None
        self.task = TaskID(0)

    def start(
        self, step: int, total_steps: int, work: Callable[[int], float] | None = None
    ) -> None:
        """Training begins after `step` of `total_steps` steps.

        `work` is what has been done before a step, where steps are not alike: of the time left.
        """
        self.total_steps, self.first_step, self.work = total_steps, step, work or float
        self.trained_s = 0.0
        if self.shown and self.console.is_terminal:
            self.bar = Progress(
                BarColumn(bar_width=24), TextColumn("{task.description}"), console=self.console
            )
            self.task = self.bar.add_task("starting …", total=total_steps, completed=step)
            self.bar.start()

    def line(self, text: str = "", style: str | None = None) -> None:
        self.console.print(text, style=style, markup=False)

    def progress(self, step: int, means: Averages, rate: float, grad_norm: float) -> None:
        """Shows the means since the last record, after `step` steps."""
        self.trained_s += means.seconds
        done = self.work(step) - self.work(self.first_step)
        left = (self.work(self.total_steps) - self.work(step)) * self.trained_s / max(1.0, done)
        text = (
            f"step {step}/{self.total_steps} · loss {means.loss:.4f} · lr {rate:.2e} · "
            f"grad {grad_norm:.2f} · {means.tokens_per_second:,.0f} tok/s · {duration(left)} left"
        )
        if self.bar:
            self.bar.update(self.task, completed=step, description=text)
        else:
            self.line(text)

    def validation(self, step: int, likelihood: Likelihood, of: str = "held-out") -> None:
        """Shows the likelihood of held-out text."""
        self.line(
            f"── step {step} · {of} loss {likelihood.loss:.4f} · perplexity "
            f"{likelihood.perplexity:.2f} · {likelihood.bits_per_byte:.4f} bits/byte",
            style="bold",
        )

    def sample(self, prompt: str, text: str) -> None:
        """A prompt and its continuation, on one line."""
        whole = Text("   " + shorten(prompt) + " ▸", style="dim").append(shorten(text), "not dim")
        self.console.print(whole)

    def close(self) -> None:
        if self.bar:
            self.bar.stop()


def shorten(text: str) -> str:
    """Text on one line, its line ends shown."""
    return text.replace("\n", " ⏎ ")


def duration(seconds: float) -> str:
    """E.g. `1h 02m`, `3m 20s`, `12s`."""
    seconds = round(seconds)
    if seconds >= 3600:
        return f"{seconds // 3600}h {seconds % 3600 // 60:02d}m"
    return f"{seconds // 60}m {seconds % 60:02d}s" if seconds >= 60 else f"{seconds}s"
