"""`--minutes`: a model and a budget that fit the time, chosen once and kept."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
import torch

import jielong
from jielong.checkpoint import checkpoint as ckpt
from jielong.config.load import load_config, with_default_budget
from jielong.data.shards import open_dataset
from jielong.errors import ConfigError
from jielong.runtime.run_folder import RunFolder
from jielong.tokenization.tokenizer import Tokenizer
from jielong.training import minutes, pace, text_size
from jielong.training.minutes import tokens_in
from jielong.training.speed import Machine, Speed, measure_speed
from jielong.training.texts import OpenText, RunTexts
from tiny import TEXTS, in_this_process

CPU = Machine(torch.device("cpu"))


def test_the_time_is_used_and_not_exceeded() -> None:
    config = load_config("small")
    speed = Speed(token=1e-4, update=0.05)
    for seconds in (30.0, 300.0, 3000.0):
        tokens = tokens_in(config, speed, seconds, text_tokens=200_000, held_out=20_000)
        step = minutes.default_tokens_per_step(tokens, config.model.hidden_size)
        spent = speed.of_run(tokens, step)
        assert 0.5 * seconds < spent < minutes.USED_SHARE * seconds
    more = tokens_in(config, Speed(1e-5, 0.05), 300.0, 200_000)
    assert more > 2 * tokens_in(config, speed, 300.0, 200_000)


def test_slow_validations_leave_half_of_the_time_for_training() -> None:
    config, slow = load_config("small", eval_tokens=65_536), Speed(token=4e-3, update=0.5)
    tokens = tokens_in(config, slow, 240.0, text_tokens=1_700_000, held_out=65_536)
    step = minutes.default_tokens_per_step(tokens, config.model.hidden_size)
    assert 100 < slow.of_run(tokens, step) <= 120


def test_a_speed_is_positive_and_leaves_random_numbers_alone() -> None:
    config = load_config("tiny", vocab_size=128, max_seq_len=64)
    before = torch.get_rng_state()
    speed = measure_speed(config, CPU)
    assert speed.token > 0 and speed.update > 0
    assert torch.get_rng_state().equal(before)


@pytest.mark.parametrize(
    ("values", "preset", "minutes", "auto"),
    [
        ({"data_path": "x"}, None, 10.0, True),
        ({"minutes": 3}, None, 3, True),
        ({"minutes": 3}, "small", 3, False),
        ({"minutes": 3, "hidden_size": 64}, None, 3, False),
        ({"epochs": 2}, None, None, False),
        ({"hidden_size": 64}, None, None, False),
        ({"init_from": "model"}, None, None, False),
        ({}, "tiny", None, False),
    ],
)
def test_when_time_is_the_budget_and_when_the_size_is_chosen(
    values: dict[str, object], preset: str | None, minutes: float | None, auto: bool
) -> None:
    found = with_default_budget(values, preset, None)
    assert found.get("minutes") == minutes and found.get("auto_size", False) == auto


def test_two_budgets_are_refused() -> None:
    for other in ("epochs", "tokens", "steps"):
        with pytest.raises(ConfigError, match=f"minutes and {other} both set a budget"):
            with_default_budget({"minutes": 3, other: 4}, None, None)
    with pytest.raises(ConfigError, match="auto_size needs a time"):
        load_config(auto_size=True)

    with pytest.raises(ConfigError, match="epochs and steps both set a budget: give one"):
        load_config(epochs=1.0, steps=4)


@pytest.mark.parametrize(
    "budget", [{"minutes": 3.0}, {"epochs": 1.0}, {"epochs": 2.0}, {"tokens": 1000}, {"steps": 7}]
)
def test_a_budget_that_is_given_replaces_the_one_of_the_file(
    tmp_path: Path, budget: dict[str, float]
) -> None:
    file = tmp_path / "mine.toml"
    unset = {"minutes": None, "epochs": 1.0, "tokens": None, "steps": None}
    for line in ("steps = 100", "tokens = 5000", "epochs = 4", "minutes = 2"):
        file.write_text(f"[training]\n{line}\n")
        found = load_config(file=file, **budget).flat()
        assert {name: found[name] for name in unset} == unset | budget, line
    file.write_text(load_config(steps=100).to_toml())  # which has epochs = 1.0 as well
    found = load_config(file=file, **budget).flat()
    assert {name: found[name] for name in unset} == unset | budget


def test_two_budgets_in_a_file_are_refused_by_its_name(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[training]\nepochs = 3\nsteps = 1000\n")
    with pytest.raises(ConfigError, match=r"mine\.toml: epochs and steps both set a budget"):
        load_config(file=file)
    file.write_text("[training]\nminutes = 3\ntokens = 1000\n")
    with pytest.raises(ConfigError, match=r"mine\.toml: minutes and tokens both set a budget"):
        load_config(file=file)
    file.write_text(load_config(minutes=3.0, auto_size=True).to_toml())
    assert load_config(file=file).training.minutes == 3


@pytest.mark.parametrize(
    ("seconds", "asked", "expected", "epochs"),
    [
        (15.0, None, 0, 18.8),  # of the 13.8 s that are used; 30 epochs take 22
        (30.0, None, 1, 15.7),
        (50.0, None, 1, 26.1),
        (600.0, None, 3, 30.0),
        (10.0, None, 0, 12.5),
        (10.0, 2, 2, 3.3),
        (600.0, 0, 0, 30.0),
    ],
)
def test_the_time_is_shared_with_teachers_where_a_text_could_be_read_very_often(
    seconds: float,
    asked: int | None,
    expected: int,
    epochs: float,
    tmp_path: Path,
    corpus_file: Path,
    tokenizer_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jielong.prepare(corpus_file, tokenizer_dir, tmp_path / "data", validation_fraction=0.0)
    dataset = open_dataset(tmp_path / "data")
    token = 22.0 / 30 / len(dataset.train)  # so that 30 epochs take 22 seconds
    monkeypatch.setattr(minutes, "measure_speed", lambda *_: Speed(token, 1e-9))
    monkeypatch.setattr(minutes, "PAUSE_S", 0.0)
    monkeypatch.setattr(minutes, "_seconds_left", lambda *_: seconds)
    config = load_config("tiny", minutes=1.0, max_seq_len=16, teachers=asked)
    texts = RunTexts(OpenText("", dataset, 1.0), (), ("",))
    said: list[str] = []
    (tmp_path / "run").mkdir()
    folder = RunFolder(tmp_path / "run")
    found = minutes.choose_tokens(config, texts, folder, CPU, 0.0, said.append)
    assert found["teachers"] == expected
    assert found["tokens"] / len(dataset.train) == pytest.approx(epochs, rel=0.05)
    assert any(line.startswith("teachers ") for line in said) == (expected > 0 and asked is None)
    assert any("ends sooner" in line for line in said) == (epochs == 30)
    assert minutes.choose_tokens(config, texts, folder, CPU, 0.0, said.append) == found


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A run of some seconds, on a machine whose speed is made up."""

    def speed(config: object, machine: Machine, epochs: float = 1.0) -> Speed:
        return Speed(token=0.1 / 60, update=1e-4)

    monkeypatch.setattr(minutes, "measure_speed", speed)
    monkeypatch.setattr(pace, "LATEST_CHECK", 0.0)
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(TEXTS))
    words = ["pretrain", "--data-path", str(text), "--out-dir", str(tmp_path / "run")]
    return [*words, "--minutes", "0.1", "--sample-tokens", "0", "--device", "cpu"]


