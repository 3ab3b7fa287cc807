"""Sharded checkpoints: each process writes its part; any number go on; export makes one model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from jielong.checkpoint import checkpoint as ckpt
from jielong.checkpoint import model_files
from jielong.checkpoint.opening import Stored
from jielong.checkpoint.shards import INDEX
from jielong.cli.main import main
from jielong.config.model import ModelConfig
from jielong.interop.export import export
from jielong.runtime.parts import Readable
from jielong.training import memory, parallel
from jielong.training.memory import Sharding
from tiny import in_this_process, tiny_config
from training.test_distributed import free_port, python_in_ranks, records
from training.test_parallel import CPU, Ranks
from training.test_sharded import RESUMED, RUNS, SHARED, STEPS, cut_short
from training.test_torchrun import assert_same_run, words

RUNS_HERE = {name: RUNS[name] for name in ("dense", "experts")}
# as in test_sharded.py, with runs that are cut short between two of them
SEVERAL = """
import json, os, sys
from pathlib import Path
from jielong.cli.main import main
from jielong.training import compilation
from training.test_sharded import cut_short
compilation.LEAST_FLOPS["cpu"] = 0  # it is long enough to be compiled, if the model is not divided
for port, words in json.loads(sys.argv[1]):
    os.environ["MASTER_PORT"] = str(port)
    if words[0] == "cut":
        if os.environ["RANK"] == "0":
            cut_short(Path(words[1]), Path(words[2]))
    else:
        assert main(words) == 0, words
"""
NAMES = {"manifest.json", "config.json", "generation_config.json", "training_state.json"}
NAMES |= {"tokenizer.json", "tokenizer_config.json", INDEX}


@pytest.fixture(scope="module")
def shared(corpus_file: Path, tokenizer_dir: Path) -> dict[str, Any]:
    texts = {"data_path": str(corpus_file), "tokenizer": str(tokenizer_dir)}
    return SHARED | texts | {"checkpoint_format": "sharded", "save_interval": RESUMED}


@pytest.fixture(scope="module")
def alone(shared: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each of RUNS_HERE trained by one process, with whole checkpoints."""
    folder = tmp_path_factory.mktemp("alone")
    for name, changes in RUNS_HERE.items():
        whole = shared | changes | {"checkpoint_format": "whole"}
        assert main(words(whole, folder / name)) == 0
    return folder


def launch(ranks: int, jobs: list[list[str]]) -> str:
    """Do each job in ranks, one after the other; what rank 0 said."""
    numbered = json.dumps([(free_port(), job) for job in jobs])
    found = python_in_ranks(ranks, ["-c", SEVERAL, numbered], timeout=600)
    for status, said in found:
        assert status == 0, said
    return found[0][1]


