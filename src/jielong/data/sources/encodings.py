"""Text in any encoding → UTF-8. Nothing is guessed: a file is UTF-8, has a byte order mark, or is
in the encoding that the user gives; else it is refused with the encoding that it seems to be in.
With `auto` it is read in that one, which is said of each file, unless too little tells.

What cannot be decoded passes as a byte that is invalid in UTF-8, so that the readers of lines find
it, leave out the line and count it.
"""

from __future__ import annotations

import codecs
import io
import string
import unicodedata
from collections.abc import Iterator
from typing import Any

from jielong.config.encodings import AUTO, codec_name
from jielong.data.sources.items import UnreadableFileError
from jielong.data.sources.lines import LINE_BYTES, short_parts

BLOCK_BYTES = 2**16  # read at once; the encoding is told from so much
MARKS = {  # the longer ones first: UTF-32's begins like UTF-16's
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
WIDE = ("utf-16", "utf-32")
# what texts seldom hold; tab, line feed, form feed, carriage return and escape are no sign of harm
CONTROLS = bytes(set(range(32)) - set(b"\t\n\f\r\x1b"))
SUGGESTED = (  # encodings that people's files are in, where they are not UTF-8
    *("gb18030", "big5", "cp932", "euc_jp", "cp949", "cp1252", "cp1251", "koi8_r"),
    *("utf_16_le", "utf_16_be", "utf_32_le", "utf_32_be"),
)
# encodings of other alphabets, by the beginnings of their names; those not named have one byte each
FAMILIES = {
    **dict.fromkeys(("gb", "hz", "cp936"), "Chinese"),
    **dict.fromkeys(("big5", "cp950"), "Chinese (Big5)"),
    **dict.fromkeys(("cp932", "shift_jis", "euc_jis", "mac_japanese"), "Japanese"),
    **dict.fromkeys(("euc_jp",), "Japanese (EUC)"),
    **dict.fromkeys(("cp949", "euc_kr", "johab"), "Korean"),
    **dict.fromkeys(("utf",), "Unicode"),
}
WESTERN = ("cp1252", "iso8859-1", "iso8859-15", "cp437", "cp850", "cp858", "mac-roman", "hp-roman8")
MOST_CHARACTER_BYTES = 4  # of a character in GB18030
ENOUGH_BYTES = 40  # beyond ASCII, by which a wrong alphabet is known
UNDECODABLE = "\udcff"  # becomes the byte 0xFF, which UTF-8 never has


def _replace(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return UNDECODABLE, error.end


codecs.register_error("jielong.undecodable", _replace)


class Utf8Stream(io.RawIOBase):
    """Reads a stream of bytes as UTF-8.

    Args:
        encoding: of what is not UTF-8; auto: what each file seems to be in.
        is_first: it begins with the beginning of a file.
        is_sure: as the attribute.

    Attributes:
        used: how the text was read, where an encoding was given, or a mark names one; in words.
        is_sure: what was read shows that the text is UTF-8; what is invalid is damage from now on.

    Raises:
        UnreadableFileError: while reading, if the text is in another encoding, or is no text.
    """

    def __init__(
        self,
        plain: io.BufferedReader,
        name: str,
        encoding: str | None,
        is_first: bool = True,
        is_sure: bool = False,
    ) -> None:
        self.used: str | None = None
        self._plain, self._name = plain, name
        self._is_auto = encoding == AUTO
        self._label = None if self._is_auto else encoding
        self._given = codec_name(self._label) if self._label else None
        self._is_first, self.is_sure = is_first, is_sure
        self._wide: codecs.IncrementalDecoder | None = None  # decodes the whole stream
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, out: Any) -> int:
        while not self._ready:
            block = self._plain.read(BLOCK_BYTES)
            if (
                self._given or self._is_auto
            ) and self._wide is None:  # decided by block, so none may cut a character
                block += self._plain.readline(LINE_BYTES)
            if not block and self._wide is None:
                return 0
            self._ready = memoryview(self._utf8(block))
            if not block and not self._ready:
                return 0
        count = min(len(out), len(self._ready))
        out[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _utf8(self, block: bytes) -> bytes:
        if self._is_first:
            block = self._without_mark(block)
        if self._wide is None and not self.is_sure:
            block = self._decided(block)
        self._is_first = False
        if self._wide is not None:
            text = self._wide.decode(block, final=not block)
            return text.encode("utf-8", "surrogateescape")
        return block

    def _without_mark(self, block: bytes) -> bytes:
        for mark, codec in MARKS.items():
            if block.startswith(mark):
                if codec == "utf-8":
                    self.is_sure = True
                    return block[len(mark) :]
                self._decode_all(codec)
                break
        return block

    def _decided(self, block: bytes) -> bytes:
        """Decode a block, or refuse it. With an encoding given, each block is looked at anew."""
        good, bad = _characters(block)
        if self._is_auto and self._given is None and (_controls(block) or bad > good):
            self._take(block)
        is_wide = self._given is not None and self._given.startswith(WIDE)
        if is_wide and (_controls(block) or bad > good) and (codec := self._given_wide(block)):
            self._decode_all(codec)
            return block
        if block.isascii() and not _controls(block):
            return block
        if _controls(block):
            raise self._refusal(block, "holds binary data, not text")
        if self._given not in (None, "utf-8") and not is_wide:
            if bad <= good:
                self.used = self.used or f"UTF-8, which it is, not as {self._label}"
                return block
            if self.used is None or self.used.startswith("UTF-8"):
                self.used = self._name_given(block)
            text = block.decode(self._given, "jielong.undecodable")
            return text.encode("utf-8", "surrogateescape")
        whole = len(block) if self._is_first else BLOCK_BYTES  # a short rest proves nothing
        if bad > good and _damaged_bytes(block) > whole / 2:
            raise self._refusal(block, "is not UTF-8")
        self.is_sure = True
        return block

    def _take(self, block: bytes) -> None:
        """Take the encoding that the text seems to be in, if enough of it tells.

        Raises:
            UnreadableFileError: too little does.
        """
        seen = guess(block)
        if seen is None or (_controls(block) and not seen.startswith(WIDE)):
            return  # it is refused
        beyond = len(block) - len(block.decode("ascii", "ignore"))
        if beyond < ENOUGH_BYTES and not seen.startswith(WIDE):
            raise UnreadableFileError(
                self._name,
                f"is not UTF-8 but perhaps {seen}; {beyond} bytes are too few to tell: if it is, "
                f"give --encoding {seen}",
                seen=len(block),
            )
        self._label, self._given = f"{seen}, as --encoding auto takes it", codec_name(seen)

    def _decode_all(self, codec: str) -> None:
        self.used = self._label if self._is_auto and self._label else codec
        self._wide = codecs.getincrementaldecoder(codec)("jielong.undecodable")

    def _name_given(self, block: bytes) -> str:
        """Name the encoding given, if the text may be in it.

        Nearly all bytes are characters in most encodings, so a wrong one shows no error: it must
        be seen from what the text would be.

        Raises:
            UnreadableFileError: it is plainly in another one.
        """
        assert self._label is not None and self._given is not None
        seen = guess(block)
        beyond = len(block) - len(block.decode("ascii", "ignore"))
        if self._given in WESTERN and beyond >= ENOUGH_BYTES:
            letters = len(block) - len(block.translate(None, string.ascii_letters.encode()))
            if beyond > letters and (seen is None or codec_name(seen) not in WESTERN):
                raise self._not_given(block, seen, "few of its letters are of the Latin alphabet")
        if seen is None or _family(codec_name(seen)) == _family(self._given):
            return self._label
        if _family(self._given) is None and beyond >= ENOUGH_BYTES and _fits(block, seen):
            script = _family(codec_name(seen))
            raise self._not_given(block, seen, f"all of it is {script} in {seen}")
        return f"{self._label}, though it looks like {seen}"

    def _not_given(self, block: bytes, seen: str | None, why: str) -> UnreadableFileError:
        instead = f" but probably {seen}: read it with --encoding {seen}" if seen else ""
        reason = (
            f"is not {self._label}{instead} ({why}); if it is {self._label} all the same: "
            f"iconv -f {self._label} -t UTF-8"
        )
        return UnreadableFileError(self._name, reason, seen=len(block))

    def _given_wide(self, block: bytes) -> str | None:
        """Return the encoding given, with the byte order that the text shows if it names none.

        Nearly all bytes are characters in UTF-16, so it must look like text: None if not.
        """
        assert self._given is not None
        seen = guess(block) or ""
        codec = self._given
        if codec in WIDE:
            codec = seen if seen.startswith(codec) else f"{codec}-le"
        if seen.startswith(WIDE):
            return codec if seen == codec else None
        is_text = b"\0" in block and _is_text(block.decode(codec, "replace"))
        return codec if is_text else None

    def _refusal(self, block: bytes, what: str) -> UnreadableFileError:
        seen = guess(block)
        if seen and (not _controls(block) or seen.startswith(WIDE)):
            reason = f"is not UTF-8 but probably {seen}: read it with --encoding {seen}"
        elif what.startswith("is"):
            reason = f"{what}, and no usual encoding fits: give its own with --encoding"
        else:
            reason = what
        return UnreadableFileError(self._name, reason, seen=len(block))


def guess(data: bytes) -> str | None:
    """Return the encoding that the text is probably in, as a suggestion for the user."""
    import charset_normalizer

    wide = b"\0" in data
    data = data[: min(len(data) // 4 * 4, BLOCK_BYTES)] if wide else data[:BLOCK_BYTES]
    for part in (data,) if wide else _whole_characters(data):
        best = charset_normalizer.from_bytes(part, cp_isolation=list(SUGGESTED)).best()
        if best is not None:
            return {"cp1252": "latin-1"}.get(best.encoding, best.encoding.replace("_", "-"))
    return None


def _whole_characters(data: bytes) -> Iterator[bytes]:
    """A block cut at lines, or else by as little as may end it between two characters.

    A character that the block's end cuts would be an error in each encoding of several bytes.
    """
    if len(data) < BLOCK_BYTES:
        yield data
    elif (end := data.rfind(b"\n") + 1) > len(data) // 2:
        yield data[:end]
    else:
        yield from (data[: len(data) - cut] for cut in range(MOST_CHARACTER_BYTES))


def _family(codec: str) -> str | None:
    """Return the script that an encoding of several bytes a character is for; None for others."""
    return next((script for name, script in FAMILIES.items() if codec.startswith(name)), None)


def _fits(block: bytes, encoding: str) -> bool:
    """Whether all of a block, but for a character cut at its end, is text in an encoding."""
    try:
        codecs.getincrementaldecoder(codec_name(encoding))().decode(block)
    except UnicodeDecodeError:
        return False
    return True


def _controls(block: bytes) -> bool:
    """Whether too many bytes are control characters for text in UTF-8 or one like it."""
    count = len(block) - len(block.translate(None, CONTROLS))
    return count > len(block) // 50 and (count >= 8 or count > len(block) // 4)


def _is_text(text: str) -> bool:
    """Whether hardly any characters are controls, unassigned, of private use, or undecodable."""
    odd = sum(unicodedata.category(char) in ("Cc", "Cn", "Co") for char in text if char >= " ")
    return odd + text.count("\ufffd") + text.count("\0") < len(text) / 20


def _characters(block: bytes) -> tuple[int, int]:
    """Count the characters beyond ASCII, and what is invalid, if the block is read as UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(block)  # a character cut at the end does not count
    bad = text.count("\ufffd") - block.count("\ufffd".encode())
    return len(text) - len(text.encode("ascii", "ignore")) - bad, bad


def _damaged_bytes(block: bytes) -> int:
    """Count the bytes that are left out if the block is read as UTF-8."""
    parts = (part for line in block.splitlines(keepends=True) for part in short_parts(line))
    return sum(len(part) for part in parts if not is_utf8(part))


def is_utf8(data: bytes | bytearray) -> bool:
    """Whether the data is valid UTF-8."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
