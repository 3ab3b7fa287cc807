"""HTML, EPUB, DOCX and PDF → documents: their text is read as that of a plain text file is.

`extract_document.py` makes the text, in a process of its own.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import os
import re
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from jielong.config.encodings import codec_name
from jielong.data.sources.containers import BUFFER_BYTES, FREE_BYTES
from jielong.data.sources.encodings import is_utf8
from jielong.data.sources.items import PART, WHOLE_FILE, BadLine, Item, UnreadableFileError
from jielong.data.sources.readers import read_text, without_damage
from jielong.data.sources.text_units import Splitting
from jielong.errors import ConfigError

PROGRAM = Path(__file__).with_name("extract_document.py")
GROWTH = 100  # more than the text of a document ever grows, beyond FREE_BYTES
SECONDS = 120.0  # without an answer: for a page, a chapter, or a whole file of another kind
FILE_BYTES = 2**29  # the program holds a file whole
HTML_BYTES = 2**26  # and HTML as a tree, which takes some 30 times as much
LIBRARIES = {"docx": "mammoth", "pdf": "pypdfium2"}
SIGNATURES = {"epub": b"PK\x03\x04", "docx": b"PK\x03\x04", "pdf": b"%PDF-", "html": b""}
CHARSET = re.compile(
    rb"""<(?:meta\b[^>]{0,400}?charset|\?xml\b[^>]{0,200}?encoding)\s*=\s*["']?\s*([\w.:-]{1,40})""",
    re.IGNORECASE,
)
HEAD_BYTES = 2**12  # in which HTML names its encoding


@functools.cache
def is_installed(kind: str) -> bool:
    """Whether the libraries are there that read a kind of documents."""
    return all(
        importlib.util.find_spec(name)
        for name in ("resiliparse", LIBRARIES.get(kind, "resiliparse"))
    )


def declared_encoding(head: bytes) -> str | None:
    """Return the encoding that HTML declares, by a name of Python's; None if there is none such."""
    found = CHARSET.search(head[:HEAD_BYTES])
    try:
        codec = codec_name(found[1].decode()) if found else "utf-8"
    except (ConfigError, UnicodeDecodeError):
        return None
    return None if codec.startswith("utf") else codec  # it names itself in ASCII, so not UTF-16


