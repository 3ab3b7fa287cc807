"""Checkpoints: whole or not at all, checked to the byte, and model folders of transformers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from jielong.checkpoint import checkpoint as ckpt
from jielong.config.sampling import Sampling
from jielong.errors import CheckpointError
from jielong.tokenization.tokenizer import Tokenizer
from tiny import environment, new_optimizer, one_step, random_batch, tiny_config, tiny_model


@pytest.fixture
def saved(tmp_path: Path, tokenizer: Tokenizer) -> Path:
    return save(tmp_path, tokenizer, 5)


def save(folder: Path, tokenizer: Tokenizer, step: int, seed: int = 0) -> Path:
    model = tiny_model(seed, vocab_size=tokenizer.vocab_size)
    optimizer = new_optimizer(model, tiny_config())
    one_step(model, optimizer, [random_batch(2, 16)])
    state = ckpt.SavedState(step, {"config": {}, "note": "値"})
    return ckpt.save_checkpoint(folder, model, tokenizer, optimizer.state_tensors(), state)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_what_was_saved_is_loaded(saved: Path, tokenizer: Tokenizer) -> None:
    assert saved.name == "step-00000005"
    ckpt.verify(saved)
    state = ckpt.load_training_state(saved)
    assert (state.step, state.values["note"]) == (5, "値")
    model, loaded_tokenizer = ckpt.load_model(saved)
    again = tiny_model(seed=0, vocab_size=tokenizer.vocab_size)
    one_step(again, new_optimizer(again, tiny_config()), [random_batch(2, 16)])
    assert all(map(torch.equal, model.parameters(), again.parameters()))
    assert not model.training
    assert loaded_tokenizer.fingerprint == tokenizer.fingerprint


@pytest.mark.parametrize("tied", [True, False])
def test_loading_draws_nothing_from_torchs_generator(
    tied: bool, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    model = tiny_model(tie_word_embeddings=tied, vocab_size=tokenizer.vocab_size)
    ckpt.write_model_folder(tmp_path, model, tokenizer)
    before = torch.get_rng_state()
    loaded, _ = ckpt.load_model(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    assert (loaded.lm_head.weight is loaded.model.embed_tokens.weight) == tied
    assert all(w.dtype == torch.float32 and w.requires_grad for w in loaded.parameters())
    (tmp_path / "model.safetensors").write_bytes(b"")  # they are no view of the file
    tokens = torch.arange(12)[None]
    assert torch.equal(loaded(tokens).logits, model(tokens).logits)


def test_it_opens_with_transformers_unconverted(saved: Path) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(saved).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(saved)
    model, ours = ckpt.load_model(saved)
    ids = tokenizer("Tale 3. word5 床前", return_tensors="pt").input_ids
    assert ids[0].tolist() == ours.encode("Tale 3. word5 床前")
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 0)
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, theirs(ids).logits, rtol=0, atol=1e-4)
    written = theirs.generate(ids, max_new_tokens=4, do_sample=False)
    assert written.shape[1] > ids.shape[1]


def test_transformers_draws_with_our_defaults(saved: Path) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.GenerationConfig.from_pretrained(saved)
    ours = Sampling()
    for name in ("temperature", "top_k", "top_p", "repetition_penalty"):
        assert getattr(theirs, name) == getattr(ours, name)
    assert theirs.do_sample and (theirs.min_p or 0.0) == ours.min_p


def test_there_is_no_pickle_in_it(saved: Path) -> None:
    assert {path.suffix for path in files(saved)} <= {".json", ".safetensors", ".jinja"}
    assert not any(path.read_bytes().startswith((b"\x80", b"PK")) for path in files(saved))


def test_any_flipped_byte_is_detected(saved: Path) -> None:
    for path in files(saved):
        whole = path.read_bytes()
        places = {0, len(whole) // 2, len(whole) - 1}
        for place in places:
            damaged = bytearray(whole)
            damaged[place] ^= 1
            path.write_bytes(damaged)
            if path.name == ckpt.MANIFEST and _same_sums(whole, bytes(damaged)):
                continue  # a byte of the layout, not of a sum
            with pytest.raises(CheckpointError, match=saved.name):
                ckpt.verify(saved)
        path.write_bytes(whole)
    ckpt.verify(saved)


def _same_sums(a: bytes, b: bytes) -> bool:
    try:
        return bool(json.loads(a) == json.loads(b))
    except ValueError:
        return False


@pytest.mark.parametrize("fault", ["missing", "truncated", "empty", "added", "folder", "link"])
def test_any_other_damage_is_detected(saved: Path, tmp_path: Path, fault: str) -> None:
    for path in files(saved):
        copy = tmp_path / "copy" / saved.name
        shutil.copytree(saved, copy)
        target = copy / path.name
        if fault == "missing":
            target.unlink()
        if fault == "truncated":
            os.truncate(target, target.stat().st_size - 1)
        if fault == "empty":
            os.truncate(target, 0)
        if fault == "added":
            (copy / f"{path.name}.orig").write_bytes(b"")
        if fault == "folder":
            target.unlink()
            target.mkdir()
        if fault == "link" and path.name != ckpt.MANIFEST:
            target.unlink()
            target.symlink_to(path)  # to the very same bytes
        if fault != "link" or path.name != ckpt.MANIFEST:
            with pytest.raises(CheckpointError):
                ckpt.verify(copy)
        shutil.rmtree(copy.parent)


def test_a_manifest_that_names_files_elsewhere_is_refused(saved: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.json"
    outside.write_text("{}")
    path = saved / ckpt.MANIFEST
    sums = json.loads(path.read_text())["sha256"]
    path.write_text(json.dumps({"sha256": sums | {"../outside.json": sums["config.json"]}}))
    with pytest.raises(CheckpointError):
        ckpt.verify(saved)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"sha256": 3}', '{"sha256": []}', "null"])
def test_a_manifest_of_another_shape_is_damage(saved: Path, content: str) -> None:
    (saved / ckpt.MANIFEST).write_text(content)
    with pytest.raises(CheckpointError):
        ckpt.verify(saved)


def test_the_newest_is_the_one_of_the_last_step_not_of_the_last_hour(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    for step in (100_000_000, 9, 10):
        save(tmp_path, tokenizer, step)
    for path, year in zip(ckpt.checkpoints(tmp_path), (2100, 1990, 1991), strict=True):
        os.utime(path, times=((year - 1970) * 3.15e7,) * 2)
    newest, problems = ckpt.latest_valid_checkpoint(tmp_path)
    assert newest == tmp_path / "step-100000000" and not problems
    (newest / "config.json").write_text("{}")
    older, problems = ckpt.latest_valid_checkpoint(tmp_path)
    assert older == tmp_path / "step-00000010"
    assert len(problems) == 1 and "config.json" in problems[0]


def test_no_checkpoint_valid_gives_none_and_all_reasons(saved: Path) -> None:
    (saved / "model.safetensors").unlink()
    newest, problems = ckpt.latest_valid_checkpoint(saved.parent)
    assert newest is None and len(problems) == 1
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        ckpt.find_model_folder(saved.parent)
    assert ckpt.latest_valid_checkpoint(saved.parent / "no such folder") == (None, [])


def test_prune_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    def left(keep: int, best: int | None, step: int, interval: int | None = None) -> list[int]:
        for made in (10, 20, 30, 40, 50):
            (tmp_path / ckpt.step_name(made)).mkdir(exist_ok=True)
        ckpt.prune(tmp_path, keep, best, step, interval)
        return [ckpt.step_of(path) for path in ckpt.checkpoints(tmp_path)]

    assert left(keep=2, best=None, step=50) == [40, 50]
    assert left(keep=2, best=20, step=50) == [20, 40, 50]
    assert left(keep=1, best=50, step=50) == [50]
    assert left(keep=9, best=None, step=50) == [10, 20, 30, 40, 50]
    assert left(keep=1, best=10, step=50, interval=20) == [10, 20, 40, 50]
    # 40 and 50 were found damaged, so the run went on from 20 and has come to 30
    assert left(keep=2, best=None, step=30) == [20, 30, 40, 50]


def test_what_a_killed_save_left_is_cleared_by_the_next(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    leftover = tmp_path / ".step-00000003.99999.partial"
    leftover.mkdir(parents=True)
    (leftover / "model.safetensors").write_bytes(b"half")
    assert ckpt.latest_valid_checkpoint(tmp_path) == (None, [])
    save(tmp_path, tokenizer, 4)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000004"]


def test_saving_a_step_again_replaces_it_whole(tmp_path: Path, tokenizer: Tokenizer) -> None:
    first = save(tmp_path, tokenizer, 4, seed=0)
    (first / "config.json").write_text("damaged")
    ckpt.verify(save(tmp_path, tokenizer, 4, seed=1))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000004"]


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv.pop(1))
from test_checkpoint import save
from jielong.errors import CheckpointError
from jielong.tokenization.tokenizer import Tokenizer

folder, tokenizer = Path(sys.argv[1]), Tokenizer.load(sys.argv[2])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for limit in map(int, sys.argv[3:]):  # bytes that a file may have: as where a disk is full
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        save(folder, tokenizer, 8)
    except CheckpointError as error:
        print(limit, error)
"""


