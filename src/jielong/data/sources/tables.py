"""Parquet, Arrow and the Hugging Face Hub → documents. Their libraries are imported when needed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jielong.data.sources.containers import HEAD_BYTES, refuse_other_formats
from jielong.data.sources.items import NOT_UTF8, BadLine, Item, UnreadableFileError
from jielong.data.sources.json_rows import item_of_text

PARQUET_ROWS = 1024
SIGNATURES = {"parquet": b"PAR1", "arrow": b"ARROW1"}
STRINGS = ("string", "large_string", "string_view")
BYTES = ("binary", "large_binary", "binary_view", "fixed_size_binary")


def read_table(path: Path, name: str, kind: str, text_field: str) -> Iterator[Item]:
    """Yield the column `text_field` of a Parquet or Arrow file, row by row.

    The column holds strings, or bytes of UTF-8, of any of Arrow's kinds.

    Raises:
        UnreadableFileError: there is no such column, or the file is damaged.
    """
    import pyarrow as pa

    with path.open("rb") as file:
        refuse_other_formats(file.read(HEAD_BYTES), name, own=SIGNATURES[kind])
    batches = _parquet_batches if kind == "parquet" else _arrow_batches
    try:
        number = 0
        for column in batches(path, name, text_field):
            for cell in column:
                number += 1
                yield _item_of_cell(cell, name, number, text_field)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        what = "a readable Parquet file" if kind == "parquet" else "a readable Arrow file"
        raise UnreadableFileError(name, f"not {what} ({error})") from None


def _parquet_batches(path: Path, name: str, text_field: str) -> Iterator[Any]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, memory_map=True) as file:
        groups = range(file.metadata.num_row_groups)
        size = sum(file.metadata.row_group(i).total_byte_size for i in groups)
        _check_column(file.schema_arrow, name, text_field, size)
        for batch in file.iter_batches(batch_size=PARQUET_ROWS, columns=[text_field]):
            yield batch.column(0)


def _arrow_batches(path: Path, name: str, text_field: str) -> Iterator[Any]:
    """Read both forms of Arrow's files: with a signature, or a stream as `datasets` writes it."""
    import pyarrow as pa

    with pa.OSFile(str(path)) as file:  # a memory map of a damaged file can end the process
        is_file = file.read(6) == SIGNATURES["arrow"]
        file.seek(0)
        with pa.ipc.open_file(file) if is_file else pa.ipc.open_stream(file) as reader:
            _check_column(reader.schema, name, text_field)
            numbers = range(reader.num_record_batches) if is_file else None
            for batch in reader if numbers is None else map(reader.get_batch, numbers):
                column = batch.column(text_field)
                column.validate(full=True)  # else offsets of a damaged file point anywhere
                yield column


def _check_column(schema: Any, name: str, text_field: str, size: int | None = None) -> None:
    texts = [field.name for field in schema if _holds_strings(field.type)]
    if text_field in texts:
        return
    fix = "choose one with --text-field" + (f" {texts[0]}" if len(texts) == 1 else "")
    if not texts:
        fix = "none of them holds strings: convert it to JSON Lines with a field of text"
    if text_field not in schema.names:
        said = f"no column {text_field!r}; columns seen: {', '.join(schema.names)}; {fix}"
    else:
        said = f"column {text_field!r} holds {schema.field(text_field).type}, not strings; {fix}"
    raise UnreadableFileError(name, said, size)


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


def read_hub(address: str, text_field: str) -> Iterator[Item]:
    """Yield the column `text_field` of `hf://NAME[:CONFIG][@SPLIT]`, streamed from the Hub."""
    try:
        import datasets
    except ImportError:
        raise UnreadableFileError(
            address, "needs the datasets library: pip install 'jielong[hub]'"
        ) from None
    name, _, split = address.removeprefix("hf://").partition("@")
    name, _, config = name.partition(":")
    try:
        rows = datasets.load_dataset(name, config or None, split=split or "train", streaming=True)
        for number, row in enumerate(rows, 1):
            if text_field not in row:
                raise UnreadableFileError(
                    address,
                    f"no column {text_field!r}; columns seen: {', '.join(row)}; "
                    "choose one with --text-field",
                )
            yield item_of_text(row[text_field], address, number, text_field)
    except UnreadableFileError:
        raise
    except Exception as error:  # the library's failures share no base class
        raise UnreadableFileError(address, f"cannot be loaded: {error}") from None
