"""The language of what is shown: English, or Chinese from the table in `chinese.py`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from jielong.errors import ConfigError
from jielong.present.chinese import CHINESE

LANGUAGES = ("auto", "en", "zh")
Say = Callable[..., str]


def sayer(
    language: str = "auto",
    environment: Mapping[str, str] = os.environ,
    chinese: Mapping[str, str] = CHINESE,
) -> Say:
    """Return `say`, which gives a sentence in the language: `say("{n} tokens", n=3)`.

    The sentences stand in English where they are said; `chinese.py` has the same in Chinese. Values
    are filled in as `str.format` does it.

    Args:
        language: en, zh, or auto: what the locale's variables say.
        chinese: the sentences in Chinese, by the English.

    Raises:
        ConfigError: the language is none of these.
    """
    table = chinese if language_of(language, environment) == "zh" else {}

    def say(sentence: str, **values: Any) -> str:
        return table.get(sentence, sentence).format(**values)

    return say


def language_of(language: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return en or zh; for auto, what the locale's variables say.

    Raises:
        ConfigError: the language is not one of LANGUAGES.
    """
    if language not in LANGUAGES:
        raise ConfigError(f"lang={language!r} is not one of {', '.join(LANGUAGES)}")
    return _of_locale(environment) if language == "auto" else language


def _of_locale(environment: Mapping[str, str]) -> str:
    """Return the language of the first of the locale's variables that is set, as gettext does."""
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        if value := environment.get(name):
            first = environment.get("LANGUAGE", "").split(":")[0]
            plain = value.split(".")[0] in ("C", "POSIX")
            return "zh" if (value if plain or not first else first).startswith("zh") else "en"
    return "en"
