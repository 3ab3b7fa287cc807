"""Tokens a second of `jielong serve`, of one client and of several, beside `TextGenerator`.

    python benchmarks/serve.py --preset small

The model has random weights: what it says does not matter. Each client streams one text after
another. The numbers of clients take turns. The best of the rounds is told, since other programs can
only slow one down, and the median of the rounds' ratios to `TextGenerator`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import statistics
import subprocess
import sys
import time

from common import random_model, save

from jielong.config.sampling import Sampling
from jielong.generation.generate import TextGenerator

PROMPT = "the quick brown fox"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="llama-26m")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 2, 4, 8])
    arguments = parser.parse_args()
    model, tokenizer, folder = random_model(arguments.preset, "serve")
    generator, sampling = TextGenerator(model, tokenizer), Sampling(seed=1)

    def alone() -> float:
        started = time.perf_counter()
        list(generator.stream(PROMPT, arguments.tokens, sampling, stop_at_eos=False))
        return arguments.tokens / (time.perf_counter() - started)

    alone()
    rates: dict[str, list[float]] = {"generate": []}
    command = [sys.executable, "-m", "jielong", "serve", str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            port = port_of(server)
            asyncio.run(measured(port, 1, arguments.tokens))
            for _ in range(arguments.rounds):
                rates["generate"].append(alone())
                for count in arguments.clients:
                    rate = asyncio.run(measured(port, count, arguments.tokens))
                    rates.setdefault(f"{count} clients", []).append(rate)
        finally:
            server.terminate()
    best = {name: max(values) for name, values in rates.items()}
    ratios = {name: median_ratio(values, rates["generate"]) for name, values in rates.items()}
    for name, rate in best.items():
        print(f"{name:12} {rate:8.1f} tokens/s  median of rounds: {ratios[name]:.2f} × generate")
    result = {"preset": arguments.preset, "tokens": arguments.tokens, "tokens_per_s": best}
    result["times_generate"] = ratios
    print(save("serve", result))


def median_ratio(values: list[float], others: list[float]) -> float:
    """The median over the rounds of how many times the other rate one is."""
    return round(statistics.median(a / b for a, b in zip(values, others, strict=True)), 2)


def port_of(server: subprocess.Popen[str]) -> int:
    """The port that a server listens on, once it says so."""
    assert server.stdout is not None
    for line in server.stdout:
        if found := re.search(r":(\d+)/v1", line):
            return int(found[1])
    raise SystemExit("the server did not start")


async def measured(port: int, clients: int, tokens: int) -> float:
    """Tokens a second of so many clients together, two texts each."""
    started = time.perf_counter()
    await asyncio.gather(*(client(port, tokens, seed) for seed in range(clients)))
    return 2 * clients * tokens / (time.perf_counter() - started)


async def client(port: int, tokens: int, seed: int) -> None:
    """Stream two texts, one after the other."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    asked = {"prompt": PROMPT, "max_tokens": tokens, "seed": seed, "ignore_eos": True}
    body = json.dumps(asked | {"stream": True}).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    for _ in range(2):
        writer.write(head.encode() + body)
        answer = await reader.readuntil(b"data: [DONE]\n\n")
        await reader.readuntil(b"0\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200"), answer
    writer.close()


if __name__ == "__main__":
    main()
