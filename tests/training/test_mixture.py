"""`--data NAME=SHARE:PATH`: several texts in one run, prepared, measured and resumed exactly."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jielong.checkpoint import checkpoint as ckpt
from jielong.config.load import load_config
from jielong.config.settings import DataConfig, TrainingConfig
from jielong.data.batches import Batches
from jielong.data.mixture import Mixture, Part
from jielong.data.shards import open_dataset
from jielong.errors import ConfigError
from jielong.evaluation.sums import Likelihood, mixed_likelihood
from tiny import TINY_RUN, ListStream, environment, flags, in_this_process, random_documents

WEIGHTS = ("model.safetensors", "training_weights.safetensors", "optimizer.safetensors")
NOT_THE_SAME = ("time", "seconds", "tokens_per_second", "memory_bytes", "others_share")
STREAMS = [ListStream(random_documents(n, longest=20, seed=n)) for n in (60, 30, 12)]


def mixed(shares: list[float], size: int = 5, passes: float = 1.0, **data: Any) -> Batches:
    config = DataConfig(max_seq_len=8, **data)
    training = TrainingConfig(global_batch_size=size, seed=3)
    parts = tuple(Part(s, share) for s, share in zip(STREAMS[1:], shares, strict=False))
    return Batches(STREAMS[0], config, training, mixture=Mixture(parts, passes))


@given(st.floats(0.02, 0.45), st.floats(0.02, 0.45), st.integers(1, 12))
@settings(max_examples=25, deadline=None)
def test_every_stretch_of_a_run_has_its_share_of_each_text(a: float, b: float, size: int) -> None:
    batches = mixed([a, b], size)
    bounds = np.append([0], batches.source.begins)
    order = np.concatenate([batches.step_windows(s) for s in range(batches.steps_per_epoch)])
    assert sorted(order) == list(range(batches.windows))  # each once
    counts = np.diff(bounds)
    assert counts[0] == batches.main_windows
    for share, count in zip((a, b), counts[1:], strict=True):
        # the nearest whole number of windows beside the main text's
        assert abs(count - counts[0] * share / (1 - a - b)) <= 0.5 or count == 1
    of = np.searchsorted(bounds, order, side="right") - 1
    for start in range(0, len(of), size):
        stretch = of[start : start + size]
        for text, count in enumerate(counts):
            assert abs((stretch == text).sum() - len(stretch) * count / len(of)) < 2.5


def test_each_text_is_read_whole_before_any_of_it_comes_again() -> None:
    batches = mixed([0.3, 0.2])
    for part, stream in enumerate(STREAMS[1:]):
        own = Batches(stream, batches.data, TrainingConfig(global_batch_size=1, seed=3))
        begin, end = batches.source.begins[part : part + 2]
        rows = [
            batches.load(np.array([w]), batches.span(s).epoch).tokens[0].tolist()
            for s in range(6 * batches.steps_per_epoch)
            for w in batches.step_windows(s)
            if begin <= w < end
        ]
        for number in range(len(rows) // own.windows):
            read = rows[number * own.windows : (number + 1) * own.windows]
            whole = own.load(np.arange(own.windows), number).tokens.tolist()
            assert sorted(read) == sorted(whole)


def test_epochs_of_the_texts_are_passes_of_the_one_that_is_read_most_often() -> None:
    batches = mixed([0.3, 0.2], passes=3.0)
    for epochs in (1.0, 2.0):
        total = batches.total_steps(TrainingConfig(global_batch_size=5, seed=3, epochs=epochs))
        assert batches.windows_before(total) == 3 * epochs * batches.windows


def test_the_likelihood_of_a_mixture_is_that_of_a_token_drawn_from_it() -> None:
    one = Likelihood(2.0, 0.0, 2.0 / np.log(2) / 4, tokens=100, bytes=400, seconds=1.0)
    two = Likelihood(4.0, 0.0, 4.0 / np.log(2) / 2, tokens=300, bytes=600, seconds=1.0)
    found = mixed_likelihood([(0.75, one), (0.25, two)])
    assert found.loss == pytest.approx(2.5)
    assert found.bits_per_byte == pytest.approx(2.5 / np.log(2) / 3.5)
    assert (found.tokens, found.bytes) == (400, 1000)
    alone = mixed_likelihood([(0.3, two)])
    assert alone.bits_per_byte == pytest.approx(two.bits_per_byte)


class Place:
    """Two texts and runs on them."""

    def __init__(self, folder: Path, corpus: Path, tokenizer: Path) -> None:
        self.folder, self.rules = folder, folder / "rules.jsonl"
        rows = (f"Rule {i}. " + " ".join(f"item{i * j % 13}" for j in range(9)) for i in range(40))
        self.rules.write_text("\n".join(json.dumps({"text": row}) for row in rows))
        self.data = (f"tales=0.7:{corpus}", f"rules=0.3:{self.rules}")
        self.settings = TINY_RUN | {"data": self.data, "tokenizer": tokenizer}

    def words(self, name: str, *words: str, **changes: Any) -> list[str]:
        values = self.settings | changes | {"out_dir": self.folder / name}
        kept = {key: value for key, value in values.items() if value is not None}
        return ["pretrain", *words, *flags(kept)]

    def run(self, name: str, *words: str, **changes: Any) -> tuple[int, str]:
        return in_this_process(self.words(name, *words, **changes))

    def records(self, name: str, kind: str) -> dict[int, dict[str, Any]]:
        lines = (self.folder / name / "metrics.jsonl").read_text().splitlines()
        found = {r["step"]: r for r in map(json.loads, lines) if r["kind"] == kind}
        return {s: {k: v for k, v in r.items() if k not in NOT_THE_SAME} for s, r in found.items()}

    def weights(self, name: str) -> list[bytes]:
        last = ckpt.find_model_folder(self.folder / name, "last")
        return [(last / file).read_bytes() for file in WEIGHTS]


@pytest.fixture(scope="module")
def place(
    corpus_file: Path, tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Place:
    place = Place(tmp_path_factory.mktemp("mixture"), corpus_file, tokenizer_dir)
    status, said = place.run("whole", keep_checkpoints=9)
    assert status == 0, said
    (place.folder / "whole.log").write_text(said)
    return place


def test_each_source_is_prepared_measured_and_reported(place: Place) -> None:
    said = (place.folder / "whole.log").read_text()
    whole = place.records("whole", "validation")
    parts = {n: place.records("whole", f"source_{n}_validation") for n in ("tales", "rules")}
    assert set(whole) == set(parts["tales"]) == set(parts["rules"]) == {8, 16, 24}
    for step in whole:
        expected = 0.7 * parts["tales"][step]["loss"] + 0.3 * parts["rules"][step]["loss"]
        assert whole[step]["loss"] == pytest.approx(expected)
    best = json.loads((place.folder / "whole" / "checkpoints" / "best.json").read_text())["step"]
    assert best == min(whole, key=lambda step: whole[step]["loss"])
    assert "mixture    tales: " in said and "mixture    rules: " in said
    for name in parts:
        assert open_dataset(place.folder / "whole" / "data" / name).train
        bits = f"{parts[name][best]['bits_per_byte']:.4f}"
        line = next(line for line in said.splitlines() if line.startswith(f"  {name} "))
        assert "epochs" in line and f"· {bits}" in line and "tokens" in line


def test_a_sources_loss_is_that_of_its_text_alone(place: Place) -> None:
    start = {"init_from": place.folder / "whole", "learning_rate": 0, "steps": 1}
    status, said = place.run("alone", data=None, data_path=place.rules, **start)
    assert status == 0, said
    best = json.loads((place.folder / "whole" / "checkpoints" / "best.json").read_text())["step"]
    there = place.records("whole", "source_rules_validation")[best]["loss"]
    assert place.records("alone", "validation")[1]["loss"] == pytest.approx(there, abs=1e-6)


def test_a_run_stopped_and_resumed_equals_the_one_that_was_not(place: Place) -> None:
    resumed = place.folder / "resumed"
    shutil.copytree(place.folder / "whole", resumed)
    for step in (16, 24):
        shutil.rmtree(resumed / "checkpoints" / ckpt.step_name(step))
    status, said = place.run("resumed", keep_checkpoints=9)
    assert status == 0 and "resuming from" in said, said
    assert place.weights("resumed") == place.weights("whole")
    for kind in ("train", "validation", "source_tales_validation", "source_rules_validation"):
        assert place.records("resumed", kind) == place.records("whole", kind)


def test_two_processes_train_as_one_does(place: Place) -> None:
    changes = {"optimizer": "adamw", "adam_eps": 1e-3, "steps": 12}
    assert place.run("one", **changes)[0] == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    words = place.words("two", **changes)
    subprocess.run([*command, "-m", "jielong", *words], env=environment(), check=True)
    for kind in ("train", "validation", "source_rules_validation"):
        one, two = (place.records(name, kind) for name in ("one", "two"))
        assert one.keys() == two.keys() and len(one)
        for step in one:
            assert two[step]["loss"] == pytest.approx(one[step]["loss"], abs=2e-5)
            assert two[step]["tokens"] == one[step]["tokens"]


def test_epochs_decide_the_budget_and_prepared_datasets_are_taken(place: Place) -> None:
    folders = {name: place.folder / "whole" / "data" / name for name in ("tales", "rules")}
    data = (f"tales=epochs=2:{folders['tales']}", f"rules=epochs=3:{folders['rules']}")
    status, said = place.run("epochs", "--json", data=data, steps=None, epochs=1)
    assert status == 0, said
    sources = json.loads(said.splitlines()[-1])["sources"]
    assert sources["tales"]["epochs"] == pytest.approx(2, abs=0.1)
    assert sources["rules"]["epochs"] == pytest.approx(3, abs=0.1)
    assert sources["rules"]["bits_per_byte"] > 0
    assert not (place.folder / "epochs" / "data").exists()


def test_a_tokenizer_is_trained_on_all_sources_and_teachers_read_the_same(place: Place) -> None:
    changes = {"tokenizer": None, "vocab_size": 300, "teachers": 1, "steps": 2}
    status, said = place.run("own", **changes)
    assert status == 0, said
    teacher = load_config(file=place.folder / "own" / "teachers" / "1" / "config.toml")
    assert [text.partition(":")[0] for text in teacher.data.mixture] == ["tales=0.7", "rules=0.3"]


def test_another_mixture_or_text_is_refused_and_nothing_is_lost(place: Place) -> None:
    data = (place.data[0], place.data[1].replace("=0.3", "=0.5"))
    before = place.weights("whole")
    status, said = place.run("whole", keep_checkpoints=9, data=data)
    assert status == 2 and "data.mixture" in said and "--override" in said
    copy = place.folder / "changed"
    shutil.copytree(place.folder / "whole", copy)
    shutil.rmtree(copy / "data" / "rules")
    lines = place.rules.read_text().splitlines()
    (place.folder / "less.jsonl").write_text("\n".join(lines[:20]))
    changed = (place.data[0], f"rules=0.3:{place.folder / 'less.jsonl'}")
    status, said = place.run("changed", "--override", keep_checkpoints=9, data=changed, steps=30)
    assert status == 2 and "another mixture of texts" in said, said
    assert place.weights("whole") == before == place.weights("changed")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (("a=1:x", "b"), "has not all its parts"),
        (("a=1:x", "b=1:"), "has not all its parts"),
        (("a=1:x", "b=0:y"), "no share above 0"),
        (("a=1:x", "b=-1:y"), "no share above 0"),
        (("a=1:x", "b=nan:y"), "no share above 0"),
        (("a=1:x", "b=much:y"), "no share above 0"),
        (("a=1:x", "b=times=2:y"), "no share above 0, nor epochs=N"),
        (("a=1:x", "b=epochs=2:y"), "shares of some sources and epochs of others"),
        (("a=1:x", "a=1:y"), "names 'a' twice"),
        (("a=1:x", "b=1:x"), "are the same text"),
        (("a=1:x", "../b=1:y"), "letters, digits"),
        (("a=1:x", "b=1:-"), "standard input"),
        (("a=1:x",), "one source"),
    ],
)
def test_a_mixture_that_says_nothing_is_refused(data: tuple[str, ...], says: str) -> None:
    with pytest.raises(ConfigError, match=r"data\.mixture") as error:
        load_config(mixture=data)
    assert says in str(error.value)
    with pytest.raises(ConfigError, match="both given"):
        load_config(mixture=("a=1:x", "b=1:hf://c:d"), data_path="x")


def test_a_mistaken_source_is_told_before_anything_is_made(place: Place) -> None:
    corpus = place.data[0].partition(":")[2]
    for path, says in (
        (place.folder / "nowhere.jsonl", "no such file"),
        (Path(corpus).parent, "too: leave it out of one"),
    ):
        status, said = place.run("mistaken", data=(place.data[0], f"other=0.5:{path}"))
        assert status == 2 and "data.mixture='other=0.5:" in said and says in said, said
        assert not (place.folder / "mistaken").exists()
