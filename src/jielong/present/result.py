"""What all results have in common: JSON, a page to look at, and HTML for notebooks."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from jielong.present.blocks import Page
from jielong.present.words import Say, sayer


class Result:
    """A frozen dataclass of plain values; `page` says what there is to see of it."""

    def page(self, say: Say) -> Page:
        """Return the page that terminal, HTML and picture draw, in the language of `say`."""
        raise NotImplementedError

    def to_json(self) -> dict[str, Any]:
        """Return the values by name; numbers that are not finite become None, as JSON has none."""
        assert dataclasses.is_dataclass(self) and not isinstance(self, type)
        plain: dict[str, Any] = _plain(dataclasses.asdict(self))
        return plain

    def _repr_html_(self) -> str:
        """What notebooks show."""
        from jielong.present.html import fragment

        return fragment(self.page(sayer()))


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
