"""Several ranks: one meets NaN (row 16), a bit of its weights flips (19), or it has less memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jielong.checkpoint import checkpoint
from jielong.checkpoint.weights import load_tensors
from tiny import TINY_RUN, flags
from training.test_distributed import free_port, python_in_ranks
from training.test_memory import losses

STEPS, POISONED = 8, 4
# Two runs in a row: in one, rank 1 alone meets NaN in a backward pass; the other leaves that step
# out. Each meets at a port of its own.
CHILD = """
import json, os, sys
from jielong.cli.main import main
from jielong.training.step import StepResult, TrainStep
real, poisoned, nan = TrainStep.__call__, int(sys.argv[1]), float("nan")
seen = []

def poisoning(step, *arguments, **options):
    seen.append(1)
    hooks = []
    if len(seen) == poisoned and os.environ["RANK"] == "1":
        hooks = [next(step.model.parameters()).register_hook(lambda grad: grad * nan)]
    result = real(step, *arguments, **options)
    for hook in hooks:
        hook.remove()
    return result

def omitting(*arguments, **options):
    seen.append(1)
    if len(seen) == poisoned:
        return StepResult(nan, 1, nan, applied=False)
    return real(*arguments, **options)

for step, (port, words) in zip((poisoning, omitting), json.loads(sys.argv[2]), strict=True):
    seen.clear()
    TrainStep.__call__, os.environ["MASTER_PORT"] = step, str(port)
    assert main(words) == 0
"""


FLIPPING = """
import json, os, sys
import torch
from jielong.cli.main import main
from jielong.training.step import TrainStep
real, seen = TrainStep.__call__, []

def flipping(step, *arguments, **options):
    result = real(step, *arguments, **options)
    seen.append(1)
    if len(seen) == int(sys.argv[1]) and os.environ["RANK"] == "1":
        weights = next(step.model.parameters()).data
        weights.view(torch.int32)[3, 5] ^= 1 << 12
    return result

TrainStep.__call__ = flipping
sys.exit(main(json.loads(sys.argv[2])))
"""


CRAMPED = """
import json, os, sys
import torch
from jielong.cli.main import main
from jielong.model.transformer import Transformer
real = Transformer.forward

def forward(self, tokens, *rest, **named):
    if torch.is_grad_enabled() and len(tokens) > 1 and os.environ["RANK"] == "1":
        raise torch.OutOfMemoryError("no memory is left for 8 GiB")
    return real(self, tokens, *rest, **named)

Transformer.forward = forward
sys.exit(main(json.loads(sys.argv[1])))
"""


# From step 3 on rank 1 has memory for one window alone: in its forward pass, or near the end of its
# backward pass, when some gradients have already been summed.
SUDDENLY = """
import json, os, sys
import torch
from jielong.cli.main import main
from jielong.model.transformer import Transformer
from jielong.runtime.gradients import GradientSum
from jielong.training.step import TrainStep
GradientSum.__init__.__defaults__ = (4096,)  # several sums in a pass
real, real_step, steps, rows = Transformer.forward, TrainStep.__call__, [], []
where = sys.argv[1]

def out_of_memory(_):
    if rows[-1] > 1 and len(steps) > 2:
        raise torch.OutOfMemoryError("no memory is left for 8 GiB")

def forward(self, tokens, *rest, **named):
    if torch.is_grad_enabled():
        rows.append(len(tokens))
        if where == "forward":
            out_of_memory(None)
        elif len(rows) == 1:
            self.model.embed_tokens.weight.register_hook(out_of_memory)
    return real(self, tokens, *rest, **named)

def step(*arguments, **options):
    steps.append(1)
    return real_step(*arguments, **options)

if os.environ["RANK"] == "1" and where != "nowhere":
    Transformer.forward, TrainStep.__call__ = forward, step
