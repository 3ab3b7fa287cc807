"""A run stopped anywhere and resumed equals the one never stopped, bit for bit."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jielong.checkpoint import checkpoint as ckpt
from jielong.config.load import load_config
from tiny import REGULARISED, TINY_RUN, flags, forked, in_this_process, signalled

STEPS = TINY_RUN["steps"]


class Launch:
    """Runs of one corpus, as the command line starts them."""

    def __init__(self, folder: Path, corpus: Path, tokenizer: Path) -> None:
        self.folder = folder
        self.settings = TINY_RUN | REGULARISED
        self.settings |= {"data_path": str(corpus), "tokenizer": str(tokenizer)}

    def words(self, name: str, **changes: Any) -> list[str]:
        settings = self.settings | {"out_dir": str(self.folder / name)} | changes
        return ["pretrain", *flags(settings)]

    def here(self, name: str, *more: str, **changes: Any) -> tuple[int, str]:
        """In this process: exit status, and what was said."""
        return in_this_process([*self.words(name, **changes), *more])

    def stopped(self, name: str, step: int, number: int, **changes: Any) -> int:
        """In a process of its own, sent a signal once `step` is on record: its exit status."""
        words = self.words(name, **changes)
        status, said = signalled(words, self.folder / name, step, number)
        assert "Traceback" not in said, said
        return status

    def last(self, name: str) -> Path:
        return self.folder / name / "checkpoints" / ckpt.step_name(STEPS)

    def losses(self, name: str) -> list[tuple[int, float, float]]:
        """Step, loss and gradient norm of each record of training."""
        lines = (self.folder / name / "metrics.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        return [(r["step"], r["loss"], r["grad_norm"]) for r in records if r["kind"] == "train"]

    def assert_equal(self, name: str, reference: str = "whole") -> None:
        for file in (
            "model.safetensors",
            ckpt.TRAINING_WEIGHTS,
            "optimizer.safetensors",
            "config.json",
        ):
            ours, theirs = (self.last(n) / file for n in (name, reference))
            assert ours.read_bytes() == theirs.read_bytes(), file
        assert self.losses(name) == self.losses(reference)
        a, b = (ckpt.load_training_state(self.last(n)).values for n in (name, reference))
        assert a["rng"] == b["rng"] and a["progress"]["tokens"] == b["progress"]["tokens"]


@pytest.fixture(scope="module")
def launch(
    tmp_path_factory: pytest.TempPathFactory, corpus_file: Path, tokenizer_dir: Path
) -> Iterator[Launch]:
    made = Launch(tmp_path_factory.mktemp("runs"), corpus_file, tokenizer_dir)
    status, said = made.here("whole")
    assert status == 0, said
    yield made


def test_a_run_records_every_step_and_ends_with_a_checkpoint(launch: Launch) -> None:
    assert [step for step, _, _ in launch.losses("whole")] == list(range(1, STEPS + 1))
    first, last = launch.losses("whole")[0][1], launch.losses("whole")[-1][1]
    assert last < first
    folder = launch.folder / "whole"
    assert ckpt.latest_valid_checkpoint(folder / "checkpoints") == (launch.last("whole"), [])
    kept = [ckpt.step_of(path) for path in ckpt.checkpoints(folder / "checkpoints")]
    best = ckpt.load_training_state(launch.last("whole")).values["progress"]["best_step"]
    assert kept == sorted({16, 24, best})
    records = [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records if r["kind"] == "validation"] == [8, 16, 24]
    assert load_config(file=folder / "config.toml").flat() | {"out_dir": ""} == load_config(
        **launch.settings
    ).flat() | {"out_dir": ""}


def test_the_same_command_again_gives_the_same_run(launch: Launch) -> None:
    status, said = launch.here("again")
    assert status == 0, said
    launch.assert_equal("again")


def test_validation_samples_checkpoints_and_workers_leave_training_as_it_is(
    launch: Launch,
) -> None:
    changes = {"eval_interval": 5, "save_interval": 3, "sample_tokens": 4, "num_workers": 0}
    changes |= {"keep_checkpoints": 1, "keep_interval": 7}
    status, said = launch.here("otherwise", **changes, eval_tokens=20)
    assert status == 0, said
    launch.assert_equal("otherwise")
    kept = map(ckpt.step_of, ckpt.checkpoints(launch.folder / "otherwise" / "checkpoints"))
    best = ckpt.load_training_state(launch.last("otherwise")).values["progress"]["best_step"]
    assert list(kept) == sorted({7, 14, 21, 24, best})


def test_a_complete_run_is_left_as_it_is(launch: Launch) -> None:
    shutil.copytree(launch.folder / "whole", launch.folder / "complete")
    before = {p: p.read_bytes() for p in launch.last("complete").iterdir()}
    status, said = launch.here("complete")
    assert status == 0 and "complete" in said
    assert {p: p.read_bytes() for p in launch.last("complete").iterdir()} == before
    launch.assert_equal("complete")


@pytest.mark.parametrize(
    ("number", "steps"),
    [
        (signal.SIGTERM, [1, 11]),
        (signal.SIGINT, [14]),
        (signal.SIGKILL, [3, 12, 19]),  # before any checkpoint, between two, after others
    ],
    ids=lambda value: value.name if isinstance(value, signal.Signals) else str(value),
)
def test_stopped_and_resumed_equals_never_stopped(
    launch: Launch, number: signal.Signals, steps: list[int]
) -> None:
    name = number.name
    for step in steps:
        status = launch.stopped(name, step, number, num_workers=step % 3)
        expected = -number if number == signal.SIGKILL else 128 + number
        assert status == expected
        newest, problems = ckpt.latest_valid_checkpoint(launch.folder / name / "checkpoints")
        assert not problems
        if number != signal.SIGKILL:
            # it was saved where it stopped
            assert newest is not None and ckpt.step_of(newest) == step
    status, said = launch.here(name)
    assert status == 0 and (number == signal.SIGKILL or "resuming from" in said), said
    launch.assert_equal(name)


@pytest.mark.parametrize("fault", ["weights", "latest", "optimizer", "state", "manifest", "gone"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(launch: Launch, fault: str) -> None:
    name = f"damaged-{fault}"
    shutil.copytree(launch.folder / "whole", launch.folder / name)
    file = {
        "weights": "model.safetensors",
        "optimizer": "optimizer.safetensors",
        "latest": ckpt.TRAINING_WEIGHTS,
        "state": "training_state.json",
        "manifest": "manifest.json",
        "gone": "tokenizer.json",
    }[fault]
    path = launch.last(name) / file
    if fault == "gone":
        path.unlink()
    else:
        whole = bytearray(path.read_bytes())
        whole[len(whole) // 2] ^= 1
        path.write_bytes(whole)
    status, said = launch.here(name)
    assert status == 0 and "passed over" in said and "step-00000016" in said, said
    launch.assert_equal(name)
    ckpt.verify(launch.last(name))


def test_after_damage_new_checkpoints_are_kept_though_damaged_ones_are_of_later_steps(
    launch: Launch,
) -> None:
    """Else a run that fell back would delete what it saves, and lose all when killed."""
    name = "fell-back"
    shutil.copytree(launch.folder / "whole", launch.folder / name)
    folder = launch.folder / name / "checkpoints"
    for step in (16, 24):
        (folder / ckpt.step_name(step) / "model.safetensors").write_bytes(b"")
    shutil.rmtree(folder / ckpt.step_name(8), ignore_errors=True)
    changes = {"save_interval": 2, "keep_checkpoints": 2}
    assert launch.stopped(name, 12, signal.SIGTERM, **changes) == 128 + signal.SIGTERM
    newest, _ = ckpt.latest_valid_checkpoint(folder)
    assert newest is not None and ckpt.step_of(newest) == 12
    status, said = launch.here(name)
    assert status == 0, said
    launch.assert_equal(name)


def test_settings_that_change_the_result_are_refused_with_all_their_differences(
    launch: Launch,
) -> None:
    status, said = launch.here("whole", seed=7, hidden_size=64, learning_rate=0.01, log_interval=5)
    assert status == 2
    assert "training.seed: 1337 in the run, now 7" in said
    assert "model.hidden_size: 32 in the run, now 64" in said
    assert "training.learning_rate: not set in the run, now 0.01" in said
    assert "log_interval" not in said  # changes nothing
    assert "--override" in said and "Traceback" not in said
    launch.assert_equal("whole")


def test_override_goes_on_with_the_new_settings(launch: Launch) -> None:
    shutil.copytree(launch.folder / "whole", launch.folder / "longer")
    status, said = launch.here("longer", "--override", steps=STEPS + 3)
    assert status == 0 and "resuming from" in said, said
    assert [step for step, _, _ in launch.losses("longer")] == list(range(1, STEPS + 4))
    assert launch.losses("longer")[:STEPS] == launch.losses("whole")
    stored = load_config(file=launch.folder / "longer" / "config.toml")
    assert stored.training.steps == STEPS + 3


def test_override_to_another_architecture_is_refused_and_changes_nothing(launch: Launch) -> None:
    shutil.copytree(launch.folder / "whole", launch.folder / "wider")
    status, said = launch.here("wider", "--override", hidden_size=64)
    assert status == 2 and "shape" in said and "Traceback" not in said
    launch.assert_equal("wider")


def test_a_second_process_is_refused_and_told_who_holds_the_run(launch: Launch) -> None:
    words = launch.words("held", steps=100_000)
    first = forked(*words)
    metrics = launch.folder / "held" / "metrics.jsonl"
    while first.poll() is None and not metrics.exists():
        time.sleep(0.01)
    try:
        status, said = launch.here("held", steps=100_000)
        assert status == 2
        assert f"process {first.pid}" in said and "held" in said and "run.out_dir" in said
    finally:
        first.kill()
        first.communicate()
    # the system has freed the lock of the dead holder
    status, said = launch.here("held", "--override")
    assert status == 0, said


def test_lines_of_steps_that_come_again_leave_the_metrics(launch: Launch) -> None:
    name = "metrics"
    shutil.copytree(launch.folder / "whole", launch.folder / name)
    shutil.rmtree(launch.last(name))
    with (launch.folder / name / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "step": 25, "lo')  # as a crash leaves it
    status, said = launch.here(name)
    assert status == 0, said
    launch.assert_equal(name)


def test_another_dataset_is_refused(launch: Launch, tmp_path: Path) -> None:
    name = "other-data"
    shutil.copytree(launch.folder / "whole", launch.folder / name)
    corpus = tmp_path / "other.jsonl"
    corpus.write_text('{"text": "something else entirely"}\n' * 30)
    status, said = launch.here(name, "--override", data_path=str(corpus))
    assert status == 2 and "dataset" in said, said
    launch.assert_equal(name)


def test_a_run_that_has_trained_goes_on_though_its_text_is_gone(
    launch: Launch, corpus_file: Path, tmp_path: Path
) -> None:
    corpus = tmp_path / "moved.jsonl"
    shutil.copy(corpus_file, corpus)
    assert launch.stopped("moved", 11, signal.SIGTERM, data_path=str(corpus)) == 143
    corpus.unlink()
    status, said = launch.here("moved", data_path=str(corpus))
    assert status == 0 and "resuming from" in said, said
    launch.assert_equal("moved")


def test_an_override_that_does_not_fit_leaves_the_settings_as_they_were(launch: Launch) -> None:
    shutil.copytree(launch.folder / "whole", launch.folder / "kept")
    before = (launch.folder / "kept" / "config.toml").read_text()
    status, said = launch.here("kept", "--override", hidden_size=64)
    assert status == 2, said
    assert (launch.folder / "kept" / "config.toml").read_text() == before
    assert launch.here("kept")[0] == 0


def test_a_larger_budget_keeps_the_batches_that_a_run_has_had(launch: Launch) -> None:
    open_size = {"batch_size": "none", "accumulation_steps": 1, "tokens": 4000, "steps": "none"}
    status, said = launch.here("grown", **open_size)
    assert status == 0, said
    settings = ckpt.load_training_state(ckpt.checkpoints(launch.folder / "grown/checkpoints")[-1])
    status, said = launch.here("grown", "--override", **(open_size | {"tokens": 16000}))
    assert status == 0, said
    grown = ckpt.load_training_state(ckpt.checkpoints(launch.folder / "grown/checkpoints")[-1])
    sizes = [s.values["plan"]["global_batch_size"] for s in (settings, grown)]
    assert sizes[0] == sizes[1] and grown.step > settings.step