@pytest.fixture(scope="module")
def two(shared: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RUNS_HERE by two processes with a part each, and what goes on from their checkpoints."""
    folder = tmp_path_factory.mktemp("two")
    fsdp = shared | {"parallel": "fsdp"}
    jobs = [words(fsdp | changes, folder / name) for name, changes in RUNS_HERE.items()]
    jobs.append(["cut", str(folder / "experts"), str(folder / "experts resumed")])
    jobs.append(words(fsdp | RUNS["experts"], folder / "experts resumed"))
    jobs.append(["cut", str(folder / "dense"), str(folder / "dense by ddp")])
    ddp = shared | RUNS["dense"] | {"parallel": "ddp", "compile": "off"}
    jobs.append(words(ddp, folder / "dense by ddp"))
    said = launch(2, jobs)
    assert said.count("saving     each process writes its part of a checkpoint") == 4
    assert said.count("compile    not the layers of a divided model") == 3
    assert said.count("resuming from") == 2
    return folder


def last(run: Path) -> Path:
    return run / "checkpoints" / ckpt.step_name(STEPS)


def contents(checkpoint: Path) -> dict[str, Mapping[str, Readable]]:
    stored = Stored(checkpoint)
    latest = stored.training_weights()
    assert latest is not None
    return {"weights": stored.weights(), "latest": latest, "optimizer": stored.optimizer()}


def read(tensors: Mapping[str, Readable]) -> dict[str, Tensor]:
    return {name: value[...] for name, value in tensors.items()}


@pytest.mark.parametrize("name", [*RUNS_HERE, "experts resumed", "dense by ddp"])
def test_they_train_what_one_process_does_and_keep_what_it_keeps(
    name: str, two: Path, alone: Path
) -> None:
    run, expected = two / name, alone / name.split()[0]
    assert_same_run(run, expected)
    steps = [ckpt.step_of(path) for path in ckpt.checkpoints(run / "checkpoints")]
    assert steps == [RESUMED, STEPS]
    assert not list((run / "checkpoints").glob(".*"))
    for path in ckpt.checkpoints(run / "checkpoints"):
        ckpt.verify(path)
        shards = {f"shard-0000{n}-of-00002.safetensors" for n in (1, 2)}
        assert {file.name for file in path.iterdir()} == NAMES | shards
        sizes = [(path / shard).stat().st_size for shard in shards]
        assert max(sizes) < 0.7 * sum(sizes)  # nothing of size is written twice, or by one alone
    best = [json.loads((r / "checkpoints" / ckpt.BEST).read_text()) for r in (run, expected)]
    assert best[0]["step"] == best[1]["step"]
    found, wanted = contents(last(run)), contents(last(expected))
    for kind, tensors in wanted.items():
        assert found[kind].keys() == tensors.keys()
        for key, value in tensors.items():
            torch.testing.assert_close(found[kind][key][...], value[...], rtol=1e-2, atol=1e-4)


def test_resumed_by_as_many_processes_it_ends_with_the_same_bits(two: Path) -> None:
    runs = two / "experts", two / "experts resumed"
    for kind in ("train", "validation"):
        losses = [{s: r["loss"] for s, r in records(run, kind).items()} for run in runs]
        assert losses[0] == losses[1]
    for shard in last(runs[0]).glob("shard-*"):
        assert shard.read_bytes() == (last(runs[1]) / shard.name).read_bytes()


def test_one_process_goes_on_with_shards_or_without(
    two: Path, alone: Path, shared: dict[str, Any], tmp_path: Path
) -> None:
    for choice in ("sharded", "whole"):
        run = cut_short(two / "experts", tmp_path / choice)
        settings = shared | RUNS["experts"] | {"checkpoint_format": choice}
        status, said = in_this_process(words(settings, run))
        assert status == 0 and "resuming from" in said, said
        assert_same_run(run, alone / "experts")
        assert (last(run) / INDEX).exists() == (choice == "sharded")


def test_more_processes_and_copies_go_on(
    two: Path, alone: Path, shared: dict[str, Any], tmp_path: Path
) -> None:
    fsdp = shared | {"parallel": "fsdp"}
    runs = [cut_short(two / name, tmp_path / name) for name in RUNS_HERE]
    launch(
        4,
        [
            words(fsdp | RUNS["dense"] | {"shard_degree": 2}, runs[0]),
            # 3 experts: a process has none
            words(fsdp | RUNS["experts"] | {"background_saves": False}, runs[1]),
        ],
    )
    for run in runs:
        assert_same_run(run, alone / run.name)
        ckpt.verify(last(run))
        found, expected = contents(last(run)), contents(last(alone / run.name))
        for kind, tensors in expected.items():
            assert {n: t.shape for n, t in found[kind].items()} == {
                n: t.shape for n, t in tensors.items()
            }


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_torchs_own_reader_of_distributed_checkpoints_reads_the_shards(two: Path) -> None:
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

    checkpoint = last(two / "experts")
    stored = Stored(checkpoint)
    expected = read(stored.weights()) | read(stored.optimizer())
    found = {name: torch.zeros_like(value) for name, value in expected.items()}
    dcp.load(found, storage_reader=HuggingFaceStorageReader(str(checkpoint)), no_dist=True)
    assert len(found) > 20
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_rows_are_read_without_the_others(two: Path) -> None:
    weights = Stored(last(two / "dense")).weights()
    for value in weights.values():
        whole, rows = value[...], value.shape[0]
        for begin in range(0, rows, 7):
            for end in range(begin, rows + 1, 5):
                assert torch.equal(value[begin:end], whole[begin:end])


@pytest.fixture(scope="module")
def both(shared: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run with each kind of checkpoint."""
    folder = tmp_path_factory.mktemp("both")
    for choice in ("whole", "sharded"):
        changes = {"checkpoint_format": choice, "qk_norm": True}
        assert main(words(shared | RUNS["experts"] | changes, folder / choice)) == 0
    return folder


def test_a_model_in_shards_loads_and_exports_as_a_whole_one(both: Path, tmp_path: Path) -> None:
    whole, sharded = both / "whole", both / "sharded"
    for kind, tensors in contents(last(whole)).items():
        for name, value in tensors.items():
            assert torch.equal(contents(last(sharded))[kind][name][...], value[...]), (kind, name)
    (whole / "other.txt").write_text("Tale 1. word3 word4\n")
    commands = {
        "generate": ["--prompt", "Tale", "--temperature", "0"],
        "evaluate": ["--data-path", str(whole / "other.txt")],
    }
    for command, options in commands.items():
        said = [in_this_process([command, str(run), *options]) for run in (whole, sharded)]
        assert [status for status, _ in said] == [0, 0], said
        lines = [[x for x in text.splitlines() if "tokens/s" not in x] for _, text in said]
        assert lines[0] == lines[1] and lines[0]


def test_export_writes_the_folder_of_a_whole_one_in_files_of_bounded_size(
    shared: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for choice in ("whole", "sharded"):
        changes = {"checkpoint_format": choice}
        assert main(words(shared | RUNS["balanced"] | changes, tmp_path / choice)) == 0
        export(tmp_path / choice, tmp_path / "exports" / choice)
    folders = [tmp_path / "exports" / choice for choice in ("whole", "sharded")]
    for file in folders[0].iterdir():
        if file.name != "README.md":  # has the folder's name
            assert file.read_bytes() == (folders[1] / file.name).read_bytes(), file.name
    monkeypatch.setattr(model_files, "FILE_BYTES", 20_000)
    pieces = export(tmp_path / "sharded", tmp_path / "pieces", dtype="float32")
    assert len(list(pieces.glob("model-*.safetensors"))) > 1
    assert all(file.stat().st_size < 40_000 for file in pieces.glob("model-*.safetensors"))
    found, _ = ckpt.load_model(pieces)
    expected, _ = ckpt.load_model(ckpt.find_model_folder(tmp_path / "sharded"))
    for name, value in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], value)


