"""Finished English sentences in Chinese: what records and results keep in English, as shown.

metrics.jsonl, the JSON of results and what Python returns have their sentences in English, for
programs. Where people read them, a sentence is found again by its form, and said in Chinese with
the same values. What has no Chinese stays as it is.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

from jielong.present.words import Say

AS_IS, LIST = "as_is", "list"


def shown_by(say: Say, sentence: str, chinese: Mapping[str, str]) -> str:
    """Return a finished sentence in the language of `say`, as `in_chinese` does it."""
    return sentence if say("loss") == "loss" else in_chinese(sentence, chinese)


def in_chinese(sentence: str, chinese: Mapping[str, str]) -> str:
    """Return a finished sentence in Chinese, or as it is where no form fits.

    Args:
        chinese: forms in English, such as `{n} tokens back`, and the same in Chinese; a value may
            be a sentence of these itself or, called `list`, several with commas between them; those
            whose names begin with `as_is` are not translated.
    """
    if sentence in chinese:
        return chinese[sentence]
    for pattern, form in _patterns(tuple(chinese.items())):
        if found := pattern.fullmatch(sentence):
            values: dict[str, Any] = found.groupdict()
            said = {name: _value(name, value, chinese) for name, value in values.items()}
            return form.format(**said)
    return sentence


def _value(name: str, value: str, chinese: Mapping[str, str]) -> str:
    if name.startswith(AS_IS):
        return value
    if name == LIST:
        return "，".join(in_chinese(part, chinese) for part in value.split(", "))
    return in_chinese(value, chinese)


@functools.cache
def _patterns(forms: tuple[tuple[str, str], ...]) -> list[tuple[re.Pattern[str], str]]:
    """Compile the forms that have values; those with the most words of their own come first.

    Before them come the rows of reports, which are indented: no sentence that begins with a value
    is meant there.
    """
    found = []
    for english, form in forms:
        parts = re.split(r"\{(\w+)\}", english)
        if len(parts) > 1:
            source = "".join(
                f"(?P<{part}>.*?)" if number % 2 else re.escape(part)
                for number, part in enumerate(parts)
            )
            rank = not english.startswith("  "), -len("".join(parts[::2]))
            found.append((rank, re.compile(source, re.DOTALL), form))
    return [(pattern, form) for _, pattern, form in sorted(found, key=lambda f: f[0])]
