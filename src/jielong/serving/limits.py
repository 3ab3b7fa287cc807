"""What a server accepts: sizes, numbers and times, so that no request can exhaust it."""

from __future__ import annotations

from dataclasses import dataclass, fields

from jielong.errors import ConfigError


@dataclass(frozen=True)
class Limits:
    """Bounds of a server.

    Attributes:
        slots: texts that are written at once; each has a part of the KV cache.
        queue: requests that may wait beside them; further ones are answered with 429.
        max_tokens: most tokens that a request may ask for.
        choices: most texts of one request: prompts times `n`.
        body_bytes: largest body of a request.
        header_s: seconds within which the head of a request must have come, from its connection or
            from its first byte.
        body_s: seconds within which the body must have come after its head.
        send_s: seconds that a client may leave what was sent to it unread.
        connections: most connections at once; further ones are answered with 503.
        stop_s: seconds after SIGTERM in which running requests may end by themselves.

    Raises:
        ConfigError: a value is too small.
    """

    slots: int = 8
    queue: int = 64
    max_tokens: int = 4096
    choices: int = 128
    body_bytes: int = 2**20
    header_s: float = 10.0
    body_s: float = 30.0
    send_s: float = 30.0
    connections: int = 512
    stop_s: float = 8.0

    def __post_init__(self) -> None:
        for field in fields(self):
            least, value = (0 if field.name == "queue" else 1), getattr(self, field.name)
            if isinstance(field.default, int) and value < least:
                raise ConfigError(f"{field.name}={value} is below {least}")
