"""Names of text encodings: checked, and read as the larger encodings that files are really in."""

from __future__ import annotations

import codecs

from jielong.errors import ConfigError

# As the WHATWG Encoding Standard reads these names: what calls itself the smaller encoding is, as a
# rule, in the larger one.
LARGER = {
    **dict.fromkeys(("gb2312", "gbk"), "gb18030"),
    **dict.fromkeys(("ascii", "iso8859-1"), "cp1252"),
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "iso8859-9": "cp1254",
    "big5": "cp950",
    "utf-8-sig": "utf-8",
}
AUTO = "auto"  # each file's own, as it seems to be
SEVEN_BIT = ("utf-7", "hz", "iso2022", "punycode", "idna", "raw-unicode-escape", "unicode-escape")


def codec_name(encoding: str) -> str:
    """Return Python's name of the codec that reads `encoding`.

    Raises:
        ConfigError: there is no such encoding, or none that a file can be read with line by line.
    """
    try:
        codec = codecs.lookup(encoding)
        "".encode(encoding)  # raises LookupError for a codec that is not for text
    except (LookupError, ValueError):
        raise ConfigError(
            f"data.encoding={encoding!r} is not known: give auto, gb18030, big5, shift_jis, "
            "euc_kr, utf-16, latin-1, cp1251 or another name that Python's codecs know"
        ) from None
    if codec.name.startswith(SEVEN_BIT):
        raise ConfigError(
            f"data.encoding={encoding!r} cannot be told from ASCII: convert the files first: "
            f"iconv -f {encoding} -t UTF-8"
        )
    return LARGER.get(codec.name, codec.name)
