"""What a run shows of itself while it trains: records, trackers, terminal, warnings, its report.

Beside metrics.jsonl none of it can stop training: what fails says so in one line.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from jielong.errors import first_line
from jielong.observe.health import Health
from jielong.observe.metrics import RunningMetrics
from jielong.observe.trackers import start_trackers
from jielong.present.words import sayer
from jielong.reports import charts
from jielong.reports.curves import figures
from jielong.reports.history import RunHistory, read_history
from jielong.reports.report import REPORT, write_report
from jielong.runtime.device import describe
from jielong.runtime.processors import OtherPrograms
from jielong.training.ranks import RankLog
from jielong.training.state import TrainState
from jielong.training.step import StepResult
from jielong.training.utilisation import flops_per_token, memory_used, peak_flops
from jielong.training.validation import stops_early

CURVES = "curves"  # the name of their picture at trackers
LAST_SAVE_S = 60.0  # for a checkpoint that is being written as the run fails
LAST_TRACKERS_S = 10.0  # for trackers to be told of it
REPORT_SHARE = 0.02  # of a run's time that its reports may take, at most


class Watch:
    """Follows a run from its start to its end.

    Attributes:
        goes_on: the run ends here for a moment only, as its budget was corrected.
        ending: how it has ended: finished, failed, or (as long as it goes on) stopped.
        flops_per_token, peak_flops: what MFU is computed from; peak None where it is not known.
    """

    def __init__(self, state: TrainState) -> None:
        self.state = state
        self.device = state.model.device
        model, window = state.config.model, state.config.data.max_seq_len
        train = state.dataset.train
        attended = float(window)
        if state.config.data.document_mask:
            attended = min(attended, len(train) / max(1, len(train.documents)))
        active = state.model.num_active_parameters()
        self.flops_per_token = flops_per_token(model, active, attended)
        one = peak_flops(self.device, state.train_step.dtype)
        self.peak_flops = None if one is None else one * state.world.world_size
        texts = state.texts
        warmup = state.plan.warmup_steps
        self.health = Health(model.vocab_size, warmup, texts.epoch_tokens, texts.held_out)
        self.report_s, self.reported = 0.0, -float("inf")  # what the last took, and when
        self.pictured: int | None = None  # the step whose curves trackers have
        self.told: set[str] = set()
        self.ranks = RankLog(state.folder.rank_log, state.world, self.device)
        self.goes_on = False
        self.ending = "stopped"
        self.others = OtherPrograms()

    def start(self) -> None:
        """Write the `start` record, and take in what a resumed run has recorded before."""
        state = self.state
        self._recall()
        state.metrics.write(
            "start",
            state.progress.step,
            total_steps=state.plan.total_steps,
            machine=describe(self.device, state.train_step.dtype),
            processes=state.world.world_size,
            parameters=state.model.num_parameters(),
            flops_per_token=self.flops_per_token,
            peak_flops=self.peak_flops,
            choices=state.plan.to_json(),
            **({"budget_corrected": True} if state.budget_corrected else {}),
        )
        self.ranks.start(state.progress.step, state.train_step.dtype)
        if watchdog := state.world.watchdog:
            watchdog.last_words = self._failed

    def _failed(self, why: str) -> None:
        """Write the `end` record of a run that is about to be ended by its watchdog."""
        self.state.saving.rest(LAST_SAVE_S)
        self.state.metrics.write("end", self.state.progress.step, state="failed", why=why)
        # beside this thread: the main one may hang within a tracker, whose server may be silent
        close = self.state.metrics.trackers.close
        closing = threading.Thread(target=close, args=("failed",), daemon=True)
        closing.start()
        closing.join(LAST_TRACKERS_S)

    def _recall(self) -> None:
        """Take in the records so far."""
        state, self.health = self.state, self.health.anew()
        if not state.world.is_main or state.progress.step == 0:
            return
        with suppress(Exception):  # a damaged file means fewer warnings, no more
            found = read_history(state.folder.path)
            self.health.train, self.health.validations = [*found.train], [*found.validations]
            self.health.first_here = len(found.train)
            self.health.said = {str(r.get("name")) for r in found.records.get("warning", [])}

    def curves(self) -> tuple[list[float], list[float]]:
        """The losses and the held-out bits per byte that were recorded before this start."""
        losses = [r.get("loss") for r in self.health.train]
        bits = [r.get("bits_per_byte") for r in self.health.validations]
        return [x for x in losses if x is not None], [x for x in bits if x is not None]

    def rewind(self) -> None:
        """The run has gone back to an earlier step."""
        self.state.metrics.rewind(self.state.progress.step, self.state.progress.omitted)
        self.pictured = None
        self._recall()

    def training(
        self,
        step: int,
        means: RunningMetrics,
        learning_rate: float,
        result: StepResult,
        left: float,
    ) -> None:
        """Show and record the steps since the last record, and say what looks wrong.

        Args:
            left: seconds until the end of the run.
        """
        state, memory = self.state, memory_used(self.device)
        mfu = None
        if self.peak_flops is not None:
            mfu = means.tokens_per_second * self.flops_per_token / self.peak_flops
        state.console.progress(step, means, learning_rate, result.grad_norm, left, mfu, memory)
        others = self.others.share() if self.device.type == "cpu" else None
        more: dict[str, Any] = result.expert_metrics()
        if own_time := state.train_step.own_time:
            more |= self.ranks.steps(step, own_time.take())
        if memory is not None:
            more["memory_bytes"] = memory
        if mfu is not None:
            more["mfu"] = round(mfu, 4)
        if others is not None:
            more["others_share"] = round(others, 2)
        record = state.metrics.train(
            step, means, learning_rate, result.grad_norm, state.progress.tokens, **more
        )
        self._judge("train", record)

    def validation(self) -> None:
        """Judge the latest validation, and write the report anew."""
        found = self.state.progress.validation
        if found is not None:
            self._judge("validation", found)
        self.report()

    def _judge(self, kind: str, record: dict[str, Any]) -> None:
        state = self.state
        if not state.world.is_main:
            return
        try:
            for finding in self.health.see(kind, record):
                state.console.line(f"step {state.progress.step}: {finding.text}", "yellow")
                state.metrics.write(
                    "warning", state.progress.step, name=finding.name, text=finding.text
                )
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            self._tell("health", f"the checks of this run are off: {first_line(error)}")
            self.health = self.health.anew()

    def report(self, last: bool = False) -> None:
        """Write `report.html`, unless reports would take more than some percent of the time."""
        state, now = self.state, time.monotonic()
        rests = now - self.reported < self.report_s / REPORT_SHARE
        if not state.world.is_main or not state.config.run.report or (rests and not last):
            return
        if not charts.available():
            self._tell(
                "plots",
                f"{REPORT} has no curves without matplotlib: pip install 'jielong[plots]'",
            )
        try:
            history = self._history()
            write_report([history], state.folder.path / REPORT)
            self._picture(history)
        except Exception as error:
            self._tell("report", f"{REPORT} could not be written ({first_line(error)})")
        self.reported = time.monotonic()
        self.report_s = self.reported - now

    def _picture(self, history: RunHistory) -> None:
        """Send the curves to trackers, once a step: most keep a repeated one beside the first."""
        trackers, step = self.state.metrics.trackers, self.state.progress.step
        if trackers.on and history.train and charts.available() and step != self.pictured:
            found = figures(history, sayer("en"))
            trackers.picture(step, CURVES, charts.png(found, history.name))
            self.pictured = step

    def _history(self) -> RunHistory:
        return read_history(self.state.folder.path)

    def _tell(self, about: str, line: str) -> None:
        """Say a line once in a run."""
        if about not in self.told:
            self.told.add(about)
            self.state.console.line(f"{line}; training goes on", "yellow")

    def end(self, how: str, why: str | None = None) -> None:
        """Write the `end` record and the last report.

        Args:
            how: finished, stopped or failed.
        """
        self.ending = how
        with suppress(OSError):  # a full disk may be what ended the run
            self.state.metrics.write("end", self.state.progress.step, state=how, why=why)
        self.report(last=True)


@contextmanager
def watching(state: TrainState) -> Iterator[Watch]:
    """Open the run's records and trackers; at the end say there how it ended, and close them."""
    run, progress = state.config.run, state.progress
    trackers = None
    if state.world.is_main:
        trackers = start_trackers(
            run.tracker,
            run.tracker_project,
            state.folder.path,
            progress.step,
            state.config.flat(),
            state.console.line,
        )
    state.metrics.open(progress.step, progress.omitted, trackers)
    watch = Watch(state)
    try:
        watch.start()
        yield watch
        state.saving.wait()
    except KeyboardInterrupt:
        state.saving.abandon()  # which another one interrupts
        watch.end("stopped")
        raise
    except BaseException as error:
        state.saving.abandon()
        watch.end("failed", first_line(error))
        raise
    else:
        done, turned = state.progress.step >= state.plan.total_steps, stops_early(state)
        if not watch.goes_on:
            why = "the held-out loss has turned" if turned and not done else None
            watch.end("finished" if done or turned else "stopped", why)
    finally:
        state.metrics.close(watch.ending)
