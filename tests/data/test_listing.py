"""What a folder means: the text in it, without what programs wrote, licences and test splits."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import jielong
from jielong.checkpoint.checkpoint import SavedState, save_checkpoint
from jielong.cli.main import main
from jielong.data.sources.documents import find_sources
from jielong.data.sources.listing import ABOUT, AGAIN, DATASET, HIDDEN, PROGRAM, RUN
from jielong.errors import DataError
from jielong.tokenization.tokenizer import Tokenizer
from tiny import TEXTS, TINY_RUN, flags, in_this_process, tiny_model


def write(path: Path, text: str = '{"text": "a"}\n') -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def found(
    path: Path | str, root: Path, for_training: bool = True
) -> tuple[list[str], dict[str, str]]:
    """Names of the files read, and the reason of each that is not."""
    sources, not_read = find_sources([str(path)], for_training)
    read = [str(Path(s.name).relative_to(root)) for s in sources]
    return read, {str(item.path.relative_to(root)): item.reason for item in not_read}


def clone(folder: Path) -> Path:
    """A dataset's repository as it is cloned."""
    for split in ("train", "test"):
        file = folder / "data" / f"{split}-00000-of-00001.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        texts = [f"{split} {text}" for text in TEXTS]
        pq.write_table(pa.table({"text": texts}), file)
    write(folder / "README.md", "---\nlicense: mit\n---\n# Card\n")
    write(folder / "LICENSE.txt", "Permission is granted")
    write(folder / "dataset_infos.json", "{}")
    write(folder / ".cache" / "x.txt", "hidden")
    return folder


def test_a_cloned_dataset_gives_its_training_text_only(tmp_path: Path, tokenizer_dir: Path) -> None:
    read, rest = found(clone(tmp_path), tmp_path)
    assert read == ["data/train-00000-of-00001.parquet"]
    assert rest == {
        "data/test-00000-of-00001.parquet": "a test split",
        "README.md": ABOUT,
        "LICENSE.txt": ABOUT,
        "dataset_infos.json": PROGRAM,
        ".cache": HIDDEN,
    }
    said = "\n".join(jielong.prepare(tmp_path, tokenizer_dir, tmp_path / "out").lines())
    assert "files          1 parquet" in said
    test = tmp_path / "data" / "test-00000-of-00001.parquet"
    assert f"a test split; to measure on it: --validation-path {test}" in said


@pytest.mark.parametrize(
    ("train", "held_out"),
    [
        ("train.jsonl", "validation.jsonl"),
        ("train/a.jsonl", "valid/b.jsonl"),
        ("Stories-V2-train.txt", "Stories-V2-valid.txt"),
        ("wiki.train.jsonl.gz", "wiki.dev.jsonl.gz"),
        ("wiki-train.arrow", "wiki-valid.arrow"),
        ("en/train-00000-of-00002.parquet", "en/eval-00000-of-00001.parquet"),
    ],
)
def test_a_split_beside_its_training_part_is_left_out(
    tmp_path: Path, train: str, held_out: str
) -> None:
    write(tmp_path / train)
    write(tmp_path / held_out)
    assert found(tmp_path, tmp_path) == ([train], {held_out: "a validation split"})
    assert found(tmp_path / "**" / "*", tmp_path)[0] == [train]
    # to measure on a folder, all of it is read
    assert sorted(found(tmp_path, tmp_path, for_training=False)[0]) == sorted([train, held_out])


def test_text_that_only_sounds_like_a_split_is_read(tmp_path: Path) -> None:
    names = ["dev/diary.md", "test-drive.txt", "train-ride.txt", "README.md"]
    for name in names:
        write(tmp_path / name, "text")
    assert sorted(found(tmp_path, tmp_path)[0]) == sorted(names)


def test_a_test_file_that_is_named_is_read_and_said(tmp_path: Path, tokenizer_dir: Path) -> None:
    file = write(tmp_path / "test.jsonl", "".join(json.dumps({"text": t}) + "\n" for t in TEXTS))
    said = "\n".join(jielong.prepare(file, tokenizer_dir, tmp_path / "out").lines())
    assert f"{file}: trained on, although named like held-out text" in said


