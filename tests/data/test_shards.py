import json
import os
import shutil

import numpy as np
import pytest

from jielong.config.load import load_config
from jielong.data.prepare.prepare import prepare
from jielong.data.shard_writer import ShardWriter
from jielong.data.shards import TokenStream, open_dataset, token_dtype
from jielong.errors import DataError


def story(i):
    return f"Story {i}.\n" + " ".join(f"word{(i * j) % 97}" for j in range(20 + i % 30))


def stream_of(tmp_path, documents, vocab_size=50_000, shard_tokens=7):
    writer = ShardWriter(tmp_path, "train", vocab_size, shard_tokens)
    for document in documents:
        writer.write(np.array(document, np.uint32), [len(document)], 0)
    split, _ = writer.close()
    return TokenStream(tmp_path, split, token_dtype(vocab_size))


def test_reads_cross_shards_and_give_copies(tmp_path):
    documents = [list(range(i, i + n)) for i, n in ((0, 3), (3, 20), (23, 1), (24, 7))]
    stream = stream_of(tmp_path, documents)
    flat = np.arange(31)
    assert len(stream) == 31
    assert sorted(p.name for p in tmp_path.glob("train-*.bin"))[-1] == "train-00004.bin"
    for start in range(32):
        for stop in range(start, 32):
            np.testing.assert_array_equal(stream.read(start, stop), flat[start:stop])
    stream.read(0, 5)[:] = 9
    assert stream.read(0, 2).tolist() == [0, 1]
    assert stream.documents.tolist() == [0, 3, 23, 24]


def test_reads_outside_the_stream_are_refused(tmp_path):
    stream = stream_of(tmp_path, [[1, 2, 3]])
    for start, stop in ((-1, 2), (0, 4), (2, 1)):
        with pytest.raises(IndexError):
            stream.read(start, stop)


@pytest.mark.parametrize(("vocab_size", "bytes_each"), [(65_536, 2), (65_537, 4)])
def test_the_largest_id_survives_storage(tmp_path, vocab_size, bytes_each):
    stream = stream_of(tmp_path, [[vocab_size - 1, 0]], vocab_size)
    assert stream.read(0, 2).tolist() == [vocab_size - 1, 0]
    assert (tmp_path / "train-00000.bin").stat().st_size == 2 * bytes_each


def test_an_id_outside_the_vocabulary_is_refused_when_written(tmp_path):
    with pytest.raises(DataError, match="token 70000 is outside the vocabulary of 60000"):
        stream_of(tmp_path, [[70_000]], 60_000)


def test_a_shard_cut_short_while_in_use_is_an_error_that_names_it(tmp_path):
    stream = stream_of(tmp_path, [list(range(20))])
    os.truncate(tmp_path / "train-00001.bin", 4)
    assert stream.read(0, 9).tolist() == list(range(9))
    with pytest.raises(DataError, match=r"train-00001\.bin.*ends too soon.*prepare it again"):
        stream.read(0, 20)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("prepared")
    path = folder / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": story(i)}) + "\n" for i in range(40)) + "bad\n")
    config = load_config(data_path=(str(path),), validation_fraction=0.2)
    prepare(config, tokenizer, folder / "dataset")
    return folder / "dataset"


def files_of(folder):
    manifest = json.loads((folder / "dataset.json").read_text())
    return ["dataset.json", *manifest["files"]]


def test_every_flipped_byte_is_found_and_its_file_named(prepared, tmp_path):
    assert len(files_of(prepared)) == 5
    for name in files_of(prepared):
        folder = tmp_path / name
        shutil.copytree(prepared, folder)
        data = bytearray((folder / name).read_bytes())
        at = data.index(b'"tokens"') + 12 if name == "dataset.json" else len(data) // 2
        data[at] ^= 1
        (folder / name).write_bytes(data)
        with pytest.raises(DataError, match="prepare it again") as error:
            open_dataset(folder)
        assert str(folder / name) in str(error.value)


@pytest.mark.parametrize("verify", [True, False])
def test_every_missing_or_truncated_file_is_named_with_the_fix(prepared, tmp_path, verify):
    for name in files_of(prepared):
        folder = tmp_path / name
        shutil.copytree(prepared, folder)
        os.truncate(folder / name, (folder / name).stat().st_size - 2)
        with pytest.raises(DataError, match="prepare it again") as error:
            open_dataset(folder, verify)
        assert str(folder / name) in str(error.value)
        (folder / name).unlink()
        with pytest.raises(DataError) as error:
            open_dataset(folder, verify)
        assert str(folder / name) in str(error.value)


def test_a_folder_that_is_no_dataset_says_how_to_make_one(tmp_path):
    with pytest.raises(DataError, match="jielong prepare"):
        open_dataset(tmp_path)
    (tmp_path / "dataset.json").write_text('{"format": "other"}')
    with pytest.raises(DataError, match="format 'other'"):
        open_dataset(tmp_path)
    (tmp_path / "dataset.json").write_text("[]")
    with pytest.raises(DataError, match="damaged"):
        open_dataset(tmp_path)
