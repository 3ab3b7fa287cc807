"""`jielong serve`: put a trained model behind OpenAI's API."""

from __future__ import annotations

import argparse
from pathlib import Path

from jielong.cli.listening import access_of, add_listening, address, is_secret, require_extra
from jielong.cli.options import Commands, add_model, find_model
from jielong.cli.terminal import print_row
from jielong.present.words import sayer

LABEL_WIDTH = 10
NEEDED = ("starlette", "uvicorn", "jinja2")


def add(commands: Commands) -> None:
    """Add the command and its flags."""
    p = commands.add_parser("serve", help="answer OpenAI's API with a trained model")
    add_model(p)
    add_listening(p, port=8000)
    p.add_argument("--name", help="what clients call the model (default: the folder's name)")
    p.add_argument("--slots", type=int, default=8, help="texts written at once (default 8)")
    p.add_argument(
        "--queue", type=int, default=64, help="requests that may wait for a slot (default 64)"
    )
    p.add_argument(
        "--max-tokens", type=int, default=4096, help="most tokens of a text (default 4096)"
    )
    p.add_argument("--device", default="auto", help="auto (default), cpu, cuda or mps")
    p.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    require_extra("serve", NEEDED)
    from jielong.api import load
    from jielong.model.transformer import context_length
    from jielong.serving.app import create_app
    from jielong.serving.engine import Engine
    from jielong.serving.limits import Limits
    from jielong.serving.server import Server, listen

    say = sayer(arguments.lang)
    limits = Limits(arguments.slots, arguments.queue, arguments.max_tokens)
    access = access_of(arguments)
    listener = listen(
        arguments.host, arguments.port
    )  # before the model: a taken port shows at once
    folder = find_model(arguments)
    model, tokenizer = load(folder, arguments.device)
    engine = Engine(model, tokenizer, limits)
    name = arguments.name or Path(arguments.model).resolve().name
    app = create_app(engine, name, access)
    engine.start()
    cache = engine.pairs.numel() * engine.pairs.element_size() / 2**20
    context = say("context {n:,} tokens", n=context_length(model.config))
    at_once = say("{n} texts ({size:,.0f} MiB of cache)", n=limits.slots, size=cache)
    print_row(say("model"), f"{name} ({folder}), {context}", LABEL_WIDTH)
    print_row(say("at once"), f"{at_once}, {say('{n} may wait', n=limits.queue)}", LABEL_WIDTH)
    listener.listen()  # who reads the next line may connect
    url = f"{address(arguments, listener)}/v1"
    about = say("OpenAI's; without chat")
    if tokenizer.chat_template:
        about = say("OpenAI's; with chat")
    print_row("API", f"{url} ({about})", LABEL_WIDTH)
    if access.token is not None and is_secret(access):
        print_row(say("token"), access.token, LABEL_WIDTH)
    print(say("Ctrl-C ends it."), flush=True)
    Server(app, engine, limits).serve_on(listener)
    return 0
