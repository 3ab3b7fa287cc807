"""The data view shows what training reads."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest

from jielong.config.settings import IGNORE_INDEX
from jielong.data.batches import Batch
from jielong.errors import ConfigError, DataError
from jielong.insight.data import DataView, inspect_data
from jielong.insight.subject import opened
from jielong.observe.console import Console
from jielong.present.visible import spelled
from jielong.present.words import sayer
from jielong.runtime.device import choose_device
from jielong.runtime.distributed import World
from jielong.runtime.run_folder import RunFolder
from jielong.training.inputs import inputs_of_run
from jielong.training.speed import Machine
from jielong.training.state import build
from tiny import TINY_RUN

WINDOW = TINY_RUN["max_seq_len"]


def trained_batch(run: Path, step: int) -> Batch:
    """The batch that a training run takes at a step."""
    folder = RunFolder(run)
    config, start = inputs_of_run(folder)
    device = choose_device("cpu")
    machine = Machine(device)
    state = build(config, folder, start, Console(shown=False), World(), machine)
    return state.batches.batch(step)


@pytest.mark.parametrize("step", [0, 17])
def test_the_rows_are_those_that_training_reads(trained_run: Path, step: int) -> None:
    seen = inspect_data(trained_run, step=step, rows=99, positions=99)
    batch = trained_batch(trained_run, step)
    assert batch.document_ids is not None
    for row, view in enumerate(seen.rows):
        targets = [IGNORE_INDEX if p.target is None else p.target for p in view.positions]
        assert targets == batch.targets[row].tolist()
        assert [p.token or 0 for p in view.positions] == batch.tokens[row].tolist()
        assert [p.document for p in view.positions] == batch.document_ids[row].tolist()
        assert view.window == batch.windows[row]
    assert (seen.windows, seen.window) == tuple(batch.tokens.shape) == (len(seen.rows), WINDOW)
    assert seen.counted == batch.target_count
    assert seen.documents == sum(len(set(row.tolist())) for row in batch.document_ids)


def test_y_is_x_moved_by_one_but_for_noise_and_document_borders(trained_run: Path) -> None:
    noisy = inspect_data(trained_run, rows=99)
    clean = inspect_data(trained_run, rows=99, clean=True)
    assert noisy.input_noise == 0.2 and clean.input_noise == 0
    for row in clean.rows:
        for here, after in itertools.pairwise(row.positions):
            if here.document == after.document and here.target is not None:
                assert (here.target, here.target_text) == (after.token, after.text)
            if here.document != after.document:
                assert here.target is None and after.text == "<|im_start|>"
    assert not any(p.replaced for row in clean.rows for p in row.positions)
    pairs = [
        (p, q)
        for row, own in zip(noisy.rows, clean.rows, strict=True)
        for p, q in zip(row.positions[1:], own.positions[1:], strict=True)
    ]
    assert all(p.replaced == (p.token != q.token) for p, q in pairs)
    assert any(p.replaced for p, _ in pairs)


def test_settings_show_what_a_run_with_them_would_read(
    corpus_file: Path, tokenizer_dir: Path, trained_run: Path
) -> None:
    settings = TINY_RUN | {"data_path": str(corpus_file), "tokenizer": str(tokenizer_dir)}
    before = sorted(trained_run.rglob("*"))
    ours = inspect_data(settings | {"input_noise": 0.2, "bpe_dropout": 0.0}, step=3)
    assert ours == inspect_data(trained_run, step=3)
    assert sorted(trained_run.rglob("*")) == before


def test_padded_rows_hold_one_document_and_padding(trained_run: Path) -> None:
    seen = inspect_data(trained_run, rows=99, clean=True, packing="pad")
    assert seen.documents == seen.windows and seen.padding > 0
    with opened(trained_run, packing="pad") as data:
        end = spelled(data.tokenizer.piece(data.tokenizer.eos_id or 0))
    for row in seen.rows:
        tokens = [p for p in row.positions if p.token is not None]
        padding = row.positions[len(tokens) :]
        assert all(p.token is None and p.target is None for p in padding)
        assert tokens[0].text == "<|im_start|>"
        assert end in (tokens[-1].text, tokens[-1].target_text)
    lost = sum(p.target is None for row in seen.rows for p in row.positions)
    assert seen.counted == seen.windows * seen.window - lost


def test_a_page_says_what_counts(trained_run: Path) -> None:
    seen = inspect_data(trained_run, rows=1, positions=4)
    said = repr(seen.page(sayer("en")))
    assert f"{seen.counted:,} targets" in said and "… 12 more positions" in said
    assert "20% of the input tokens replaced" in said
    assert "20% 的输入" in repr(seen.page(sayer("zh")))
    apart = dataclasses.replace(seen, document_mask=False)
    assert "Attention crosses it" in repr(apart.page(sayer("en")))


def test_mistakes_are_told_in_a_line(tmp_path: Path, trained_run: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere: no run is here"):
        inspect_data(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="step=24 is not a step of this run: it has 24, from 0"):
        inspect_data(trained_run, step=24)
    started = tmp_path / "started"
    started.mkdir()
    (started / "config.toml").write_bytes((trained_run / "config.toml").read_bytes())
    with pytest.raises(DataError, match="started: the text of this run is not prepared yet"):
        inspect_data(started)
    with pytest.raises(ConfigError, match="data_path is missing"):
        inspect_data({"preset": "tiny", "steps": 3})


def test_json_is_plain(trained_run: Path) -> None:
    seen = inspect_data(trained_run, rows=1)
    plain = seen.to_json()
    assert isinstance(seen, DataView) and plain["windows"] == seen.windows
    assert plain["rows"][0]["positions"][0]["text"] == seen.rows[0].positions[0].text