def test_runs_and_datasets_in_a_folder_are_no_text(tmp_path: Path) -> None:
    write(tmp_path / "corpus.jsonl", "".join(json.dumps({"text": t}) + "\n" for t in TEXTS))
    words = ["pretrain", "--data-path", str(tmp_path), "--vocab-size=288", *flags(TINY_RUN)]
    documents = []
    for name in ("x", "y"):
        status, said = in_this_process([*words, "--steps=2", "--out-dir", str(tmp_path / name)])
        assert status == 0, said
        assert f"{tmp_path / name}: {RUN}" in said or f", {tmp_path / name}: {RUN}" in said
        manifest = json.loads((tmp_path / name / "data" / "dataset.json").read_text())
        documents.append(manifest["counts"]["documents"])
        assert manifest["counts"]["bad_lines"] == 0
    assert documents == [len(TEXTS)] * 2
    (tmp_path / "x" / "data").rename(tmp_path / "prepared")
    read, rest = found(tmp_path, tmp_path)
    assert read == ["corpus.jsonl"]
    assert rest == {"x": RUN, "y": RUN, "prepared": DATASET}
    assert found(tmp_path / "*", tmp_path)[0] == ["corpus.jsonl"]
    with pytest.raises(DataError, match="is a prepared dataset, not text"):
        find_sources([str(tmp_path / "prepared")])
    with pytest.raises(DataError, match=r"not read: .*a run of jielong"):
        find_sources([str(tmp_path / "y")])


def test_a_run_in_the_folder_of_its_own_text_reads_the_text(tmp_path: Path) -> None:
    for name in ("corpus.jsonl", "metrics.jsonl", "config.toml", "holder.json"):
        write(tmp_path / name)
    write(tmp_path / "checkpoints" / "best.json")
    assert found(tmp_path, tmp_path)[0] == ["corpus.jsonl"]


@pytest.mark.parametrize("pattern", ["", "**/*.txt", "**"])
def test_links_are_followed_once_and_never_in_circles(tmp_path: Path, pattern: str) -> None:
    root = tmp_path / "root"
    write(root / "a" / "one.txt", "one")
    write(tmp_path / "elsewhere" / "two.txt", "two")
    (tmp_path / "elsewhere" / "up").symlink_to(tmp_path)
    (root / "a" / "loop").symlink_to(root)
    (root / "again").symlink_to(root / "a")
    (root / "link").symlink_to(tmp_path / "elsewhere")
    (root / "same.txt").symlink_to(root / "a" / "one.txt")
    read, rest = found(root / pattern, root)
    assert read == ["a/one.txt", "link/two.txt"]
    assert {name for name, why in rest.items() if why == AGAIN} >= {"a/loop", "again", "link/up"}


def test_validation_text_in_the_folder_is_not_trained_on(
    tmp_path: Path, tokenizer_dir: Path
) -> None:
    rows = [json.dumps({"text": t}) + "\n" for t in TEXTS]
    write(tmp_path / "in" / "most.jsonl", "".join(rows[:50]))
    held = write(tmp_path / "in" / "rest.jsonl", "".join(rows[50:]))
    report = jielong.prepare(
        tmp_path / "in", tokenizer_dir, tmp_path / "out", validation_path=str(held)
    )
    assert report.shared_documents == 0 and report.documents == len(TEXTS)
    assert "given as --validation-path" in "\n".join(report.lines())
    for number, path in enumerate((held, held.parent)):
        out, said = tmp_path / str(number), list[str]()
        same = jielong.prepare(path, tokenizer_dir, out, said.append, validation_path=str(path))
        assert said[0].startswith(f"WARNING: {tmp_path}") and "will be worthless" in said[0]
        assert f"WARNING: {tmp_path}" in "\n".join(same.lines())
        assert "both trained on and held out" in "\n".join(same.lines())


def test_text_that_is_trained_on_and_held_out_is_warned_of_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(write(tmp_path / "a.jsonl", "".join(json.dumps({"text": t}) + "\n" for t in TEXTS)))
    same = {"data_path": (path,), "validation_path": (path,), "out_dir": str(tmp_path / "run")}
    jielong.pretrain(TINY_RUN | same | {"steps": 1, "tokenizer": None})
    said = capsys.readouterr().out
    assert 0 < said.index(f"WARNING: {path}: both trained on") < said.index("training a tokenizer")


def test_tokenizer_and_evaluation_list_what_they_read(
    tmp_path: Path, tokenizer_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = clone(tmp_path / "data")
    jielong.train_tokenizer(data, tmp_path / "tokenizer", print, vocab_size=288)
    said = capsys.readouterr().out.splitlines()
    assert re.match(r"files +1 parquet \(", said[0])
    assert any(re.match(r"not read +1 parquet \S+test-\S+ \(.*\): a test split", s) for s in said)
    model = tmp_path / "model"
    save_checkpoint(
        model,
        tiny_model(vocab_size=Tokenizer.load(tokenizer_dir).vocab_size, qk_norm=True),
        Tokenizer.load(tokenizer_dir),
        {},
        SavedState(1, {}),
    )
    code = main(["evaluate", str(model), "--data-path", str(data), "--json"])
    out, err = capsys.readouterr()
    assert code == 0 and json.loads(out)["tokens"] > 0
    assert re.match(r"files +2 parquet \(", err)  # an evaluation may be of a test split
    assert "README.md" in err and "about the dataset, not of it" in err
