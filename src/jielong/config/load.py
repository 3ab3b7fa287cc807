"""A run's config, merged from its layers: defaults < preset < `--config FILE` < flags."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from jielong.config.aliases import BATCH_ALIASES
from jielong.config.hints import hint, nearest
from jielong.config.model import MODEL_FIELDS
from jielong.config.settings import FIELDS, Config
from jielong.errors import ConfigError

PACKAGED_PRESETS = Path(__file__).parents[1] / "configs"  # where a wheel puts them
DEFAULT_MINUTES = 10.0  # of a run for which nothing is said but its text
BUDGETS = ("minutes", "epochs", "tokens", "steps")  # each says how long a run trains
SOURCE_PRESETS = Path(__file__).parents[3] / "configs"


def preset_names() -> list[str]:
    folder = PACKAGED_PRESETS if PACKAGED_PRESETS.is_dir() else SOURCE_PRESETS
    return sorted(path.stem for path in folder.glob("*.toml"))


def load_preset(name: str) -> dict[str, Any]:
    """Return the values of the preset `configs/NAME.toml`, by bare field name."""
    if name not in preset_names():
        raise ConfigError(
            f"unknown preset {name!r}{nearest(name, preset_names())} "
            f"(presets: {', '.join(preset_names())})"
        )
    folder = PACKAGED_PRESETS if PACKAGED_PRESETS.is_dir() else SOURCE_PRESETS
    return load_toml(folder / f"{name}.toml")


def load_toml(path: str | Path) -> dict[str, Any]:
    """Return the values of a config file, by bare field name; each must be in its own table.

    Raises:
        ConfigError: the file is missing, is not TOML, or has an unknown table or field.
    """
    try:
        tables = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    values: dict[str, Any] = {}
    sections = [f.name for f in fields(Config)]
    known = FIELDS | BATCH_ALIASES
    for section, table in tables.items():
        if section not in sections or not isinstance(table, dict):
            raise ConfigError(
                f"{path}: unknown table [{section}]{nearest(section, sections)} "
                f"(tables: {', '.join(sections)})"
            )
        for name, value in table.items():
            if name not in known or known[name].section != section:
                home = f"; it belongs in [{known[name].section}]" if name in known else ""
                raise ConfigError(
                    f"{path}: unknown setting {section}.{name}{home or hint(name, known)}"
                )
            values[name] = value
    return values


def with_default_budget(
    values: Mapping[str, Any], preset: str | None, file: str | Path | None
) -> dict[str, Any]:
    """Add what follows where no preset, size or budget is given: the best model in 10 minutes.

    Raises:
        ConfigError: several budgets are given.
    """
    values = dict(values)
    _check_budgets(values)
    budgeted = any(name in values for name in BUDGETS if name != "minutes")
    sized = (
        preset or file or values.get("init_from") or any(name in values for name in MODEL_FIELDS)
    )
    if values.get("minutes") is None:
        if budgeted or sized:
            return values
        values["minutes"] = DEFAULT_MINUTES
    if not sized:
        values.setdefault("auto_size", True)
    return values


def _check_budgets(values: Mapping[str, Any], where: str = "") -> bool:
    """Return whether a layer of values sets a budget; two of them are an error."""
    given = [name for name in BUDGETS if values.get(name) not in (None, "none")]
    if len(given) > 1:
        raise ConfigError(f"{where}{given[0]} and {given[1]} both set a budget: give one")
    return bool(given)


def load_config(preset: str | None = None, file: str | Path | None = None, **values: Any) -> Config:
    """Merge the layers of a run's config. A budget in `values` replaces any other.

    Raises:
        ConfigError: as in `Config.with_values` and `load_toml`; or a layer has two budgets.
    """
    merged: dict[str, Any] = {}
    in_file = load_toml(file) if file else {}
    # a run's own config.toml has every setting, most of them as they are by default
    changed = {k: v for k, v in in_file.items() if k in FIELDS and v != FIELDS[k].default}
    _check_budgets(changed, f"{file}: ")
    layers = [load_preset(preset) if preset else {}, in_file]
    if _check_budgets(values):
        layers = [{k: v for k, v in layer.items() if k not in BUDGETS} for layer in layers]
    for layer in (*layers, values):
        if layer.keys() & BATCH_ALIASES.keys():  # a later layer's batch replaces an earlier one's
            merged.pop("global_batch_size", None)
        if "global_batch_size" in layer:
            merged = {k: v for k, v in merged.items() if k not in BATCH_ALIASES}
        merged |= layer
    return Config().with_values(**merged)
