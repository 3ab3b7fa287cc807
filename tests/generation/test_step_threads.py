"""On how many threads a decoding step runs."""

from __future__ import annotations

import pytest
import torch

from jielong.config.load import load_config
from jielong.generation.threads import is_small, on_one_thread
from jielong.model.transformer import Transformer


@pytest.mark.parametrize(
    ("preset", "small"),
    [("tiny", True), ("small", True), ("moe", True), ("llama-26m", False)],
)
def test_models_of_small_matrices_decode_on_one_thread(preset: str, small: bool) -> None:
    model = Transformer(load_config(preset).model)
    assert is_small(model) is small


def test_the_threads_are_given_back_after_the_step_and_after_an_error() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with on_one_thread(True):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        with pytest.raises(RuntimeError), on_one_thread(True):
            raise RuntimeError
        with on_one_thread(False):
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
