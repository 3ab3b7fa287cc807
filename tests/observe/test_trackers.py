"""Trackers: what reaches them, in one run through all resumes, and that none stops training."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jielong.checkpoint.checkpoint import step_name
from jielong.cli.main import main
from jielong.errors import TrainingError
from jielong.training import recovery as guard
from jielong.training import watch
from jielong.training.watch import Watch
from tiny import TINY_RUN, flags

STEPS = 8
# packages of the trackers' interfaces: they write down their calls, and of numbers only what is
# taken, with its point on the axis; and break where they are told to
FAKE = """
import json, pathlib
calls = pathlib.Path(__file__).with_name("calls.jsonl")

def note(what, **values):
    with calls.open("a") as file:
        file.write(json.dumps({"what": what, **values}, default=str) + "\\n")
    if what == BREAKS_IN:
        raise RuntimeError(f"no network in {what}\\nand more of it")

class Image:
    def __init__(self, image, caption=None):
        self.size = image.size

def init(**values):
    note("init", **values)
    return Run(values["id"])
"""
# its own step never falls, also where a run is resumed: what is logged at a lower one is dropped
FAKE_WANDB = """
rows = {}  # of each run, the step that is being written

class Table:
    def __init__(self, columns, data):
        rows = [dict(zip(columns, row, strict=True)) for row in data]
        self.text = "".join(row["prompt"] + "▸" + row["text"] for row in rows)

class Run:
    def __init__(self, id):
        self.id, self.axis = id, None
        rows[id] = rows.get(id, -1) + 1
    def define_metric(self, name, step_metric=None):
        assert name == "*"
        self.axis = step_metric
    def log(self, data, step=None):
        if "curves" in data:
            return note("picture", size=data["curves"].size, at=data[self.axis])
        if "samples" in data:
            return note("samples", text=data["samples"].text, at=data[self.axis])
        if step is not None and step < rows[self.id]:
            return
        rows[self.id] = rows[self.id] + 1 if step is None else step
        note("log", data=data, at=data[self.axis] if self.axis else rows[self.id])
    def finish(self, exit_code):
        note("finish", status={0: "FINISHED", 1: "FAILED"}[exit_code])
"""
# a key's steps come in any order, but one that it has is dropped, and where a run is resumed all up
# to its last; an empty record is an error
FAKE_SWANLAB = """
seen = {}  # by run and key, its steps

class Text:
    def __init__(self, content, caption):
        self.text = caption + "▸" + content.removeprefix(caption)

class Run:
    def __init__(self, id):
        self.id = id
        for steps in seen.get(id, {}).values():
            steps.update(range(max(steps)))
    def log(self, data, step):
        assert data
        if "curves" in data:
            return note("picture", size=data["curves"].size, at=step)
        if "sample/1" in data:
            return note("samples", text="".join(t.text for t in data.values()), at=step)
        keys = seen.setdefault(self.id, {})
        new = {key: value for key, value in data.items() if step not in keys.get(key, ())}
        for key in new:
            keys.setdefault(key, set()).add(step)
        note("log", data=new, at=step)
    def finish(self):
        note("finish")
"""
# a run is known by its name; one of the same name is only gone on with where that is allowed. Only
# the package's own `finish` ends it for good: otherwise it prints once more at exit
FAKE_TRACKIO = """
class Table:
    def __init__(self, columns, data):
        rows = [dict(zip(columns, row, strict=True)) for row in data]
        self.text = "".join(row["prompt"] + "▸" + row["text"] for row in rows)

def init(project, name, config, resume, embed):
    assert resume == "allow"
    note("init", id=name, project=project, config=config)
    print("* Trackio project initialized")
    return Run()

class Run:
    def log(self, data, step):
        if "curves" in data:
            return note("picture", size=data["curves"].size, at=step)
        if "samples" in data:
            return note("samples", text=data["samples"].text, at=step)
        note("log", data=data, at=step)

def finish():
    note("finish")