sys.exit(main(json.loads(sys.argv[2])))
"""


def on_two_ranks(script: str, *words: str) -> tuple[list[int], list[str]]:
    """Runs Python text as two ranks: their exit statuses and what they said."""
    statuses, said = zip(*python_in_ranks(2, ["-c", script, *words]), strict=True)
    return list(statuses), list(said)


def test_nan_on_one_rank_changes_nothing_on_any(
    tmp_path: Path, corpus_file: Path, tokenizer_dir: Path
) -> None:
    settings = TINY_RUN | {"steps": STEPS, "eval_interval": 2, "keep_checkpoints": 9}
    settings |= {"data_path": corpus_file, "tokenizer": tokenizer_dir}
    runs = [tmp_path / "poisoned", tmp_path / "omitted"]
    jobs = [(free_port(), ["pretrain", *flags(settings | {"out_dir": run})]) for run in runs]
    statuses, said = on_two_ranks(CHILD, str(POISONED), json.dumps(jobs))
    assert statuses == [0, 0], said
    assert f"step {POISONED}: loss" in said[0] and said[0].count("update skipped") == 2
    for step in (POISONED, STEPS):
        for file in ("model.safetensors", "optimizer.safetensors"):
            path = Path("checkpoints") / checkpoint.step_name(step) / file
            got, expected = (load_tensors(run / path) for run in runs)
            assert got.keys() == expected.keys()
            assert all((got[name] == expected[name]).all() for name in got), (step, file)


def test_a_flipped_bit_in_the_weights_of_one_rank_is_found_before_anything_is_saved(
    tmp_path: Path, corpus_file: Path, tokenizer_dir: Path
) -> None:
    settings = TINY_RUN | {"steps": STEPS, "eval_interval": 2, "keep_checkpoints": 9}
    settings |= {"data_path": corpus_file, "tokenizer": tokenizer_dir, "out_dir": tmp_path / "run"}
    words = json.dumps(["pretrain", *flags(settings)])
    statuses, said = on_two_ranks(FLIPPING, "5", words)
    assert statuses == [2, 2], said
    text = "".join(said)  # both find it, one says it
    assert text.count("after step 6 the weights on rank") == 1 and "Traceback" not in text
    newest, problems = checkpoint.latest_valid_checkpoint(tmp_path / "run" / "checkpoints")
    assert newest is not None and checkpoint.step_of(newest) == 4 and not problems
    statuses, said = on_two_ranks(FLIPPING, "0", words)
    assert statuses == [0, 0], said


@pytest.mark.parametrize("changes", [{}, {"use_moe": True, "num_experts_per_tok": 2}])
def test_memory_that_runs_out_in_a_step_of_one_rank_halves_the_pieces_of_all(
    changes: dict[str, Any], tmp_path: Path, corpus_file: Path, tokenizer_dir: Path
) -> None:
    settings = TINY_RUN | {"steps": 6, "eval_interval": 6, "optimizer": "adamw", "adam_eps": 1e-3}
    settings |= {"data_path": corpus_file, "tokenizer": tokenizer_dir, **changes}
    settings |= {"micro_batch_size": 8, "learning_rate": 1e-3}
    expected: list[float] = []
    for where in ("nowhere", "forward", "backward"):
        run = tmp_path / where
        words = json.dumps(["pretrain", *flags(settings | {"out_dir": run})])
        statuses, said = on_two_ranks(SUDDENLY, where, words)
        assert statuses == [0, 0], said
        if where == "nowhere":
            expected = losses(run)
            continue
        assert said[0].count("out of memory at step 3") == said[0].count("out of memory") == 2
        assert "micro-batches of 2 windows from now on, not 4" in said[0] and not said[1]
        assert losses(run) == pytest.approx(expected, abs=1e-5)


def test_memory_for_not_even_a_window_on_one_rank_ends_all_in_plain_words(
    tmp_path: Path, corpus_file: Path, tokenizer_dir: Path
) -> None:
    settings = TINY_RUN | {"steps": 6, "data_path": corpus_file, "tokenizer": tokenizer_dir}
    words = json.dumps(["pretrain", *flags(settings | {"out_dir": tmp_path / "run"})])
    script = SUDDENLY.replace("rows[-1] > 1 and ", "")
    statuses, said = on_two_ranks(script, "forward", words)
    assert statuses == [2, 2], said
    text = "".join(said)
    assert text.count("error: out of memory at step 3, with a single window at a time") == 1
    assert "Traceback" not in text


def test_a_rank_with_less_memory_sets_the_size_for_all(
    tmp_path: Path, corpus_file: Path, tokenizer_dir: Path
) -> None:
    settings = TINY_RUN | {"steps": 4, "eval_interval": 4, "optimizer": "adamw", "adam_eps": 1e-3}
    settings |= {"data_path": corpus_file, "tokenizer": tokenizer_dir}
    runs = [tmp_path / "cramped", tmp_path / "roomy"]
    words = [json.dumps(["pretrain", *flags(settings | {"out_dir": run})]) for run in runs]
    statuses, said = on_two_ranks(CRAMPED, words[0])
    assert statuses == [0, 0], said
    assert "memory     micro-batches of 2 windows fit, of 8 in the global batch" in said[0]
    statuses, said = on_two_ranks(FLIPPING, "0", words[1])
    assert statuses == [0, 0] and "windows fit" not in said[0], said
    pairs = zip(*map(losses, runs), strict=True)
    assert all(abs(a - b) < 1e-5 for a, b in pairs)
