"""A row with named fields → its text: one field, several by a template, or a conversation."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from jielong.config.templates import template_fields, template_parts
from jielong.data.sources.items import (
    INVALID_UTF8,
    NO_TEXT,
    NOT_UTF8,
    BadLine,
    Document,
    Item,
    Remark,
)

CONVERSATION = "conversation"
NAMES_OF_TYPES = {
    "NoneType": "null",
    "int": "number",
    "float": "number",
    "bool": "boolean",
    "dict": "object",
    "str": "string",
}
# a turn of a conversation: who speaks, and what is said, as two customs name them
TURNS = (("role", "content"), ("from", "value"))
ROLES = {"human": "user", "gpt": "assistant"}

Messages = list[dict[str, Any]]  # of role and content


class RowSettings(Protocol):
    """The settings that say what the text of a row is."""

    @property
    def text_field(self) -> str: ...
    @property
    def text_template(self) -> str | None: ...


class NoTextError(Exception):
    """A row has no text; the message says why, with the fix."""


class Conversations(Protocol):
    """Makes texts of conversations; `way` says how. A ValueError says why one has none."""

    way: str

    def __call__(self, messages: Messages) -> str: ...


@dataclass(frozen=True)
class RowText:
    """What the text of a row is.

    Attributes:
        field: its name, or a path into nested objects such as `body.text`.
        template: the text in place of one field, with several in braces.
        chat: makes a text of a conversation.
    """

    field: str = "text"
    template: str | None = None
    chat: Conversations | None = None

    @classmethod
    def of_settings(cls, settings: RowSettings, chat: Conversations | None = None) -> RowText:
        """Take the settings of a run."""
        return cls(settings.text_field, settings.text_template, chat)

    @classmethod
    def of(cls, field: str | RowText) -> RowText:
        """Return what a field's name alone says; anything else as it is."""
        return cls(field) if isinstance(field, str) else field

    @property
    def fields(self) -> list[str]:
        """The fields that the text is made of."""
        return [self.field] if self.template is None else template_fields(self._parts)

    @property
    def _parts(self) -> list[tuple[str, str | None]]:
        assert self.template is not None
        return template_parts(self.template)

    def item(self, row: Mapping[str, Any], name: str, number: int, size: int = 0) -> Item:
        """Return the text of a row that was read from `size` bytes, or why it has none."""
        try:
            if self.template is not None:
                return item_of_text(self._filled(row), name, number, self.template, size)
            value = value_at(row, self.field)
            if not is_conversation(value):
                return item_of_text(value, name, number, self.field, size)
            text = self._chat_text(value)
        except NoTextError as error:
            return BadLine(name, number, str(error), NO_TEXT, size)
        item = item_of_text(text, name, number, self.field, size)
        if isinstance(item, Document):
            return Document(item.text, name, number, size, unit=CONVERSATION)
        return item

    def _filled(self, row: Mapping[str, Any]) -> str:
        """Fill in the template; numbers are written out, and a null is an empty text."""
        texts = []
        has_any = False
        for before, field in self._parts:
            texts.append(before)
            if field is None:
                continue
            value = value_at(row, field, "mend --text-template")
            if isinstance(value, bool | dict | list):
                raise NoTextError(f"field {field!r} holds a {type_name(value)}, no text")
            if isinstance(value, bytes):  # of a table
                value = value.decode("utf-8", "surrogateescape")
            text = "" if value is None else str(value)
            has_any |= bool(text.strip())
            texts.append(text)
        return "".join(texts) if has_any else ""

    def _chat_text(self, turns: list[Any]) -> str:
        messages = [_message(turn, number) for number, turn in enumerate(turns, 1)]
        if self.chat is None:
            raise NoTextError(
                f"field {self.field!r} holds a conversation, which only `prepare` and `pretrain` "
                "make a text of, by the tokenizer's chat template"
            )
        try:
            return self.chat(messages)
        except ValueError as error:
            raise NoTextError(str(error)) from None

    def remarked(self, items: Iterator[Item], name: str) -> Iterator[Item]:
        """Yield the items of a source, and at their end how conversations among them were read."""
        any_chat = False
        for item in items:
            any_chat |= isinstance(item, Document) and item.unit == CONVERSATION
            yield item
        yield from self.chat_remark(name, any_chat)

    def chat_remark(self, name: str, any_chat: bool) -> Iterator[Remark]:
        """Yield how the conversations of a source were read, if it has any."""
        if any_chat and self.chat is not None:
            yield Remark(name, f"conversations in {self.field!r} read {self.chat.way}")