"""
# a server that other calls find again: what a run is, stands in a file
FAKE_MLFLOW = """
import types
from collections import namedtuple
entities = types.ModuleType("mlflow.entities")
entities.Metric = namedtuple("Metric", "key value timestamp step")
entities.Param = namedtuple("Param", "key value")
import sys
import threading
sys.modules["mlflow.entities"] = entities
known = {}

class MlflowClient:
    def get_experiment_by_name(self, name):
        return None
    def create_experiment(self, name):
        return "7"
    def search_runs(self, experiments, filter_string, max_results):
        run = known.get(filter_string.split("'")[1])
        if run:
            note("init", id=run)
        return [types.SimpleNamespace(info=types.SimpleNamespace(run_id=run))] if run else []
    def create_run(self, experiment, tags, run_name):
        (id,) = tags.values()
        known[id] = "r-" + id
        note("init", id=known[id], project=run_name)
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=known[id]))
    def update_run(self, id, status):
        assert status == "RUNNING"
    def log_batch(self, id, metrics=(), params=()):
        assert all(len(param.value) <= 500 for param in params)
        for metric in metrics:
            note("log", data={metric.key: metric.value}, at=metric.step)
    def log_text(self, id, text, artifact_file):
        note("samples", text=text, at=int(pathlib.Path(artifact_file).stem.split("-")[1]))
    def log_image(self, id, image, artifact_file):
        note("picture", size=image.size, at=int(pathlib.Path(artifact_file).stem.split("-")[1]))
    def set_terminated(self, id, status):
        note("finish", status=status)
"""
FAKES = {
    "wandb": FAKE_WANDB,
    "swanlab": FAKE_SWANLAB,
    "trackio": FAKE_TRACKIO,
    "mlflow": FAKE_MLFLOW,
}

Calls = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Calls]]:
    """Makes a tracker's package that breaks in a function of that name; returns its calls."""

    def make(name: str, breaks_in: str = "") -> Calls:
        package = tmp_path / "packages" / name
        package.mkdir(parents=True)
        code = f"BREAKS_IN = {breaks_in!r}\n{FAKE}{FAKES[name]}"
        (package / "__init__.py").write_text(code)
        monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.syspath_prepend(str(package.parent))
        calls = package / "calls.jsonl"
        return lambda: [json.loads(line) for line in calls.read_text().splitlines()]

    yield make
    for name in FAKES:
        sys.modules.pop(name, None)


@pytest.fixture
def words(tmp_path: Path, corpus_file: Path, tokenizer_dir: Path) -> list[str]:
    settings = TINY_RUN | {
        "steps": STEPS,
        "eval_interval": 4,
        "data_path": str(corpus_file),
        "tokenizer": str(tokenizer_dir),
        "out_dir": str(tmp_path / "run"),
    }
    return ["pretrain", *flags(settings)]


