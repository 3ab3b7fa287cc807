"""Tokens a second of one sequence on the CPU, beside transformers' generate and a copy of memory.

    python benchmarks/generate.py

The model has the size of MiniMind2-small and random weights: what it says does not matter. The
floor is what a token's bytes of weights cost at the rate of a copy measured between the contenders'
turns: 2 bytes a weight, as jielong reads them (its packed copy is made in the first call, which is
timed by itself), and beside it 4, as the file holds them.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from common import random_model, save

from jielong.config.sampling import Sampling
from jielong.generation.generate import TextGenerator


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="llama-26m")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    model, tokenizer, folder = random_model(arguments.preset, "generate")

    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
    prompt = torch.tensor([[1, *tokenizer.encode("the quick brown")]])
    greedy = Sampling(top_k=1)  # by sampling: with temperature 0 the weights are not packed

    generator = TextGenerator(model, tokenizer)

    def ours() -> None:
        list(generator.stream("the quick brown", arguments.tokens, greedy, False))

    def transformers() -> None:
        theirs.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False,
            max_new_tokens=arguments.tokens, min_new_tokens=arguments.tokens,
        )  # fmt: skip

    spent: dict[str, list[float]] = {"jielong": [], "transformers": [], "floor": []}
    started = time.perf_counter()
    ours()
    first = time.perf_counter() - started
    transformers()
    for _ in range(arguments.rounds):
        for name, run in (("jielong", ours), ("transformers", transformers)):
            started = time.perf_counter()
            run()
            spent[name].append((time.perf_counter() - started) / arguments.tokens)
        spent["floor"].append(2 * model.num_parameters() / copy_rate())
    median = {name: statistics.median(values) for name, values in spent.items()}
    for name, seconds in median.items():
        print(f"{name:14} {1e3 * seconds:7.2f} ms a token  {1 / seconds:8.1f} tokens/s")
    print(f"times transformers: {median['transformers'] / median['jielong']:.2f}")
    times = median["jielong"] / median["floor"]
    print(f"times the floor:    {times:.2f} of 2 bytes a weight, {times / 2:.2f} of 4")
    print(f"first call, packing included: {first:.2f} s for {arguments.tokens} tokens")
    result = {f"{name}_ms_per_token": round(1e3 * s, 3) for name, s in median.items()}
    result["first_call_s"] = round(first, 3)
    print(save("generate", {"preset": arguments.preset, "tokens": arguments.tokens, **result}))


def copy_rate(size: int = 2**26) -> float:
    """Bytes a second that torch copies from one place in memory to another, median of a few."""
    here, there = torch.ones(size), torch.empty(size)
    there.copy_(here)  # the pages are there now
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        there.copy_(here)
        seconds.append(time.perf_counter() - started)
    return 4 * size / statistics.median(seconds)


if __name__ == "__main__":
    main()
