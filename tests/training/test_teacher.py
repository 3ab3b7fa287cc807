"""Models that teach: a chain of runs, resumed as one, and what a student is taught."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import jielong
from jielong.checkpoint import checkpoint as ckpt
from jielong.config.settings import DataConfig, TrainingConfig
from jielong.data.batches import Batches
from jielong.data.noise import InputNoise
from jielong.errors import CheckpointError, ConfigError
from jielong.tokenization.tokenizer import Tokenizer, train_tokenizer
from jielong.training.teacher import SHARE, Teacher
from tiny import (
    REGULARISED,
    TEXTS,
    TINY_RUN,
    ListStream,
    flags,
    in_this_process,
    random_documents,
    signalled,
    tiny_model,
)

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def settings(corpus_file: Path, tokenizer_dir: Path) -> dict[str, Any]:
    paths = {"data_path": str(corpus_file), "tokenizer": str(tokenizer_dir)}
    return TINY_RUN | REGULARISED | paths | {"teachers": 2}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, settings: dict[str, Any]) -> Path:
    folder = tmp_path_factory.mktemp("taught") / "run"
    status, said = in_this_process(["pretrain", *flags(settings | {"out_dir": str(folder)})])
    assert status == 0, said
    for line in ("teacher 1 of 2", "teacher 2 of 2", "the model itself"):
        assert f"── {line}" in said
    assert f"teacher    {folder}/teachers/2: half of what is learnt" in said.replace("\n", "")
    return folder


def weights_of(run: Path) -> bytes:
    return (ckpt.find_model_folder(run, "last") / "model.safetensors").read_bytes()


def test_each_model_learns_from_the_one_before_it(
    whole: Path, settings: dict[str, Any], tmp_path: Path
) -> None:
    runs = [whole / "teachers" / "1", whole / "teachers" / "2", whole]
    assert len({weights_of(run) for run in runs}) == 3
    # the last of them is the run that its settings and the last teacher give alone
    alone = settings | {"out_dir": str(tmp_path / "alone"), "teachers": 0}
    alone |= {"data_path": str(whole / "data"), "teacher": str(runs[1])}
    del alone["validation_fraction"]
    status, said = in_this_process(["pretrain", *flags(alone)])
    assert status == 0, said
    assert weights_of(tmp_path / "alone") == weights_of(whole)
    assert jielong.load(whole)[0].config == jielong.load(runs[0])[0].config


@pytest.mark.parametrize("part", ["teachers/1", "teachers/2", "."])
def test_stopped_in_any_of_them_and_resumed_equals_never_stopped(
    whole: Path, settings: dict[str, Any], tmp_path: Path, part: str
) -> None:
    words = ["pretrain", *flags(settings | {"out_dir": str(tmp_path / "run")})]
    status, said = signalled(words, tmp_path / "run" / part, 11, signal.SIGTERM)
    assert status == 128 + signal.SIGTERM, said
    status, said = in_this_process(words)
    assert status == 0, said
    for run in ("teachers/1", "teachers/2", "."):
        assert weights_of(tmp_path / "run" / run) == weights_of(whole / run)


def test_a_run_does_not_go_on_with_a_teacher_that_has_changed(
    whole: Path, settings: dict[str, Any], tmp_path: Path
) -> None:
    teacher, run = tmp_path / "teacher", tmp_path / "run"
    shutil.copytree(ckpt.find_model_folder(whole, "last"), teacher)
    words = flags(settings | {"out_dir": str(run), "teachers": 0, "teacher": str(teacher)})
    assert in_this_process(["pretrain", *words])[0] == 0
    shutil.rmtree(teacher)
    shutil.copytree(ckpt.find_model_folder(whole / "teachers" / "1", "last"), teacher)
    status, said = in_this_process(["pretrain", *words])
    assert status == 2 and "had another teacher" in said


def test_what_cannot_teach_is_refused(
    whole: Path, tmp_path: Path, tokenizer_dir: Path, tokenizer: Tokenizer
) -> None:
    size = tokenizer.vocab_size
    assert Teacher.load(str(whole), tokenizer, size, CPU).model.config.vocab_size == size
    with pytest.raises(CheckpointError, match="contains no model"):
        Teacher.load(str(tmp_path), tokenizer, size, CPU)
    with pytest.raises(ConfigError, match=f"a vocabulary of {size}, the model to be trained one"):
        Teacher.load(str(whole), tokenizer, size + 64, CPU)
    with pytest.raises(ConfigError, match="another tokenizer than this run"):
        Teacher.load(str(whole), train_tokenizer(TEXTS, size - 8, 2**20), size, CPU)


def test_a_teacher_sees_the_text_without_noise() -> None:
    docs = random_documents(60, longest=40)
    plain, noisy = (
        Batches(
            ListStream(docs),
            DataConfig(max_seq_len=32),
            TrainingConfig(global_batch_size=4, seed=1),
            noise=InputNoise(rate, np.arange(3, 64)),
        ).load(np.arange(4))
        for rate in (0.0, 0.5)
    )
    assert not noisy.tokens.equal(plain.tokens)
    teacher = Teacher(tiny_model(vocab_size=64))
    given, expected = teacher(noisy, CPU), teacher(plain, CPU)
    assert given.share == SHARE
    # a window's first token is no target; what follows in the same document depends on it
    assert plain.document_ids is not None
    later = (plain.document_ids > 0).flatten()
    assert later.sum() > 30
    torch.testing.assert_close(given.hidden[later], expected.hidden[later], rtol=1e-4, atol=1e-4)
