"""The definition of a setting: its type, help text and bounds, and how it is parsed.

`settings.py` and `model.py` declare the settings with `option`; `--help`, parsing and validation
use these definitions.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from jielong.config.hints import nearest
from jielong.errors import ConfigError


def option(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | None = None,
    words: tuple[str, ...] = (),
    free: bool = False,
    repeated: bool = False,
) -> Any:
    """Declare a config field.

    Args:
        choices: the allowed values of a text field, or of each in a list.
        words: words that a numeric field accepts too, e.g. auto.
        repeated: each flag adds to a list; else the last one counts.
        free: the field may change when a run resumes; it affects results by rounding at most.
    """
    bounds = {"low": low, "high": high, "choices": choices, "words": words}
    how = {"help": help, "free": free, "repeated": repeated}
    return field(default=default, metadata=how | bounds)


@dataclass(frozen=True)
class FieldSpec:
    """One field of one section: what `--help`, parsing and validation need to know."""

    section: str
    name: str
    type: type
    optional: bool
    default: Any
    metadata: Mapping[str, Any]

    @property
    def label(self) -> str:
        return f"{self.section}.{self.name}"

    @property
    def type_name(self) -> str:
        name = "list of str" if self.type is tuple else self.type.__name__
        return " or ".join([name, *self.metadata["words"]])

    def parse(self, value: Any) -> Any:
        """Convert `value` (text from a flag, or TOML data) to this field's type.

        Raises:
            ConfigError: the value is not of this type.
        """
        if value is None or (self.optional and value == "none"):
            if self.optional:
                return None
            raise ConfigError(f"{self.label} needs a value of type {self.type_name}")
        if value in self.metadata["words"]:
            return value
        try:
            return _PARSERS[self.type](value)
        except (ValueError, TypeError, OverflowError):
            raise ConfigError(
                f"{self.label}={value!r} is not a valid {self.type_name}"
                + (" (use true or false)" if self.type is bool else "")
            ) from None

    def check(self, value: Any) -> None:
        low, high, choices = (self.metadata[key] for key in ("low", "high", "choices"))
        if value is None or value in self.metadata["words"]:
            return
        for one in value if isinstance(value, tuple) else (value,):
            if choices and one not in choices:
                raise ConfigError(
                    f"{self.label}={one!r} is not one of {', '.join(choices)}"
                    + nearest(one, choices)
                )
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{self.label}={value} is not finite")
        if low is not None and value < low:
            raise ConfigError(f"{self.label}={value} is below its least value {low}")
        if high is not None and value > high:
            raise ConfigError(f"{self.label}={value} is above its largest value {high}")


def parse_bool(value: Any) -> bool:
    """Parse a boolean written as a word, so that `--use_moe False` means false.

    Raises:
        ValueError: the value is not a boolean.
    """
    words = {"true": True, "yes": True, "on": True, "1": True}
    words |= {"false": False, "no": False, "off": False, "0": False}
    if isinstance(value, bool):
        return value
    if str(value).lower() not in words:
        raise ValueError(value)
    return words[str(value).lower()]


def _parse_int(value: Any) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError(value)
    if isinstance(value, str) and not value.lstrip("-").replace("_", "").isdigit():
        number = float(value)  # budgets are often written as 1e9
        if not number.is_integer():
            raise ValueError(value)
        return int(number)
    return int(value)


def _parse_float(value: Any) -> float:
    if isinstance(value, bool):
        raise ValueError(value)
    return float(value)


def _parse_str(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(value)
    return value


def _parse_strings(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(_parse_str(v) for v in value)


_PARSERS: dict[type, Any] = {
    bool: parse_bool,
    int: _parse_int,
    float: _parse_float,
    str: _parse_str,
    tuple: _parse_strings,
}


def collect_fields(config_type: type) -> dict[str, FieldSpec]:
    """Collect the fields of all sections of a config by bare name, which must be unique."""
    specs: dict[str, FieldSpec] = {}
    for section, section_type in typing.get_type_hints(config_type).items():
        found = section_fields(section, section_type)
        assert not found.keys() & specs.keys(), "a name stands in two sections"
        specs |= found
    return specs


def section_fields(section: str, section_type: type) -> dict[str, FieldSpec]:
    """Return the fields of one section, by name."""
    specs: dict[str, FieldSpec] = {}
    hints = typing.get_type_hints(section_type)
    for f in fields(section_type):
        hint, optional = hints[f.name], False
        if isinstance(hint, types.UnionType):
            hint, optional = typing.get_args(hint)[0], True
        hint = typing.get_origin(hint) or hint
        specs[f.name] = FieldSpec(section, f.name, hint, optional, f.default, f.metadata)
    return specs
