"""What commands that listen have in common: address, names, token, and the extra they need."""

from __future__ import annotations

import argparse
import os
import secrets
import socket
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from jielong.errors import ConfigError

if TYPE_CHECKING:
    from jielong.serving.guard import Access

TOKEN_VARIABLE = "JIELONG_TOKEN"
LEAST_TOKEN = 8
ABOUT_TOKEN = (
    f"A token in {TOKEN_VARIABLE} is asked of every client. Without one, none is asked on this "
    "machine alone;\nfor another --host one is made and printed."
)


def add_listening(parser: argparse.ArgumentParser, port: int) -> None:
    """Add the flags that say where to listen, and who may come."""
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)"
    )
    parser.add_argument(
        "--port", type=int, default=port, help=f"0 takes a free one (default {port})"
    )
    parser.add_argument(
        "--allow-host",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="further names by which the server may be called, e.g. that of a proxy",
    )
    parser.epilog = ABOUT_TOKEN


def require_extra(name: str, modules: Sequence[str]) -> None:
    """Check that an extra is installed.

    Raises:
        ConfigError: it is not.
    """
    try:
        for module in modules:
            import_module(module)
    except ImportError:
        message = f"jielong {name} needs an extra: pip install 'jielong[{name}]'"
        raise ConfigError(message) from None


def access_of(arguments: argparse.Namespace) -> Access:
    """Return who may use the server: on this machine alone, or with a token.

    Raises:
        ConfigError: the token that is given is none.
    """
    from jielong.serving.guard import LOCAL, Access
    from jielong.serving.server import is_local

    local = is_local(arguments.host)
    own = () if local else (socket.gethostname().lower(), arguments.host.lower())
    hosts = (*LOCAL, *own, *(host.lower() for host in arguments.allow_host))
    return Access(hosts, any_address=not local, token=_token(local))


def address(arguments: argparse.Namespace, listener: socket.socket) -> str:
    """Return the URL that leads to the server."""
    host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
    return f"http://{host}:{listener.getsockname()[1]}"


def is_secret(access: Access) -> bool:
    """Whether there is a token that only this process knows: it has to be printed."""
    return access.token is not None and TOKEN_VARIABLE not in os.environ


def _token(local: bool) -> str | None:
    token = os.environ.get(TOKEN_VARIABLE)
    if token is None:
        return None if local else secrets.token_urlsafe(24)
    if len(token) < LEAST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(
            f"{TOKEN_VARIABLE} is not {LEAST_TOKEN} or more printable characters without spaces"
        )
    return token