def test_what_was_chosen_is_kept_and_a_resumed_run_measures_nothing(
    tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    status, said = in_this_process(words)
    assert status == 0, said
    assert "chosen     64 wide, 3 layers" in said
    run = tmp_path / "run"
    chosen = tomllib.loads((run / "chosen.toml").read_text())
    assert chosen["model"]["hidden_size"] == 64 and chosen["training"]["tokens"] > 0
    model = ckpt.load_model(ckpt.find_model_folder(run))[0]
    assert model.config.hidden_size == 64
    last = ckpt.find_model_folder(run, "last")

    def never(config: object, machine: Machine, epochs: float = 1.0) -> Speed:
        raise AssertionError("measured again")

    monkeypatch.setattr(minutes, "measure_speed", never)
    before = (last / "model.safetensors").read_bytes()
    step = ckpt.step_of(last)
    for path in ckpt.checkpoints(run / "checkpoints"):
        if path == last:
            for file in path.iterdir():
                file.unlink()
            path.rmdir()
    status, said = in_this_process(words)
    assert status == 0, said
    assert "chosen  " not in said
    again = ckpt.find_model_folder(run, "last")
    assert ckpt.step_of(again) == step
    assert (again / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "content", "more", "told"),
    [
        ("a.jsonl", b'{"body": "some text"}\n' * 9, [], "no field 'text'; fields seen: body"),
        (
            "a.jsonl",
            b'{"text": "a"}\n' * 9,
            ["--text-field", "b"],
            "no field 'b'; fields seen",
        ),
        ("a.csv", b"title,body\n" + b"a,b\n" * 9, [], "'text'"),
        ("a.jsonl", b"not json\n" * 9, [], "a.jsonl:1"),
        ("a.txt", "文本\n".encode("gb18030") * 9, [], "--encoding"),
        ("a.txt", b"", [], "no text in data.data_path"),
    ],
)
def test_a_mistake_in_the_text_is_told_before_the_machine_is_measured(
    tmp_path: Path,
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    content: bytes,
    more: list[str],
    told: str,
) -> None:
    def never(*_: object) -> Speed:
        raise AssertionError("measured")

    monkeypatch.setattr(minutes, "measure_speed", never)
    (tmp_path / name).write_bytes(content)
    words[words.index("--data-path") + 1] = str(tmp_path / name)
    words[words.index("--out-dir") + 1] = str(tmp_path / "runs" / "new")
    status, said = in_this_process([*words, *more])
    assert status == 2 and said.splitlines()[-1].startswith("error: ") and told in said, said
    assert not (tmp_path / "runs").exists()  # nothing is left of a run that has not begun


