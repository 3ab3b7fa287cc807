"""A small tokenizer, and folders of small models."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from interop_models import random_model

from jielong.checkpoint.checkpoint import write_model_folder
from jielong.config.model import ModelConfig
from jielong.tokenization.tokenizer import Tokenizer, train_tokenizer

os.environ.setdefault("HF_HUB_OFFLINE", "1")
SYLLABLES = ["lo", "rem", "ip", "sum", "do", "lor", "sit", "met", "con", "sec", "tur", "vi", "nos"]


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """A byte-level BPE of exactly 320 tokens."""
    draw = random.Random(0)
    words = ["".join(draw.choices(SYLLABLES, k=3)) for _ in range(400)]
    trained = train_tokenizer([" ".join(words) + " 你好，世界。" * 20], 320, 2**16)
    assert trained.vocab_size == 320
    return trained


@pytest.fixture(scope="session")
def tokenizer_dir(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(folder)
    return folder


@pytest.fixture
def write_folder(tmp_path: Path, tokenizer: Tokenizer) -> Callable[[ModelConfig], Path]:
    """Writes a model folder with random weights of an architecture."""

    def write(config: ModelConfig, name: str = "model") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        write_model_folder(folder, random_model(config), tokenizer)
        return folder

    return write
