"""`jielong serve`: put a trained model behind OpenAI's API."""

from __future__ import annotations

import argparse
import os
import secrets
import socket
from pathlib import Path

from jielong.cli.options import Commands, add_model, find_model
from jielong.errors import ConfigError

TOKEN_VARIABLE = "JIELONG_TOKEN"
NEEDED = ("starlette", "uvicorn", "jinja2")
LEAST_TOKEN = 8


def add(commands: Commands) -> None:
    """Add the command and its flags."""
    p = commands.add_parser("serve", help="answer OpenAI's API with a trained model")
    add_model(p)
    p.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    p.add_argument("--port", type=int, default=8000, help="0 takes a free one (default 8000)")
    p.add_argument("--name", help="what clients call the model (default: the folder's name)")
    p.add_argument("--slots", type=int, default=8, help="texts written at once (default 8)")
    p.add_argument(
        "--queue", type=int, default=64, help="requests that may wait for a slot (default 64)"
    )
    p.add_argument(
        "--max-tokens", type=int, default=4096, help="most tokens of a text (default 4096)"
    )
    p.add_argument(
        "--allow-host",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="further names by which the server may be called, e.g. that of a proxy",
    )
    p.add_argument("--device", default="auto", help="auto (default), cpu, cuda or mps")
    p.epilog = (
        f"A token in {TOKEN_VARIABLE} is asked of every client. Without one, none is asked on this "
        "machine alone;\nfor another --host one is made and printed."
    )
    p.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    _require_extra()
    from jielong.api import load
    from jielong.model.transformer import context_length
    from jielong.serving.app import create_app
    from jielong.serving.engine import Engine
    from jielong.serving.guard import LOCAL, Access
    from jielong.serving.limits import Limits
    from jielong.serving.server import Server, is_local, listen

    limits = Limits(arguments.slots, arguments.queue, arguments.max_tokens)
    local = is_local(arguments.host)
    token = _token(local)
    listener = listen(
        arguments.host, arguments.port
    )  # before the model: a taken port shows at once
    folder = find_model(arguments)
    model, tokenizer = load(folder, arguments.device)
    engine = Engine(model, tokenizer, limits)
    name = arguments.name or Path(arguments.model).resolve().name
    own = () if local else (socket.gethostname().lower(), arguments.host.lower())
    hosts = (*LOCAL, *own, *(host.lower() for host in arguments.allow_host))
    app = create_app(engine, name, Access(hosts, any_address=not local, token=token))
    engine.start()
    port = listener.getsockname()[1]
    host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
    cache = engine.pairs.numel() * engine.pairs.element_size() / 2**20
    print(f"model     {name} ({folder}), context {context_length(model.config):,} tokens")
    print(f"at once   {limits.slots} texts ({cache:,.0f} MiB of cache), {limits.queue} may wait")
    chat = "with" if tokenizer.chat_template else "without"
    print(f"API       http://{host}:{port}/v1 (OpenAI's; {chat} chat)")
    if token is not None and TOKEN_VARIABLE not in os.environ:
        print(f"token     {token}")
    listener.listen()  # who reads the next line may connect
    print("Ctrl-C ends it.", flush=True)
    Server(app, engine, limits).serve_on(listener)
    return 0


def _require_extra() -> None:
    from importlib import import_module

    try:
        for name in NEEDED:
            import_module(name)
    except ImportError:
        raise ConfigError("jielong serve needs an extra: pip install 'jielong[serve]'") from None


def _token(local: bool) -> str | None:
    token = os.environ.get(TOKEN_VARIABLE)
    if token is None:
        return None if local else secrets.token_urlsafe(24)
    if len(token) < LEAST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(
            f"{TOKEN_VARIABLE} is not {LEAST_TOKEN} or more printable characters without spaces"
        )
    return token