def test_what_is_odd_at_the_end_of_a_long_text_is_not_looked_for_beforehand(
    tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_size, "LOOK_S", -1.0)
    lines = ['{"text": "a good line of it"}', *['{"body": "a bad one"}'] * 9]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    words[words.index("--data-path") + 1] = str(tmp_path / "a.jsonl")
    status, said = in_this_process(words)
    assert status == 2 and "chosen  " in said and "too much text would be left out" in said, said


def test_what_a_start_chose_that_was_stopped_before_its_text_is_chosen_anew(
    tmp_path: Path, words: list[str]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    chosen = run / "chosen.toml"
    chosen.write_text("[model]\nhidden_size = 32\n")
    status, said = in_this_process(words)
    assert status == 0, said
    assert "chosen     64 wide" in said and "0.0M" not in said
    assert "ignored: " not in said  # the vocabulary, for which nobody has asked
    assert tomllib.loads(chosen.read_text())["model"]["hidden_size"] == 64


def test_a_run_that_goes_on_with_more_minutes_trains_on_more_tokens(
    tmp_path: Path, words: list[str]
) -> None:
    assert in_this_process(words)[0] == 0
    run = tmp_path / "run"
    chosen = run / "chosen.toml"
    first = tomllib.loads(chosen.read_text())
    ended = ckpt.step_of(ckpt.find_model_folder(run, "last"))
    words[words.index("0.1")] = "0.2"
    status, said = in_this_process([*words, "--override"])
    assert status == 0, said
    second = tomllib.loads(chosen.read_text())
    assert second["training"]["tokens"] > 1.5 * first["training"]["tokens"]
    assert second["model"] == first["model"]
    assert ckpt.step_of(ckpt.find_model_folder(run, "last")) > ended


def test_json_is_all_that_is_printed_and_says_what_came_out(words: list[str]) -> None:
    status, said = in_this_process([*words, "--json"])
    assert status == 0
    found = json.loads(said)
    assert found["bits_per_byte"] > 0 and found["seconds"] > 0 and found["tokens"] > 0
    assert found["choices"]["model"]["hidden_size"] == 64
    assert Path(found["checkpoint"]).is_dir() and found["step"] == found["total_steps"]


def test_a_prepared_dataset_and_its_tokenizer_are_taken_as_they_are(
    words: list[str], tmp_path: Path, corpus_file: Path, tokenizer_dir: Path
) -> None:
    jielong.prepare(corpus_file, tokenizer_dir, tmp_path / "data")
    words[words.index("--data-path") + 1] = str(tmp_path / "data")
    status, said = in_this_process(words)
    assert status == 0, said
    size = Tokenizer.load(tokenizer_dir).vocab_size
    assert f"vocabulary {size}: the largest" in said and "ignored:" not in said
