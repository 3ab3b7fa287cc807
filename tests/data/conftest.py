import json

import pytest
from faulty_server import file_server
from sharded import SHARD_TOKENS, reshard

from jielong.config.load import load_config
from jielong.data.prepare.prepare import prepare
from jielong.tokenization.tokenizer import Tokenizer, train_tokenizer


def story(i):
    return f"Story {i}.\n" + " ".join(f"word{(i * j) % 97}" for j in range(20 + i % 30))


@pytest.fixture(scope="session")
def tokenizer():
    return train_tokenizer([story(i) for i in range(50)] + ["床前明月光，疑是地上霜。"], 320, 2**20)


@pytest.fixture
def corpus(tmp_path):
    """Writes texts (or raw lines, as bytes) to a JSONL file; returns its path."""

    def write(texts, name="corpus.jsonl"):
        path = tmp_path / name
        rows = (t if isinstance(t, bytes) else json.dumps({"text": t}).encode() for t in texts)
        path.write_bytes(b"".join(row + b"\n" for row in rows))
        return path

    return write


@pytest.fixture
def config_of():
    def make(path, **values):
        paths = path if isinstance(path, tuple) else (path,)
        return load_config(data_path=tuple(map(str, paths)), **values)

    return make


@pytest.fixture
def web():
    """A server on this machine, without files as yet."""
    with file_server() as served:
        yield served


@pytest.fixture(scope="session")
def many_shards(tmp_path_factory, corpus_file, tokenizer_dir):
    """A prepared dataset whose training text is in a dozen shards or more."""
    folder = tmp_path_factory.mktemp("prepared")
    config = load_config(data_path=(str(corpus_file),), validation_fraction=0.1)
    prepare(config, Tokenizer.load(tokenizer_dir), folder / "one")
    return reshard(folder / "one", folder / "many", SHARD_TOKENS)
