"""Parquet, Arrow and the Hugging Face Hub → documents. Their libraries are imported when needed."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jielong.data.sources.arrow_sizes import CheckedMessages
from jielong.data.sources.containers import BUFFER_BYTES, Budget
from jielong.data.sources.items import NOT_UTF8, BadLine, Item, UnreadableFileError
from jielong.data.sources.other_formats import HEAD_BYTES, refuse_other_formats
from jielong.data.sources.remote import AnyPath
from jielong.data.sources.row_text import RowText, item_of_text

PARQUET_ROWS, BATCH_BYTES = 1024, 2**25  # most that are read at a time
SIGNATURES = {"parquet": b"PAR1", "arrow": b"ARROW1"}
STRINGS = ("string", "large_string", "string_view")
BYTES = ("binary", "large_binary", "binary_view", "fixed_size_binary")
ALL = slice(None)


def read_table(
    path: AnyPath, name: str, kind: str, text: str | RowText, groups: slice = ALL
) -> Iterator[Item]:
    """Yield the text of each row of a Parquet or Arrow file.

    A column of texts holds strings, or bytes of UTF-8, of any of Arrow's kinds.

    Args:
        text: what the text of a row is; a name alone is that of its column.
        groups: which row groups of a Parquet file are read; rows are counted from their first.

    Raises:
        UnreadableFileError: there is no such column, or the file is damaged.
    """
    import pyarrow as pa

    texts = RowText.of(text)
    with path.open("rb") as file:
        refuse_other_formats(file.read(HEAD_BYTES), name, own=SIGNATURES[kind])
    try:
        number = 0
        is_parquet = kind == "parquet"
        batches = _parquet_batches(path, name, texts, groups) if is_parquet else None
        for batch in batches or _arrow_batches(path, name, texts):
            for item in _items(batch, texts, name, number + 1):
                number += 1
                yield item
    except (pa.ArrowException, UnicodeDecodeError, struct.error) as error:
        what = "a readable Parquet file" if kind == "parquet" else "a readable Arrow file"
        raise UnreadableFileError(name, f"not {what} ({error})") from None


def _items(batch: Any, texts: RowText, name: str, first: int) -> Iterator[Item]:
    """Yield the texts of a batch of rows; `first` is the number of the first one."""
    if texts.template is None and texts.field in batch.schema.names:
        column = batch.column(texts.field)
        if _holds_strings(column.type):
            for number, cell in enumerate(column, first):
                yield _item_of_cell(cell, name, number, texts.field)
            return
    for start in range(0, batch.num_rows, PARQUET_ROWS):
        rows = batch.slice(start, PARQUET_ROWS).to_pylist()
        for number, row in enumerate(rows, first + start):
            yield texts.item(row, name, number)


def _parquet_batches(path: AnyPath, name: str, texts: RowText, chosen: slice) -> Iterator[Any]:
    import pyarrow.parquet as pq

    # no memory map: where a file is cut short meanwhile, that would end the process
    place = path if isinstance(path, Path) else path.open()
    with pq.ParquetFile(place, buffer_size=BUFFER_BYTES) as file:
        about = file.metadata
        groups = list(map(about.row_group, range(about.num_row_groups)))
        size = sum(group.total_byte_size for group in groups)
        columns = _columns(file.schema_arrow, name, texts, size)
        Budget.of(path.stat().st_size, name).spend(_bytes_of_columns(groups, columns))
        repeated = _dictionary_columns(groups, columns)
    # what a dictionary has is not written out for each row: one long text may stand in all of them
    with pq.ParquetFile(
        place, metadata=about, read_dictionary=repeated, buffer_size=BUFFER_BYTES
    ) as file:
        for number in range(len(groups))[chosen]:  # one by one: so each can be read elsewhere
            mean = _bytes_of_columns([groups[number]], columns) // max(1, groups[number].num_rows)
            rows = min(PARQUET_ROWS, max(1, BATCH_BYTES // max(1, mean)))
            yield from file.iter_batches(rows, row_groups=[number], columns=columns)


def row_group_sizes(path: Path, name: str, text: str | RowText) -> list[int]:
    """Return the bytes of text in each row group of a Parquet file; of the text's columns.

    Raises:
        UnreadableFileError: there is no such column, or the file is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            columns = _columns(file.schema_arrow, name, RowText.of(text))
            groups = map(file.metadata.row_group, range(file.metadata.num_row_groups))
            return [_bytes_of_columns([group], columns) for group in groups]
    except pa.ArrowException as error:
        raise UnreadableFileError(name, f"not a readable Parquet file ({error})") from None


def _chunks(groups: list[Any], names: list[str]) -> Iterator[Any]:
    """Yield what a Parquet file says of the columns of these names, in each group of rows."""
    for group in groups:
        for column in map(group.column, range(group.num_columns)):
            if column.path_in_schema.partition(".")[0] in names:
                yield column


def _bytes_of_columns(groups: list[Any], names: list[str]) -> int:
    return sum(int(chunk.total_uncompressed_size) for chunk in _chunks(groups, names))


