"""Reads the characters of a text file: UTF-8 with any line ends. Another encoding is refused by its name."""

from __future__ import annotations

import codecs
import re
from pathlib import Path
from typing import Any

from rootstock.training.characters import quoted
from rootstock.training.errors import DataError

# Those of UTF-32 begin like those of UTF-16, so they come first.
_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
_LINE_END = re.compile("\r\n|\r|\n")
_NUL = "\0"
# The characters before and after a wrong byte that a message shows.
_AROUND = 12


def decoded(path: Path, raw: bytes) -> str:
    """Return the text of a UTF-8 file without its byte order mark.

    Raise DataError for any other encoding, with its name, the line and the command that converts the file.
    """
    for mark, name in _MARKS:
        if raw.startswith(mark):
            raise DataError(f"{path}: is {name}, not UTF-8; {_remedy(name)}")
    if (wide := _wide(raw)) is not None:
        raise DataError(f"{path}: looks like {wide} without a byte order mark, not UTF-8; {_remedy(wide)}")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The codec counts from behind a byte order mark.
        read = error.object
        line = len(_LINE_END.findall(read[: error.start].decode("utf-8", "replace"))) + 1
        name, label = _single_byte(read)
        part = read[max(0, error.start - _AROUND) : error.start + _AROUND].decode(name, "replace")
        seen = " ".join(part.split())
        raise DataError(
            f"{path}, line {line}: byte 0x{read[error.start]:02x} is not UTF-8; in {label} the place reads "
            f"{quoted(seen)}: if that is right, {_remedy(label)}"
        ) from None


def lines_of(text: str) -> list[str]:
    """Return the lines of a text, which end in a line feed, a carriage return, or both.

    Other separators, such as U+2028, are characters of a line.
    """
    return _LINE_END.split(text)


def check_nul(value: Any, where: str) -> None:
    """Raise DataError for a text, or a text in lists and mappings, with a NUL, which no written text has."""
    if isinstance(value, str):
        if _NUL in value:
            raise DataError(
                f"{where}: a text has a NUL character ({quoted(value)}); remove it, or save the file as UTF-8"
            )
    elif isinstance(value, dict):
        for inner in value.values():
            check_nul(inner, where)
    elif isinstance(value, list):
        for inner in value:
            check_nul(inner, where)


def _wide(raw: bytes) -> str | None:
    """Return the name of the encoding in which every second byte of a plain text is 0, if `raw` is like that."""
    head = raw[:200]
    if len(head) < 4:
        return None
    half = len(head) // 2
    for offset, name in ((1, "UTF-16LE"), (0, "UTF-16BE")):
        if head[offset::2].count(0) > 0.8 * half and head[1 - offset :: 2].count(0) < 0.2 * half:
            return name
    return None


def _single_byte(raw: bytes) -> tuple[str, str]:
    """Return Python's name and the common name of the encoding of one byte a character that fits.

    The bytes from 0x80 to 0x9f are letters and quotes in Windows-1252, and control characters in latin-1.
    """
    if any(0x80 <= byte <= 0x9F for byte in raw):
        try:
            raw.decode("cp1252")
        except UnicodeDecodeError:
            pass
        else:
            return "cp1252", "Windows-1252"
    return "latin-1", "latin-1"


def _remedy(encoding: str) -> str:
    name = {"latin-1": "ISO-8859-1"}.get(encoding, encoding)
    return f"save the file as UTF-8, such as with: iconv -f {name} -t UTF-8 FILE > NEW"
