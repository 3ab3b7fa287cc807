"""A program: writes a conversation as text, by a chat template. Reads and writes JSON.

A template comes with a model and is code of a kind. So it runs in a process of its own that imports
nothing of ours, in Jinja's sandbox, with little memory and time; the server ends it otherwise.
"""

from __future__ import annotations

import contextlib
import json
import resource
import sys
from typing import Any, NoReturn

MEMORY_BYTES = 2**29
CPU_SECONDS = 1
MOST_CHARS = 2**20


def main() -> None:
    """Read {template, messages, bos_token, eos_token}; write {text} or {error}."""
    for kind, most in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_FSIZE, 0),
    ):
        with contextlib.suppress(ValueError, OSError):  # macOS has no limit of address space
            resource.setrlimit(kind, (most, most))
    try:
        answer = {"text": _render(**json.load(sys.stdin))}
    except MemoryError:
        answer = {"error": "it needs too much memory"}
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {str(error)[:200]}"}
    json.dump(answer, sys.stdout)


def _render(template: str, **values: Any) -> str:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )  # as transformers has it
    environment.globals["raise_exception"] = _raise
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    text = environment.from_string(template).render(add_generation_prompt=True, **values)
    if len(text) > MOST_CHARS:
        raise ValueError("its text is too long")
    return text


def _raise(message: str) -> NoReturn:
    raise ValueError(message)


if __name__ == "__main__":
    main()
