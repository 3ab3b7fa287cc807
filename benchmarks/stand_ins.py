"""Just enough of two packages that jielong needs, for machines where nothing can be installed.

`install()` puts them in the place of what is missing; an installed package is never replaced.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from typing import Any


def install() -> list[str]:
    """Stand in for what is missing; return its names."""
    makers = {"orjson": _orjson, "tomli_w": _tomli_w}
    missing = [name for name in makers if importlib.util.find_spec(name) is None]
    for name in missing:
        sys.modules[name] = makers[name]()
    return missing


def _orjson() -> types.ModuleType:
    module = types.ModuleType("orjson")
    module.JSONDecodeError = json.JSONDecodeError  # type: ignore[attr-defined]
    module.loads = json.loads  # type: ignore[attr-defined]
    module.dumps = lambda value: json.dumps(value, ensure_ascii=False).encode()  # type: ignore[attr-defined]
    return module


def _tomli_w() -> types.ModuleType:
    module = types.ModuleType("tomli_w")
    module.dumps = toml  # type: ignore[attr-defined]
    return module


def toml(tables: dict[str, dict[str, Any]]) -> str:
    """Tables of text, numbers, booleans and lists of them, as TOML."""
    lines = []
    for name, table in tables.items():
        lines.append(f"[{name}]")
        # JSON writes such values as TOML does
        lines += [f"{key} = {json.dumps(value)}" for key, value in table.items()]
        lines.append("")
    return "\n".join(lines)