class Extractor:
    """Has files read by a program, which is started with the first and again where one ended it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = bytearray()
        self._sent = 0  # bytes of the present file

    def answers(
        self, stream: io.BufferedReader, name: str, kind: str, main: bool = False
    ) -> Iterator[dict[str, Any]]:
        """Yield the program's answers about a file.

        Args:
            main: of HTML, the main text only.

        Raises:
            UnreadableFileError: the library for it is missing, or file or text are too large.
        """
        if not is_installed(kind):
            fix = "pip install 'jielong[documents]'"
            raise UnreadableFileError(name, f"to read {kind.upper()}: {fix}")
        if self._process is None:
            self._process = self._start()
        is_done = False
        try:
            with contextlib.suppress(BrokenPipeError):  # its answer says why, or that it has none
                self._send(self._process, stream, name, {"kind": kind, "main": main})
            left = max(FREE_BYTES, GROWTH * self._sent)
            while not is_done:
                answer = self._answer(self._process)
                left -= len(answer.get("text", ""))
                if left < 0:
                    reason = f"its text is more than {GROWTH} times its size: a decompression bomb"
                    raise UnreadableFileError(name, reason)
                is_done = not ("text" in answer or "part" in answer)
                if not is_done or "error" in answer:
                    yield answer
        finally:
            if not is_done:
                self.close()

    def _start(self) -> subprocess.Popen[bytes]:
        self._ready.clear()
        return subprocess.Popen(
            [sys.executable, "-P", str(PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def _send(
        self,
        process: subprocess.Popen[bytes],
        stream: io.BufferedReader,
        name: str,
        request: dict[str, Any],
    ) -> None:
        assert process.stdin is not None
        process.stdin.write(orjson.dumps(request) + b"\n")
        self._sent = 0
        while data := stream.read(BUFFER_BYTES):
            self._sent += len(data)
            if self._sent > FILE_BYTES:
                raise UnreadableFileError(name, f"has more than {FILE_BYTES:,} bytes: split it")
            process.stdin.write(len(data).to_bytes(4, "big") + data)
        process.stdin.write(bytes(4))
        process.stdin.flush()

    def _answer(self, process: subprocess.Popen[bytes]) -> dict[str, Any]:
        """Read a line; an error where there is none for SECONDS, or the program has ended."""
        assert process.stdout is not None
        file, seen = process.stdout.fileno(), 0
        while (end := self._ready.find(b"\n", seen)) < 0:
            seen = len(self._ready)
            if not select.select([file], [], [], SECONDS)[0]:
                self.close()
                return {"error": f"takes more than {SECONDS:.0f} s to read: no text, or damaged"}
            data = os.read(file, 2**20)
            if not data:
                self.close()
                return {"error": "is damaged: it ends the program that reads it"}
            self._ready += data
        line = bytes(self._ready[:end])
        del self._ready[: end + 1]
        answer: dict[str, Any] = orjson.loads(line)
        return answer

    def close(self) -> None:
        """End the program, if it runs."""
        if self._process is not None:
            process, self._process = self._process, None
            process.kill()
            process.communicate()
            self._ready.clear()

    def __del__(self) -> None:
        self.close()


class _Text(io.RawIOBase):
    """Reads the text among the answers as UTF-8.

    Attributes:
        bad: the parts of the file that are left out.
        error: why the file could not be read, or not to its end; and its bytes, if known.
    """

    def __init__(self, answers: Iterator[dict[str, Any]], name: str) -> None:
        self.bad: list[BadLine] = []
        self.error: tuple[str, int | None] | None = None
        self._answers, self._name = answers, name
        self._text = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, out: Any) -> int:
        while not self._text:
            answer = next(self._answers, None)
            if answer is None:
                return 0
            if "text" in answer:
                self._text = memoryview(answer["text"].encode("utf-8", "replace"))
            elif "part" in answer:
                part = answer["part"], answer["lost"], PART, answer["bytes"]
                self.bad.append(BadLine(self._name, *part))
            else:
                self.error = answer["error"], answer.get("bytes")
        count = min(len(out), len(self._text))
        out[:count] = self._text[:count]
        self._text = self._text[count:]
        return count


def read_document_file(
    stream: io.BufferedReader,
    name: str,
    kind: str,
    limit: int,
    splitting: Splitting,
    extractor: Extractor,
    main: bool = False,
) -> Iterator[Item]:
    """Yield the texts of a file, split as plain text is; and what of it is left out.

    Args:
        stream: the file; HTML as UTF-8.
        kind: html, epub, docx or pdf.
        limit: bytes from which on a text is cut into pieces.
        main: of HTML, the main text only.

    Raises:
        UnreadableFileError: nothing of it can be read.
    """
    text = _Text(extractor.answers(stream, name, kind, main), name)
    utf8: io.BufferedReader = io.BufferedReader(text, BUFFER_BYTES)
    if not utf8.peek(1) and (text.error or text.bad):
        reason, size = text.error or (text.bad[0].reason, sum(bad.size for bad in text.bad))
        raise UnreadableFileError(name, reason, size)
    yield from read_text(utf8, name, limit, splitting)
    yield from text.bad
    if text.error is not None:
        reason, size = text.error
        yield BadLine(name, 0, f"{reason} (what came before that is read)", WHOLE_FILE, size or 1)


def read_html(
    utf8: io.BufferedReader, name: str, limit: int, splitting: Splitting, extractor: Extractor
) -> Iterator[Item]:
    """Yield the texts of HTML; lines of it that are not UTF-8 are left out.

    Raises:
        UnreadableFileError: nothing of it can be read.
    """
    data, damaged = utf8.read(HTML_BYTES + 1), list[BadLine]()
    if len(data) > HTML_BYTES:
        raise UnreadableFileError(name, f"is HTML of more than {HTML_BYTES:,} bytes: split it")
    if not is_utf8(data):
        data, damaged = without_damage(data, name, 1)
    source: io.BufferedReader = io.BufferedReader(io.BytesIO(data))
    main = splitting.html == "main"
    yield from read_document_file(source, name, "html", limit, splitting, extractor, main)
    yield from damaged