def records(folder: Path, kind: str = "train") -> dict[int, dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return {r["step"]: r for r in map(json.loads, lines) if r["kind"] == kind}


def tensorboard_events(folder: Path) -> Any:
    """What TensorBoard shows of a run."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return events


def logged(calls: list[dict[str, Any]], key: str) -> list[tuple[int, float]]:
    """At which points of the axis a key has which value, in the order of the calls."""
    return [(c["at"], c["data"][key]) for c in calls if c["what"] == "log" and key in c["data"]]


def losses(folder: Path, steps: range) -> list[tuple[int, float]]:
    return [(step, records(folder)[step]["loss"]) for step in steps]


def test_wandb_gets_settings_and_numbers_in_one_run_through_a_resume(
    tmp_path: Path, words: list[str], fake: Callable[..., Calls]
) -> None:
    calls, run = fake("wandb"), tmp_path / "run"
    words += ["--use_wandb", "--wandb_project", "mine"]
    assert main(words) == 0
    shutil.rmtree(run / "checkpoints" / step_name(STEPS))
    first = calls()
    assert main(words) == 0
    again = calls()[len(first) :]
    for part in (first, again):
        assert [call["what"] for call in part].count("init") == 1
        assert part[0]["what"] == "init" and part[-1]["what"] == "finish"
        assert (part[0]["project"], part[0]["name"], part[0]["resume"]) == ("mine", "run", "allow")
        assert part[0]["config"]["hidden_size"] == TINY_RUN["hidden_size"]
    assert first[0]["id"] == again[0]["id"]
    assert logged(first, "train/loss") == losses(run, range(1, STEPS + 1))
    assert logged(again, "train/loss") == losses(run, range(5, STEPS + 1))
    held_out = records(run, "validation")[STEPS]["bits_per_byte"]
    assert logged(again, "validation/bits_per_byte") == [(STEPS, held_out)]


def test_swanlab_has_each_number_once_through_a_resume(
    tmp_path: Path, words: list[str], fake: Callable[..., Calls]
) -> None:
    calls, run = fake("swanlab"), tmp_path / "run"
    words += ["--tracker", "swanlab"]
    assert main(words) == 0
    shutil.rmtree(run / "checkpoints" / step_name(STEPS))
    assert main(words) == 0
    assert len({call["id"] for call in calls() if call["what"] == "init"}) == 1
    assert logged(calls(), "train/loss") == losses(run, range(1, STEPS + 1))
    assert [step for step, _ in logged(calls(), "validation/loss")] == [4, STEPS]


@pytest.fixture
def jump(monkeypatch: pytest.MonkeyPatch) -> int:
    """Has the loss jump at this step, counted from 1, the first time that it is taken."""
    step = 7

    def jumping(state: Any, batch: Any, lr_scale: float) -> Any:
        if state.progress.step + 1 == step and step - 1 not in state.progress.omitted:
            state.metrics.write("spike", step, loss=9.0)
            raise guard.LossSpikeError
        return guard.step_with_recovery(state, batch, lr_scale)

    monkeypatch.setattr("jielong.training.pretrain.step_with_recovery", jumping)
    return step


@pytest.mark.parametrize("name", FAKES)
def test_a_run_that_goes_back_is_one_run_at_the_tracker_and_goes_on_there(
    name: str, tmp_path: Path, words: list[str], fake: Callable[..., Calls], jump: int
) -> None:
    calls, run = fake(name), tmp_path / "run"
    assert main([*words, "--tracker", name, "--on-loss-spike", "rewind"]) == 0
    whats = [call["what"] for call in calls()]
    assert whats.count("init") == whats.count("finish") == 1 and whats[-1] == "finish"
    assert set(logged(calls(), "spike/loss")) == {(jump, 9.0)}
    shown = logged(calls(), "train/loss")
    assert shown[-1][0] == STEPS
    ours = {step: r["loss"] for step, r in records(run).items() if r["loss"] is not None}
    assert dict(shown).items() >= ours.items()  # and the loss before the jump, later left out
    assert shown.count((5, ours[5])) == {"swanlab": 1}.get(name, 2)  # back to step 4


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_run_that_fails_has_failed_at_the_tracker_and_has_finished_once_resumed(
    name: str,
    words: list[str],
    fake: Callable[..., Calls],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = fake(name)

    def failing(state: Any, batch: Any, lr_scale: float) -> Any:
        if state.progress.step == 5:
            raise TrainingError("the card fell off the bus")
        return guard.step_with_recovery(state, batch, lr_scale)

    with monkeypatch.context() as patched:
        patched.setattr("jielong.training.pretrain.step_with_recovery", failing)
        assert main([*words, "--tracker", name]) == 2
    assert main([*words, "--tracker", name]) == 0
    ends = [call["status"] for call in calls() if call["what"] == "finish"]
    assert ends == ["FAILED", "FINISHED"]


@pytest.mark.parametrize("hangs", [False, True])
def test_a_run_that_its_watchdog_ends_has_failed_at_the_tracker_unless_that_hangs(
    hangs: bool,
    words: list[str],
    fake: Callable[..., Calls],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls, held = fake("mlflow"), threading.Event()

    def hanging(state: Any, batch: Any, lr_scale: float) -> Any:
        if state.progress.step == 5:
            Watch(state)._failed("rank 1 has said nothing for 300 s")  # as another thread does
            assert calls()[-1] == {"what": "finish", "status": "FAILED"} or hangs
            held.set()
            raise TrainingError("and here the process would be ended")
        return guard.step_with_recovery(state, batch, lr_scale)

    monkeypatch.setattr("jielong.training.pretrain.step_with_recovery", hanging)
    monkeypatch.setattr(watch, "LAST_TRACKERS_S", 0.1 if hangs else 60.0)
    if hangs:
        monkeypatch.setattr("jielong.observe.trackers.Trackers.close", lambda *_: held.wait(60))
    assert main([*words, "--tracker", "mlflow"]) == 2 and held.is_set()


def test_mlflow_tells_a_stopped_run_from_a_finished_one(
    words: list[str], fake: Callable[..., Calls], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = fake("mlflow")

    def stopping(state: Any, batch: Any, lr_scale: float) -> Any:
        if state.progress.step == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return guard.step_with_recovery(state, batch, lr_scale)

    monkeypatch.setattr("jielong.training.pretrain.step_with_recovery", stopping)
    assert main([*words, "--tracker", "mlflow"]) == 128 + signal.SIGTERM
    assert [call["status"] for call in calls() if call["what"] == "finish"] == ["KILLED"]


def test_tensorboard_shows_each_step_once_where_a_run_went_back_or_was_resumed(
    tmp_path: Path, words: list[str], jump: int
) -> None:
    pytest.importorskip("tensorboard")
    words += ["--tracker", "tensorboard", "--on-loss-spike", "rewind"]
    run = tmp_path / "run"
    assert main(words) == 0
    shutil.rmtree(run / "checkpoints" / step_name(STEPS))
    assert main(words) == 0  # from step 4: no later checkpoint is left, and the loss jumps again
    events = tensorboard_events(run)
    steps = [event.step for event in events.Scalars("train/learning_rate")]
    assert steps == list(range(1, STEPS + 1))
    assert [event.step for event in events.Scalars("validation/loss")] == [4, STEPS]
    assert [(event.step, event.value) for event in events.Scalars("spike/loss")] == [(jump, 9.0)]


@pytest.mark.parametrize("name", FAKES)
def test_samples_reach_every_tracker_in_one_run_through_a_resume(
    name: str, tmp_path: Path, words: list[str], fake: Callable[..., Calls]
) -> None:
    calls, run = fake(name), tmp_path / "run"
    words += ["--tracker", name, "--sample_tokens", "4", "--sample_prompts", "Tale <b>", "word"]
    assert main(words) == 0
    shutil.rmtree(run / "checkpoints" / step_name(STEPS))
    assert main(words) == 0
    assert len({call["id"] for call in calls() if call["what"] == "init"}) == 1
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ours = [r for r in map(json.loads, lines) if r["kind"] == "sample"]
    assert [r["step"] for r in ours] == [4, 4, STEPS, STEPS]
    sent = [(call["at"], call["text"]) for call in calls() if call["what"] == "samples"]
    assert [step for step, _ in sent] == [4, STEPS, STEPS]
    for record in ours:
        said = f"{record['prompt']}▸{record['text']}"
        assert any(step == record["step"] and said in text for step, text in sent), sent


def test_curves_reach_every_tracker_as_a_picture_once_a_step(
    tmp_path: Path, words: list[str], fake: Callable[..., Calls]
) -> None:
    pytest.importorskip("matplotlib")
    calls = {name: fake(name) for name in FAKES}
    words += ["--tracker", *FAKES, "--report", "true"]
    assert main(words) == 0
    shutil.rmtree(tmp_path / "run" / "checkpoints" / step_name(STEPS))
    first = {name: len(calls[name]()) for name in FAKES}
    assert main(words) == 0  # from step 4: the report is written at the validation and at the end
    for name in FAKES:
        for part in (calls[name]()[: first[name]], calls[name]()[first[name] :]):
            pictures = [call for call in part if call["what"] == "picture"]
            assert [call["at"] for call in pictures].count(STEPS) == 1, name
            assert pictures[-1]["at"] == STEPS and min(pictures[-1]["size"]) > 300, name


def test_tensorboard_shows_the_curves_as_a_picture(tmp_path: Path, words: list[str]) -> None:
    pytest.importorskip("tensorboard")
    pytest.importorskip("matplotlib")
    assert main([*words, "--tracker", "tensorboard", "--report", "true"]) == 0
    picture = tensorboard_events(tmp_path / "run").Images("curves")[-1]
    assert picture.step == STEPS and picture.width > 300 and picture.height > 300


def test_a_picture_that_fails_never_stops_training(
    tmp_path: Path,
    words: list[str],
    fake: Callable[..., Calls],
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("matplotlib")
    fake("mlflow", "picture")
    assert main([*words, "--tracker", "mlflow", "--report", "true"]) == 0
    assert "mlflow failed and is now off (no network in picture)" in capsys.readouterr().out
    assert (tmp_path / "run" / "report.html").is_file()
    assert list(records(tmp_path / "run")) == list(range(1, STEPS + 1))


def test_several_trackers_and_one_that_fails_leaves_the_others_alone(
    tmp_path: Path,
    words: list[str],
    fake: Callable[..., Calls],
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken, sound = fake("wandb", "log"), fake("trackio")
    assert main([*words, "--tracker", "wandb", "trackio", "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["step"] == STEPS  # what trackers print is not in it
    assert [call["what"] for call in broken()].count("log") == 1
    assert logged(sound(), "train/loss") == losses(tmp_path / "run", range(1, STEPS + 1))


@pytest.mark.parametrize("where", ["init", "log", "finish"])
def test_a_tracker_that_fails_never_stops_training(
    where: str,
    tmp_path: Path,
    words: list[str],
    fake: Callable[..., Calls],
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls = fake("wandb", where)
    assert main([*words, "--tracker", "wandb"]) == 0
    said = capsys.readouterr()
    assert said.out.count(f"wandb failed and is now off (no network in {where})") == 1
    assert "Traceback" not in said.out + said.err
    assert list(records(tmp_path / "run")) == list(range(1, STEPS + 1))
    assert [call["what"] for call in calls()].count(where) == 1  # it is left alone after that


def test_a_tracker_that_is_not_installed_is_an_error_before_anything_is_prepared(
    tmp_path: Path,
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for flag in (["--use_wandb"], ["--use_wandb", "true"], ["--tracker", "wandb"]):
        monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not there
        assert main([*words, *flag]) == 2
        said = capsys.readouterr()
        assert said.err.startswith("error: run.tracker=wandb") and said.err.count("\n") == 1
        assert "pip install wandb" in said.err
        assert not (tmp_path / "run").exists()
    assert main([*words, "--use_wandb", "false"]) == 0


def test_swanlabs_local_mode_without_its_page_is_an_error_before_anything_is_prepared(
    tmp_path: Path,
    words: list[str],
    fake: Callable[..., Calls],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake("swanlab")
    monkeypatch.setenv("SWANLAB_MODE", "local")
    monkeypatch.setitem(sys.modules, "swanboard", None)  # as if it were not there
    assert main([*words, "--tracker", "swanlab"]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: SWANLAB_MODE=local") and said.err.count("\n") == 1
    assert "pip install 'swanlab[dashboard]'" in said.err
    assert not (tmp_path / "run").exists()


def test_tensorboard_shows_the_numbers_of_metrics_jsonl(tmp_path: Path, words: list[str]) -> None:
    pytest.importorskip("tensorboard")
    words += ["--sample_tokens", "4", "--sample_prompts", "# <b>Tale"]
    assert main([*words, "--tracker", "tensorboard"]) == 0
    events = tensorboard_events(tmp_path / "run")
    samples = events.Tensors("sample/1/text_summary")
    assert [event.step for event in samples] == [4, STEPS]
    shown = samples[0].tensor_proto.string_val[0].decode()
    assert shown.startswith("    # <b>Tale▸")  # a block of code in Markdown: nothing acts
    for name in ("loss", "grad_norm", "learning_rate"):
        shown = {event.step: event.value for event in events.Scalars(f"train/{name}")}
        assert shown == pytest.approx(
            {step: record[name] for step, record in records(tmp_path / "run").items()}, rel=1e-6
        )
    assert {event.step for event in events.Scalars("validation/loss")} == {4, STEPS}