def test_a_full_disk_leaves_what_was_there_and_nothing_else(
    saved: Path, tokenizer_dir: Path
) -> None:
    """Limits that stop the save in the small files, the weights and the optimizer's state."""
    before = {path: path.read_bytes() for path in files(saved.parent)}
    sizes = sorted(path.stat().st_size for path in files(saved))
    limits = [str(size - 1) for size in sizes[1:]]
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            FULL_DISK,
            str(Path(__file__).parent),
            str(saved.parent),
            str(tokenizer_dir),
            *limits,
        ],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(limits), done.stdout
    assert all("step-00000008" in line for line in done.stdout.splitlines())
    assert {path: path.read_bytes() for path in files(saved.parent)} == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_a_folder_that_cannot_be_written_is_an_error_in_words(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(CheckpointError, match="cannot be written"):
        save(tmp_path / "file" / "checkpoints", tokenizer, 1)


@pytest.mark.parametrize("content", ["", "[1]", "{}", "null", '{"step": '])
def test_a_training_state_that_is_none_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "training_state.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"training_state\.json"):
        ckpt.load_training_state(tmp_path)


def test_a_model_is_found_by_run_by_checkpoint_and_by_folder(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    save(tmp_path / "checkpoints", tokenizer, 3)
    newest = save(tmp_path / "checkpoints", tokenizer, 4)
    for path in (tmp_path, tmp_path / "checkpoints", newest):
        assert ckpt.find_model_folder(path) == newest
    (newest / "model.safetensors").write_bytes(b"damaged")
    assert ckpt.find_model_folder(tmp_path).name == "step-00000003"
    with pytest.raises(CheckpointError, match="damaged"):
        ckpt.find_model_folder(newest)  # named outright, no other may stand in
    with pytest.raises(CheckpointError, match=f"no such folder; did you mean {tmp_path}?"):
        ckpt.find_model_folder(f"{tmp_path}_")
    with pytest.raises(CheckpointError, match="is a file: give the folder of a run"):
        ckpt.find_model_folder(newest / "model.safetensors")


def test_a_tokenizer_too_large_for_the_model_is_refused(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    ckpt.write_model_folder(tmp_path, tiny_model(vocab_size=200), tokenizer)
    with pytest.raises(CheckpointError, match="200"):
        ckpt.load_model(tmp_path)