def test_shards_are_chosen_where_a_divided_model_does_not_fit_a_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = tiny_config(hidden_size=64)
    needs = memory.checkpoint_bytes(config.model, muon=True, average=True)
    divided = Sharding(2, waiting=True)
    for free, sharded in ((needs, True), (2 * needs, False), (None, False)):
        monkeypatch.setattr(parallel, "available_memory", lambda free=free: free)
        assert parallel.saves_in_shards(config, divided, Ranks(0, 2)) == sharded
        assert not parallel.saves_in_shards(config, None, Ranks(0, 2))
        for choice in ("whole", "sharded"):
            asked = config.with_values(checkpoint_format=choice)
            wants = choice == "sharded"
            assert parallel.saves_in_shards(asked, divided, Ranks(0, 2)) == wants
    weights = 4 * config.model.parameter_count
    for free, fits in ((2 * weights, False), (4 * weights, True)):
        monkeypatch.setattr(parallel, "available_memory", lambda free=free: free)
        assert parallel.whole_fits(config, divided, Ranks(0, 2), CPU) == fits
        assert parallel.whole_fits(config, None, Ranks(0, 2), CPU)


def test_what_a_checkpoint_takes_is_counted_as_it_is_written(alone: Path) -> None:
    checkpoint = last(alone / "dense")
    kinds = contents(checkpoint).values()
    sizes = {name: value[...].nbytes for kind in kinds for name, value in kind.items()}
    written = sum(value[...].nbytes for kind in kinds for value in kind.values())
    shared = sum(size for name, size in sizes.items() if ".shared/" in name)
    config: ModelConfig = ckpt.open_model(checkpoint)[0]
    # of what tokens share, only that there are no more features than tokens
    most_shared = 2 * 4 * config.embedding_count
    assert 0 < shared < most_shared
    assert memory.checkpoint_bytes(config, muon=True, average=True) - most_shared == pytest.approx(
        written - shared, rel=0.01
    )