def _dictionary_columns(groups: list[Any], names: list[str]) -> list[str]:
    """Return the columns of texts of which some are kept once for all rows that have them."""
    found = {
        chunk.path_in_schema
        for chunk in _chunks(groups, names)
        if chunk.physical_type == "BYTE_ARRAY" and any("DICT" in e for e in chunk.encodings)
    }
    return sorted(found)


def _arrow_batches(path: AnyPath, name: str, texts: RowText) -> Iterator[Any]:
    """Read both forms of Arrow's files: with a signature, or a stream as `datasets` writes it."""
    import pyarrow as pa

    # no memory map: that of a damaged file can end the process
    with pa.OSFile(str(path)) if isinstance(path, Path) else pa.PythonFile(path.open()) as file:
        is_file = file.read(6) == SIGNATURES["arrow"]
        file.seek(0)
        with (pa.ipc.open_file if is_file else pa.ipc.open_stream)(file) as reader:
            columns = _columns(reader.schema, name, texts)
            places = list(map(reader.schema.names.index, columns))
            left = reader.num_record_batches if is_file else 0
        file.seek(8 if is_file else 0)  # the stream begins after the signature, padded
        checked = CheckedMessages(file, Budget.of(path.stat().st_size, name).spend)
        chosen = pa.ipc.IpcReadOptions(included_fields=places)
        with pa.ipc.open_stream(checked, options=chosen) as reader:
            for batch in reader:
                for column in batch.columns:
                    column.validate(full=True)  # else offsets of a damaged file point anywhere
                yield batch
                left -= 1
        if is_file and left:
            raise pa.ArrowInvalid("its batches are not those that its end lists")


def _columns(schema: Any, name: str, texts: RowText, size: int | None = None) -> list[str]:
    """Return the columns that the texts are made of.

    Raises:
        UnreadableFileError: there is none of that name, or it cannot hold a text.
    """
    found = []
    for field in texts.fields:
        top = field if field in schema.names else field.partition(".")[0]
        if (count := schema.names.count(top)) > 1:
            raise UnreadableFileError(name, f"has {count} columns {top!r}: rename them", size)
        if top not in schema.names or (
            field == top and not _may_hold_text(schema.field(top).type, texts)
        ):
            raise UnreadableFileError(name, _no_column(schema, field), size)
        found.append(top)
    return list(dict.fromkeys(found))


def _may_hold_text(kind: Any, texts: RowText) -> bool:
    """Whether a column holds strings, or what becomes a text: conversations, or in a template."""
    import pyarrow as pa

    if texts.template is not None:
        return not pa.types.is_nested(kind)
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return _holds_strings(kind) or (is_list and pa.types.is_struct(kind.value_type))


def _no_column(schema: Any, wanted: str) -> str:
    texts = [field.name for field in schema if _holds_strings(field.type)]
    fix = "choose one with --text-field" + (f" {texts[0]}" if len(texts) == 1 else "")
    if not texts:
        fix = "none of them holds strings: convert it to JSON Lines with a field of text"
    if wanted not in schema.names:
        return f"no column {wanted!r}; columns seen: {', '.join(schema.names)}; {fix}"
    return f"column {wanted!r} holds {schema.field(wanted).type}, not strings; {fix}"


def _holds_strings(kind: Any) -> bool:
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return any(getattr(pa.types, f"is_{text}")(kind) for text in (*STRINGS, *BYTES))


def _item_of_cell(cell: Any, name: str, number: int, text_field: str) -> Item:
    try:
        text = cell.as_py()
        text = text.decode("utf-8") if isinstance(text, bytes) else text
    except UnicodeDecodeError as error:
        return BadLine(name, number, "invalid UTF-8", NOT_UTF8, len(error.object))
    return item_of_text(text, name, number, text_field)


def read_hub(address: str, text: str | RowText) -> Iterator[Item]:
    """Yield the text of each row of `hf://NAME[:CONFIG][@SPLIT]`, streamed from the Hub."""
    try:
        import datasets
    except ImportError:
        raise UnreadableFileError(
            address, "needs the datasets library: pip install 'jielong[hub]'"
        ) from None
    texts = RowText.of(text)
    name, _, split = address.removeprefix("hf://").partition("@")
    name, _, config = name.partition(":")
    try:
        rows = datasets.load_dataset(name, config or None, split=split or "train", streaming=True)
        for number, row in enumerate(rows, 1):
            if number == 1 and (missing := [f for f in texts.fields if not _has(row, f)]):
                raise UnreadableFileError(
                    address,
                    f"no column {missing[0]!r}; columns seen: {', '.join(row)}; "
                    "choose one with --text-field",
                )
            yield texts.item(row, address, number)
    except UnreadableFileError:
        raise
    except Exception as error:  # the library's failures share no base class
        raise UnreadableFileError(address, f"cannot be loaded: {error}") from None


def _has(row: dict[str, Any], field: str) -> bool:
    return field in row or field.partition(".")[0] in row
