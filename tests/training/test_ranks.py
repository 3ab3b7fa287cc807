"""What several ranks tell of themselves: who is slow; rank 0 alone writes and prints."""

from __future__ import annotations

import json
from pathlib import Path

from jielong.observe.health import straggler
from tiny import TINY_RUN, flags, in_this_process
from training.test_distributed import python_in_ranks

# Rank 1 takes longer for its passes (as on a slower machine), or for reading its batches.
SLOW = """
import json, os, sys, time
from jielong.cli.main import main
from jielong.data.batches import Batches
from jielong.model.transformer import Transformer

def slowly(real):
    def slow(*arguments, **options):
        time.sleep(0.2)
        return real(*arguments, **options)
    return slow

if os.environ["RANK"] == "1":
    owner, name = {"passes": (Transformer, "forward"), "reads": (Batches, "batch")}[sys.argv[1]]
    setattr(owner, name, slowly(getattr(owner, name)))
sys.exit(main(json.loads(sys.argv[2])))
"""


def test_the_slowest_rank_is_recorded_and_told_and_only_rank_0_writes_and_prints(
    tmp_path: Path, corpus_file: Path, tokenizer_dir: Path
) -> None:
    settings = TINY_RUN | {"steps": 10, "eval_interval": 10, "num_workers": 0}
    settings |= {"data_path": corpus_file, "tokenizer": tokenizer_dir}
    for what in ("passes", "reads"):
        run = tmp_path / what
        words = json.dumps(["pretrain", *flags(settings | {"out_dir": run})])
        (status, said), (other, nothing) = python_in_ranks(2, ["-c", SLOW, what, words])
        assert (status, other) == (0, 0) and not nothing, said + nothing
        assert said.count("rank 1 takes ") == 1 and "all wait for it" in said
        records = [json.loads(x) for x in (run / "metrics.jsonl").read_text().splitlines()]
        trained = [r for r in records if r["kind"] == "train"]
        assert len(trained) == 10 and {r["slowest_rank"] for r in trained} == {1}
        assert all(r["rank_seconds"][1] >= 0.19 and len(r["rank_seconds"]) == 2 for r in trained)
        log = [json.loads(line) for line in (run / "ranks.jsonl").read_text().splitlines()]
        ranks = [r for r in log if r["kind"] == "rank"]
        assert [r["rank"] for r in ranks] == [0, 1]
        assert len({r["process"] for r in ranks}) == 2
        assert all(r["device"] == "cpu" and r["seed"] == 1337 and r["memory_bytes"] for r in ranks)
        assert [r["step"] for r in log if r["kind"] == "step"] == list(range(1, 11))


def test_a_process_that_is_alone_has_no_ranks_to_tell_of(
    tmp_path: Path, corpus_file: Path, tokenizer_dir: Path
) -> None:
    settings = TINY_RUN | {"steps": 2, "data_path": corpus_file, "tokenizer": tokenizer_dir}
    assert in_this_process(["pretrain", *flags(settings | {"out_dir": tmp_path / "run"})])[0] == 0
    assert not (tmp_path / "run" / "ranks.jsonl").exists()
    assert "rank_seconds" not in (tmp_path / "run" / "metrics.jsonl").read_text()


def test_a_rank_is_called_slow_only_where_it_is_so_record_by_record() -> None:
    even = [{"step": s, "rank_seconds": [1.0, 1.1, 0.9, 1.2]} for s in range(20)]
    assert straggler(even) is None
    slow = [{"step": s, "rank_seconds": [1.0, 1.1, 1.6, 1.2]} for s in range(20)]
    found = straggler(slow)
    assert found is not None and found.name == "straggler_2" and "rank 2 takes 1.6 s" in found.text
    assert straggler(slow[:9]) is None  # too few to tell
    assert straggler(even + slow[:9]) is None  # less often is chance
    other = {"step": 9, "rank_seconds": [1.0, 2.0]}  # of another number of processes
    assert straggler([*slow, other]) is None
    assert straggler([{"step": 1}] * 20) is None