def is_conversation(value: Any) -> bool:
    """Whether a value is a list of turns, each with a speaker and a text."""
    first = value[0] if isinstance(value, list) and value else None
    return isinstance(first, dict) and any(
        isinstance(first.get(who), str) and said in first for who, said in TURNS
    )


def _message(turn: Any, number: int) -> dict[str, Any]:
    if isinstance(turn, dict):
        for who, said in TURNS:
            role, content = turn.get(who), turn.get(said)
            if isinstance(content, list):  # in parts
                parts = [part.get("text") for part in content if isinstance(part, dict)]
                texts = [part for part in parts if isinstance(part, str)]
                content = "".join(texts) if len(texts) == len(content) else None
            if isinstance(role, str) and isinstance(content, str):
                rest = {key: value for key, value in turn.items() if key not in (who, said)}
                return {"role": ROLES.get(role, role), "content": content} | rest
    raise NoTextError(f"turn {number} of the conversation has no role, or no text")


def value_at(row: Mapping[str, Any], field: str, fix: str = "") -> Any:
    """Return the value of a field: of that very name, or along a path of names with dots.

    In a list, a number in the path is a place, counted from 0.

    Args:
        fix: what to do where there is none; by default the field that may be meant.

    Raises:
        NoTextError: there is none.
    """
    if field in row:
        return row[field]
    value: Any = row
    for part in field.split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            seen = ", ".join(str(name)[:40] for name in itertools.islice(row, 20)) or "none"
            fix = fix or _inside(row, field) or _other_field(row)
            raise NoTextError(f"no field {field!r}; fields seen: {seen}; {fix}")
    return value


def _inside(row: Mapping[str, Any], field: str) -> str:
    """Say how to get at objects within an object, or at a conversation."""
    for name, value in itertools.islice(row.items(), 20):
        first = value[0] if isinstance(value, list) and value else None
        if isinstance(first, dict) and field in first:
            return f"{name[:40]} holds such objects: jq -c '.{name[:40]}[]' FILE > corpus.jsonl"
        if isinstance(value, dict) and field in value:
            if len(row) > 1 and all(isinstance(v, dict) and field in v for v in row.values()):
                return "it holds such objects: jq -c '.[]' FILE > corpus.jsonl"
            return f"{name[:40]} holds such an object: --text-field {name[:40]}.{field}"
        if is_conversation(value):
            return f"{name[:40]} is a conversation: --text-field {name[:40]} reads it as one"
    return ""


def _other_field(row: Mapping[str, Any]) -> str:
    """Say which field is the text instead; name it if only one can be."""
    texts = [name for name, value in itertools.islice(row.items(), 20) if isinstance(value, str)]
    one = f" {texts[0][:40]}" if len(texts) == 1 else ""
    return f"choose one with --text-field{one}"


def item_of_text(text: Any, name: str, number: int, field: str, size: int = 0) -> Item:
    """Return the text as a document, or why it is none. Nothing is lost with an empty text."""
    if text is None:
        return BadLine(name, number, f"field {field!r} holds a null, no text")
    if not isinstance(text, str):
        reason = f"field {field!r} holds a {type_name(text)}, no text"
        if isinstance(text, list) and all(isinstance(part, str) for part in text[:20]):
            reason += f"; jq -c '.{field}[] | {{text: .}}' FILE > corpus.jsonl has one a line"
        return BadLine(name, number, reason, NO_TEXT, size)
    if not text or text.isspace():
        return BadLine(name, number, "empty text")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        is_byte = 0xDC80 <= ord(text[error.start]) <= 0xDCFF
        reason = INVALID_UTF8 if is_byte else "invalid Unicode: a lone surrogate"
        return BadLine(name, number, reason, NOT_UTF8, size or len(text))
    return Document(text, name, number, size)


def type_name(value: Any) -> str:
    """Return what JSON calls a value's type."""
    return NAMES_OF_TYPES.get(type(value).__name__, "list")
