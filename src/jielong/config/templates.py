"""The setting `data.text_template`: a text made of several fields of a row."""

from __future__ import annotations

import string
from collections.abc import Sequence

from jielong.errors import ConfigError

USAGE = 'write it as --text-template "{title}\\n\\n{text}"'


def template_parts(template: str) -> list[tuple[str, str | None]]:
    """Split a template into pairs of plain text and the field that follows it, if one does.

    A field stands in braces and may be a path, such as `{body.text}`; `{{` and `}}` are braces of
    the text, `\\n` and `\\t` a line break and a tab.

    Raises:
        ConfigError: it names no field, or is not of that form.
    """
    plain = template.replace("\\n", "\n").replace("\\t", "\t")
    try:
        found = list(string.Formatter().parse(plain))
    except ValueError as error:
        raise ConfigError(f"data.text_template={template!r}: {error}: {USAGE}") from None
    for _, name, form, conversion in found:
        if name == "" or form or conversion:
            raise ConfigError(
                f"data.text_template={template!r}: braces hold the name of a field and no more: "
                f"{USAGE}"
            )
    if not any(name for _, name, _, _ in found):
        raise ConfigError(f"data.text_template={template!r} names no field: {USAGE}")
    return [(before, name) for before, name, _, _ in found]


def check_text_template(template: str, text_field: str, default_field: str) -> None:
    """Check the template by itself and beside `data.text_field`.

    Raises:
        ConfigError: as `template_parts`, or both settings say what the text is.
    """
    template_parts(template)
    if text_field != default_field:
        raise ConfigError(
            f"data.text_field={text_field} and data.text_template both say what the text of a row "
            "is: give one"
        )


def template_fields(parts: Sequence[tuple[str, str | None]]) -> list[str]:
    """Return the fields of a template, each once."""
    return list(dict.fromkeys(name for _, name in parts if name))
