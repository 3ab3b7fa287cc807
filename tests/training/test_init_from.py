"""`--init-from`: a new run from the weights of a model folder, whoever wrote it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from jielong.checkpoint import checkpoint as ckpt
from jielong.cli.main import main
from jielong.config.load import load_config
from jielong.config.settings import IGNORE_INDEX
from jielong.data.batches import Batches
from jielong.data.shards import open_dataset
from jielong.interop.minimind import import_minimind
from jielong.tokenization.tokenizer import Tokenizer, train_tokenizer
from tiny import TINY_RUN, flags, with_random_weights

transformers = pytest.importorskip("transformers")
FIXTURES = Path(__file__).parents[1] / "fixtures"
SETTINGS = TINY_RUN | {"steps": 2, "packing": "pad", "learning_rate": 1e-3}
SIZES: dict[str, Any] = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 80,
    "max_position_embeddings": 40,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
CLASSES = {
    "Llama": (transformers.LlamaConfig, {"rms_norm_eps": 1e-5}),
    "Qwen3": (transformers.Qwen3Config, {"tie_word_embeddings": True}),
    "Qwen3Moe": (transformers.Qwen3MoeConfig, EXPERTS | {"norm_topk_prob": True}),
}


def written_by_transformers(kind: str, folder: Path, tokenizer: Tokenizer, **changes: Any) -> Path:
    make, more = CLASSES[kind]
    sizes = SIZES | {"vocab_size": tokenizer.vocab_size} | more | changes
    model = transformers.AutoModelForCausalLM.from_config(make(**sizes))
    with_random_weights(model)
    model.save_pretrained(folder)
    tokenizer.save(folder)
    return folder


def words(out_dir: Path, corpus: Path, init_from: Path, **changes: Any) -> list[str]:
    values = {"out_dir": out_dir, "data_path": corpus, "init_from": init_from}
    return ["pretrain", *flags(SETTINGS | values | changes)]


def records(run: Path) -> list[dict[str, Any]]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [record for record in lines if record["kind"] == "train"]


def loss_of(model: Any, run: Path) -> float:
    """Of a model with `.logits`, on the first batch of a run: the mean over its targets."""
    config = load_config(file=run / "config.toml")
    batches = Batches(open_dataset(run / "data").train, config.data, config.training)
    batch = batches.batch(0)
    with torch.no_grad():
        logits = model(batch.tokens).logits.flatten(0, 1)
    return float(F.cross_entropy(logits, batch.targets.flatten(), ignore_index=IGNORE_INDEX))


@pytest.mark.parametrize("kind", list(CLASSES))
def test_the_first_loss_is_that_of_the_folder_that_transformers_wrote(
    kind: str, tmp_path: Path, corpus_file: Path, tokenizer: Tokenizer
) -> None:
    folder, run = written_by_transformers(kind, tmp_path / "theirs", tokenizer), tmp_path / "run"
    assert main(words(run, corpus_file, folder)) == 0
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    first, second = records(run)
    assert first["loss"] == pytest.approx(loss_of(theirs, run), abs=1e-4)
    # and what was learnt opens where the start came from
    trained = transformers.AutoModelForCausalLM.from_pretrained(ckpt.find_model_folder(run)).eval()
    assert type(trained) is type(theirs)
    assert loss_of(trained, run) < first["loss"] and second["loss"] != first["loss"]


@pytest.mark.parametrize("name", ["minimind2", "minimind3", "minimind2_moe"])
def test_an_imported_minimind_goes_on_from_its_own_loss(
    name: str, tmp_path: Path, corpus_file: Path
) -> None:
    folder, run = tmp_path / "imported", tmp_path / "run"
    # a tokenizer of as many tokens as its vocabulary
    train_tokenizer([f"{i * i * 7919:x}" for i in range(3000)], 320, 2**16).save(tmp_path)
    import_minimind(FIXTURES / f"{name}.pth", tmp_path, folder, FIXTURES / f"{name}.json")
    assert main(words(run, corpus_file, folder)) == 0
    model, _ = ckpt.load_model(folder)
    assert records(run)[0]["loss"] == pytest.approx(loss_of(model, run), abs=1e-4)


def test_a_run_gives_its_weights_and_nothing_else(
    tmp_path: Path, corpus_file: Path, tokenizer_dir: Path
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    first = SETTINGS | {"data_path": corpus_file, "tokenizer": tokenizer_dir, "steps": 5}
    assert main(["pretrain", *flags(first | {"out_dir": old})]) == 0
    newest = ckpt.find_model_folder(old)
    before = {path.name: path.read_bytes() for path in newest.iterdir()}
    assert main(words(new, corpus_file, old, warmup_steps=2)) == 0
    assert {path.name: path.read_bytes() for path in newest.iterdir()} == before
    model, _ = ckpt.load_model(newest)
    got = records(new)
    assert got[0]["loss"] == pytest.approx(loss_of(model, new), abs=1e-4)
    assert [(r["step"], r["learning_rate"]) for r in got] == [(1, 5e-4), (2, 1e-3)]


def test_sizes_that_the_folder_or_the_tokenizer_decides_are_said_to_be_unused(
    tmp_path: Path, corpus_file: Path, tokenizer_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    first = SETTINGS | {"data_path": corpus_file, "tokenizer": tokenizer_dir}
    assert main(["pretrain", *flags(first | {"out_dir": old})]) == 0
    assert "ignored" not in capsys.readouterr().out
    assert main(words(new, corpus_file, old, vocab_size=999, hidden_size=64)) == 0
    line = f"ignored: vocab_size=999, hidden_size=64; {old} decides"
    assert line in capsys.readouterr().out
    assert (
        main(["pretrain", *flags(first | {"out_dir": tmp_path / "third", "vocab_size": 999})]) == 0
    )
    size = Tokenizer.load(tokenizer_dir).vocab_size
    said = capsys.readouterr().out
    assert f"ignored: vocab_size=999; the tokenizer has {size} tokens" in said, said


def test_a_run_that_began_from_a_folder_resumes_without_it(
    tmp_path: Path, corpus_file: Path, tokenizer: Tokenizer
) -> None:
    folder, run = written_by_transformers("Llama", tmp_path / "m", tokenizer), tmp_path / "run"
    command = words(run, corpus_file, folder, steps=4, eval_interval=2)
    assert main(command) == 0
    last = ckpt.find_model_folder(run)
    whole = (last / "model.safetensors").read_bytes()
    shutil.rmtree(last)
    shutil.rmtree(folder)
    assert main(command) == 0
    assert (last / "model.safetensors").read_bytes() == whole


def test_a_folder_that_does_not_fit_is_refused(
    tmp_path: Path, corpus_file: Path, tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    small = written_by_transformers("Llama", tmp_path / "small", tokenizer, vocab_size=70)
    short = written_by_transformers("Qwen3", tmp_path / "short", tokenizer)
    lacks = written_by_transformers("Llama", tmp_path / "lacks", tokenizer, num_hidden_layers=1)
    record = json.loads((lacks / "config.json").read_text())
    (lacks / "config.json").write_text(json.dumps(record | {"num_hidden_layers": 2}))
    capsys.readouterr()  # transformers' progress
    for folder, changes, names in (
        (small, {}, ["init_from", "vocabulary of 70", str(tokenizer.vocab_size)]),
        (short, {"max_seq_len": 64}, ["max_seq_len=64", "max_position_embeddings=40"]),
        (lacks, {}, ["model.layers.1.", "missing"]),
        (tmp_path / "nowhere", {}, ["nowhere"]),
    ):
        run = tmp_path / f"run-{folder.name}"
        assert main(words(run, corpus_file, folder, **changes)) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ") and said.count("\n") == 1
        assert all(name in said for name in names), said
        assert not (run / "checkpoints").exists()
        assert (run / "data").exists() == (folder == lacks)  # refused before any text is read


def test_another_tokenizer_than_that_of_the_start_is_told(
    tmp_path: Path, corpus_file: Path, tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = written_by_transformers("Llama", tmp_path / "m", tokenizer)
    train_tokenizer(["another text " * 9], 270, 2**16).save(tmp_path / "other")
    told = f"the tokenizer is not the one of {folder}"
    assert main(words(tmp_path / "run", corpus_file, folder, tokenizer=tmp_path / "other")) == 0
    assert told in capsys.readouterr().out
    assert main(words(tmp_path / "own", corpus_file, folder)) == 0
    assert told not in capsys.readouterr().out
