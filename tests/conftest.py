"""Tiny texts and tokenizers for all tests; one thread each, so that they may run side by side."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch, and for the processes that tests start
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch

from jielong.api import pretrain
from jielong.tokenization.tokenizer import Tokenizer, train_tokenizer
from tiny import TEXTS, TINY_RUN

torch.set_num_threads(1)


@functools.cache
def _trained() -> Tokenizer:
    return train_tokenizer(TEXTS, 288, 2**20)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return _trained()


@pytest.fixture(scope="session")
def tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of `tokenizer`, also where a module has a fixture of that name for itself."""
    folder = tmp_path_factory.mktemp("tokenizer")
    _trained().save(folder)
    return folder


@pytest.fixture(scope="session")
def corpus_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A JSONL file of 60 short documents."""
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return path


@pytest.fixture(scope="session")
def trained_run(
    corpus_file: Path, tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of a run of two layers that has ended; its text was read more than once."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    settings = {"data_path": str(corpus_file), "tokenizer": str(tokenizer_dir)}
    settings |= {"input_noise": 0.2, "bpe_dropout": 0.0, "out_dir": str(folder)}
    pretrain(TINY_RUN | settings, quiet=True)
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Two workers of Ray, which find our source as this process does."""
    from workers_of_ray import two_workers

    with two_workers():
        yield
