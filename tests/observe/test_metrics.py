"""What a run says of itself."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from jielong.observe.metrics import MetricsFile, RunningMetrics
from jielong.observe.times import duration
from jielong.observe.trackers import SafeTracker
from jielong.training.summary import explain_first_loss


def opened(
    path: Path, resume_step: int, omitted: Sequence[int] = (), enabled: bool = True
) -> MetricsFile:
    file = MetricsFile(path, enabled)
    file.open(resume_step, omitted)
    return file


def test_the_loss_shown_is_the_mean_over_all_targets_since_the_last_record() -> None:
    means = RunningMetrics()
    for loss, tokens in ((2.0, 10), (4.0, 30)):
        means.add(loss, tokens, applied=True)
    assert means.loss == pytest.approx(3.5)
    means.add(math.nan, 100, applied=False)  # a step refused says nothing of the model
    assert means.loss == pytest.approx(3.5)
    means.reset()
    assert math.isnan(means.loss)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_first_loss_that_is_no_number_is_said_to_be_none(loss: float) -> None:
    said = explain_first_loss(loss, 4096)
    assert "not a number" in said and "uniform" not in said


def test_speed_leaves_out_the_time_between() -> None:
    means = RunningMetrics()
    means.seconds, means.targets = 2.0, 100
    means.restart_clock()
    assert means.tokens_per_second == pytest.approx(50)


def test_records_are_strict_json_with_null_for_what_is_no_number(tmp_path: Path) -> None:
    file = opened(tmp_path / "metrics.jsonl", 0)
    file.write("validation", 3, loss=math.nan, perplexity=math.inf, text="値")
    file.close()
    line = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8")
    record = json.loads(line)
    assert record.pop("time") > 0
    assert record == {
        "kind": "validation",
        "step": 3,
        "loss": None,
        "perplexity": None,
        "text": "値",
    }


def test_records_after_the_step_that_a_run_resumes_from_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"kind":"train","step":4}\n{"kind":"train","step":5}\nnull\n{"kind": "tr')
    file = opened(path, 4)
    file.write("train", 5)
    file.close()
    assert [json.loads(x)["step"] for x in path.read_text().splitlines()] == [4, 5]


def test_what_went_wrong_with_a_text_left_out_stays_through_rewinds_and_resumes(
    tmp_path: Path,
) -> None:
    path = tmp_path / "metrics.jsonl"

    def steps() -> list[tuple[str, int]]:
        lines = map(json.loads, path.read_text().splitlines())
        return [(record["kind"], record["step"]) for record in lines]

    file = opened(path, 0)
    for kind, step in (("train", 4), ("skipped", 5), ("skipped", 8), ("train", 8), ("spike", 9)):
        file.write(kind, step)
    file.rewind(4, [7, 8])  # from 0, so it is steps 8 and 9
    once = [("train", 4), ("skipped", 8), ("spike", 9)]
    assert steps() == once  # step 5 is taken again
    for kind, step in (("skipped", 5), ("omitted", 8), ("omitted", 9), ("spike", 10)):
        file.write(kind, step)
    file.rewind(4, [7, 8, 9, 10])
    file.close()
    assert steps() == [*once, ("spike", 10)]
    opened(path, 4, [7, 8, 9, 10]).close()  # killed, and a checkpoint knows what is left out
    assert steps() == [*once, ("spike", 10)]
    opened(path, 4).close()  # none does: what went wrong will come again
    assert steps() == [("train", 4)]


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    file = opened(tmp_path / "metrics.jsonl", 0, enabled=False)
    file.write("train", 1)
    file.rewind(0, [0])
    file.close()
    assert not list(tmp_path.iterdir())


def test_the_first_loss_is_explained_in_words() -> None:
    assert explain_first_loss(math.log(6400) + 0.1, 6400).endswith("expected ln(6400) = 8.76")
    assert "higher" in explain_first_loss(12.0, 6400)
    assert "lower" in explain_first_loss(3.0, 6400)
    assert "8.76" in explain_first_loss(3.0, 6400)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0s"), (59.6, "1m 00s"), (200, "3m 20s"), (3599.7, "1h 00m"), (90061, "25h 01m")],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_tracker_that_fails_is_named_once_and_left_alone() -> None:
    class Broken:
        def log(self, step: int, values: dict[str, float]) -> None:
            raise ConnectionError("no network\nsecond line")

        def samples(self, step: int, samples: object) -> None:
            raise AssertionError("it was left alone")

        def rewind(self, step: int) -> None:
            raise AssertionError("it was left alone")

        def close(self, ending: str) -> None:
            raise AssertionError("it was left alone")

    said: list[str] = []
    tracker = SafeTracker("wandb", Broken, said.append)
    for step in range(3):
        tracker.log(step, {"train/loss": 1.0})
    tracker.samples(3, [("a", "b")])
    tracker.rewind(0)
    tracker.close("finished")
    assert len(said) == 1 and "wandb" in said[0] and "no network" in said[0]
