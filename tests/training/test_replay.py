"""`--replay`: older text in a run is prepared, measured, kept and resumed as the new text is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jielong.checkpoint import checkpoint as ckpt
from jielong.config.load import load_config
from jielong.data.batches import Batches
from jielong.data.mixture import Mixture, Part
from jielong.data.shards import open_dataset
from jielong.errors import ConfigError
from tiny import TINY_RUN, flags, in_this_process

NOT_THE_SAME = ("time", "seconds", "tokens_per_second", "memory_bytes", "others_share")
WEIGHTS = ("model.safetensors", "training_weights.safetensors", "optimizer.safetensors")


def old_text(i: int) -> str:
    return f"Rule {i}. " + " ".join(f"item{i * j % 13}" for j in range(5 + i % 20))


class Place:
    """A new and an older text, and runs on them."""

    def __init__(self, folder: Path, corpus: Path, tokenizer: Path) -> None:
        self.folder, self.old = folder, folder / "old.jsonl"
        rows = (json.dumps({"text": old_text(i)}) for i in range(60))
        self.old.write_text("\n".join(rows))
        self.settings = TINY_RUN | {"data_path": corpus, "tokenizer": tokenizer}
        self.settings |= {"replay": f"{self.old}=0.25", "eval_interval": 6, "keep_checkpoints": 9}

    def run(self, name: str, *more: str, **changes: Any) -> tuple[int, str]:
        settings = self.settings | {"out_dir": self.folder / name} | changes
        settings = {k: v for k, v in settings.items() if v is not None}
        return in_this_process(["pretrain", *flags(settings), *more])

    def records(self, name: str, kind: str) -> dict[int, dict[str, Any]]:
        lines = (self.folder / name / "metrics.jsonl").read_text().splitlines()
        found = {r["step"]: r for r in map(json.loads, lines) if r["kind"] == kind}
        return {
            step: {k: v for k, v in r.items() if k not in NOT_THE_SAME} for step, r in found.items()
        }

    def weights(self, name: str) -> list[bytes]:
        last = ckpt.find_model_folder(self.folder / name, "last")
        return [(last / file).read_bytes() for file in WEIGHTS]


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, corpus_file: Path, tokenizer_dir: Path
) -> Iterator[Place]:
    made = Place(tmp_path_factory.mktemp("replay"), corpus_file, tokenizer_dir)
    status, said = made.run("whole")
    assert status == 0, said
    (made.folder / "said").write_text(said)
    yield made


def test_both_texts_are_measured_at_each_validation_and_in_the_last_lines(place: Place) -> None:
    new, old = (place.records("whole", kind) for kind in ("validation", "replay_validation"))
    assert list(new) == list(old) == [6, 12, 18, 24]
    said = (place.folder / "said").read_text()
    for step in new:
        for records, of in ((new, ""), (old, "older text, ")):
            found = records[step]
            assert f"step {step} · {of}held-out loss {found['loss']:.4f}" in said
    best = json.loads((place.folder / "whole" / "checkpoints" / "best.json").read_text())["step"]
    assert best == min(new, key=lambda step: new[step]["loss"])  # by the new text alone
    last_lines = said[said.index("checkpoint  ") :]
    assert f"held-out    loss {new[best]['loss']:.4f}" in last_lines
    assert f"older text  loss {old[best]['loss']:.4f}" in last_lines


def test_the_older_loss_is_that_of_the_older_text_alone(place: Place) -> None:
    """A run on the older text alone holds out the same documents, and measures them so."""
    status, said = place.run("plain", replay=None, data_path=place.old, steps=1)
    assert status == 0, said
    manifests = [
        open_dataset(place.folder / name).manifest["fingerprint"]
        for name in ("plain/data", "whole/replay")
    ]
    assert manifests[0] == manifests[1]
    start = {"init_from": place.folder / "whole", "learning_rate": 0, "steps": 1}
    assert place.run("still", **start)[0] == place.run("other", **start, replay=None)[0] == 0
    best = json.loads((place.folder / "whole" / "checkpoints" / "best.json").read_text())["step"]
    for kind in ("validation", "replay_validation"):
        before = place.records("whole", kind)[best]["loss"]
        assert place.records("still", kind)[1]["loss"] == pytest.approx(before, abs=1e-6)


def test_the_batches_of_a_run_have_the_share_that_was_asked_for(place: Place) -> None:
    config = load_config(file=place.folder / "whole" / "config.toml")
    new, old = (open_dataset(place.folder / "whole" / part).train for part in ("data", "replay"))
    batches = Batches(new, config.data, config.training, mixture=Mixture((Part(old, 0.25),)))
    steps = range(TINY_RUN["steps"])
    windows = [int(w) for step in steps for w in batches.step_windows(step)]
    replayed = sum(w >= batches.main_windows for w in windows)
    assert replayed / len(windows) == pytest.approx(0.25, abs=0.02)
    targets = sum(batches.batch(step).target_count for step in steps)
    assert targets == place.records("whole", "train")[24]["tokens"]


def test_a_run_stopped_and_resumed_equals_the_one_that_was_not(place: Place) -> None:
    whole, resumed = place.folder / "whole", place.folder / "resumed"
    shutil.copytree(whole, resumed)
    for step in (18, 24):
        shutil.rmtree(resumed / "checkpoints" / ckpt.step_name(step))
    status, said = place.run("resumed")
    assert status == 0 and "resuming from" in said, said
    assert place.weights("resumed") == place.weights("whole")
    for kind in ("train", "validation", "replay_validation"):
        assert place.records("resumed", kind) == place.records("whole", kind)


def test_a_started_run_goes_on_without_the_file_and_refuses_other_older_text(
    place: Place, tmp_path: Path
) -> None:
    moved = tmp_path / "moved.jsonl"
    settings = {"replay": f"{moved}=0.25", "eval_interval": 12}
    shutil.copy(place.old, moved)
    assert place.run("moved", **settings)[0] == 0
    before = place.weights("moved")
    last = ckpt.find_model_folder(place.folder / "moved", "last")
    shutil.rmtree(last)
    moved.unlink()
    status, said = place.run("moved", **settings)
    assert status == 0 and "replay (the run's own)" in said
    assert place.weights("moved") == before
    status, said = place.run("moved", **(settings | {"replay": f"{place.old}=0.25"}))
    assert status == 2 and "data.replay: " in said and "--override" in said
    for changed in (None, f"{tmp_path / 'less.jsonl'}=0.25"):
        lines = place.old.read_text().splitlines()[:40]
        (tmp_path / "less.jsonl").write_text("\n".join(lines))
        shutil.rmtree(place.folder / "changed", ignore_errors=True)
        shutil.copytree(place.folder / "moved", place.folder / "changed")
        status, said = place.run("changed", "--override", **(settings | {"replay": changed}))
        assert status == 2 and ("data.replay=None" in said or "holds another dataset" in said), said
        assert place.weights("changed") == before


def test_the_older_text_ends_where_the_settings_say_and_a_change_of_it_is_told(
    place: Place, tmp_path: Path
) -> None:
    older = tmp_path / "older.txt"
    older.write_text("<sep>".join(old_text(i) for i in range(60)))
    settings = {"replay": f"{older}=0.25", "document_separator": "<sep>", "steps": 2}
    assert place.run("separated", **settings)[0] == 0
    counts = open_dataset(place.folder / "separated" / "replay").manifest["counts"]
    assert (counts["documents"], counts["text_units"]) == (60, {"<sep>": 60})
    with older.open("a") as file:
        file.write("<sep>one more")
    status, said = place.run("separated", **settings)
    assert status == 0 and f"the text is not as it was: {older} has changed since." in said, said


def test_a_prepared_dataset_can_be_replayed(place: Place) -> None:
    folder = place.folder / "whole" / "replay"
    status, said = place.run("prepared", replay=f"{folder}=0.25")
    assert status == 0 and not (place.folder / "prepared" / "replay").exists(), said
    assert place.weights("prepared") == place.weights("whole")


def test_a_flag_and_a_file_say_the_same(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(f'[data]\nreplay = "{place.old}=0.25"\n')
    status, said = place.run("file", "--config", str(file), replay=None)
    assert status == 0, said
    assert place.weights("file") == place.weights("whole")


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("old.jsonl", "no =: write --replay PATH=SHARE"),
        ("=0.2", "no path"),
        ("old.jsonl=", "the share '' is not a number"),
        ("old.jsonl=half", "the share 'half' is not a number"),
        ("old.jsonl=0", "above 0 and below 1"),
        ("old.jsonl=1", "above 0 and below 1"),
        ("old.jsonl=20", "above 0 and below 1"),
        ("old.jsonl=nan", "above 0 and below 1"),
        ("-=0.2", "standard input cannot be replayed"),
        ("new.jsonl=0.2", "names the text of data.data_path"),
    ],
)
def test_a_value_that_says_nothing_is_refused(value: str, says: str) -> None:
    with pytest.raises(ConfigError, match=r"data\.replay") as error:
        load_config(replay=value, data_path="new.jsonl")
    assert says in str(error.value)


def test_a_mistaken_path_is_told_before_anything_is_made(place: Place) -> None:
    corpus = Path(str(place.settings["data_path"]))
    for path, says in (
        (place.folder / "nowhere.jsonl", "no such file"),
        (corpus.parent / ".." / corpus.parent.name / corpus.name, "names the text of"),
        (corpus.parent, "is a file of data.data_path too"),
        (place.old.parent, "is a file of data.validation_path too"),
    ):
        status, said = place.run("mistaken", replay=f"{path}=0.2", validation_path=place.old)
        assert status == 2 and "data.replay=" in said and says in said
        assert not (place.folder / "mistaken").exists()
    assert load_config(replay="a=b/old.jsonl=0.2").data.replay == "a=b/old.jsonl=0.2"


def test_a_dataset_of_another_tokenizer_is_refused(place: Place, tmp_path: Path) -> None:
    status, said = place.run("own", replay=None, tokenizer=None, vocab_size=265, steps=1)
    assert status == 0, said
    status, said = place.run("odd", replay=f"{place.folder / 'own' / 'data'}=0.2")
    assert status == 2 and "data.replay=" in said and "made with the tokenizer" in said


def test_the_summary_says_how_often_each_text_is_read(place: Place) -> None:
    status, said = place.run("twice", steps=None, epochs=2, eval_interval=100)
    assert status == 0 and "(2 epochs, " in said, said
    line = next(line for line in said.splitlines() if line.startswith("replay"))
    assert line.startswith(("replay     25.", "replay     24."))
    new, old = (open_dataset(place.folder / "twice" / p).train for p in ("data", "replay"))
    times = 2 * len(new) / 3 / len(old)
    assert f"which is read {times:.2g} times" in line
