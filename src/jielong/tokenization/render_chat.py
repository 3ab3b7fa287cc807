"""A program: writes conversations as texts, by a chat template. Reads and writes lines of JSON.

A template comes with a model and is code of a kind. So it runs in a process of its own that imports
nothing of ours, in Jinja's sandbox, with little memory and time; its caller ends it otherwise.
"""

from __future__ import annotations

import contextlib
import json
import math
import resource
import sys
from typing import Any, NoReturn

MEMORY_BYTES = 2**29
CPU_SECONDS = 1
MOST_CHARS = 2**20


def main() -> None:
    """Read {template, add_generation_prompt, bos_token, eos_token}, then a conversation a line.

    Write {text} or {error} for each.
    """
    for kind, most in ((resource.RLIMIT_AS, MEMORY_BYTES), (resource.RLIMIT_FSIZE, 0)):
        with contextlib.suppress(ValueError, OSError):  # macOS has no limit of address space
            resource.setrlimit(kind, (most, most))
    values = json.loads(sys.stdin.readline())
    template: Any = None
    for line in sys.stdin:
        _limit_time()
        try:
            template = template or _template(values.pop("template"))
            answer = {"text": _render(template, messages=json.loads(line), **values)}
        except MemoryError:
            answer = {"error": "it needs too much memory"}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {str(error)[:200]}"}
        print(json.dumps(answer), flush=True)


def _limit_time() -> None:
    """Allow CPU_SECONDS more of computing, for one conversation."""
    spent = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    with contextlib.suppress(ValueError, OSError):
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(spent) + CPU_SECONDS, hard))


def _template(source: str) -> Any:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )  # as transformers has it
    environment.globals["raise_exception"] = _raise
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment.from_string(source)


def _render(template: Any, **values: Any) -> str:
    text: str = template.render(**values)
    if len(text) > MOST_CHARS:
        raise ValueError("its text is too long")
    return text


def _raise(message: str) -> NoReturn:
    raise ValueError(message)


if __name__ == "__main__":
    main()
