"""Tables of labelled rows: CSV, JSON lines and Parquet, as mappings of column to value with their line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rootstock.training.errors import DataError, extra

Row = tuple[int, Mapping[str, Any]]
FORMATS = (".csv", ".jsonl", ".parquet")


def read_table(path: Path, raw: bytes) -> Iterator[Row]:
    """Each row with its line (in Parquet: its number, from 1); DataError for what is no such table."""
    if path.suffix == ".parquet":
        yield from _parquet(path, raw)
        return
    text = decoded(path, raw)
    yield from _json_lines(path, text) if path.suffix == ".jsonl" else _csv(path, text)


def decoded(path: Path, raw: bytes) -> str:
    """The text of a file in UTF-8, without a byte order mark; DataError naming the line otherwise."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}, line {line}: not UTF-8; save the file as UTF-8") from None


def _csv(path: Path, text: str) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        end = reader.line_num
        for column in header:
            if header.count(column) > 1:
                raise DataError(f"{path}, line 1: the column {column!r} is there {header.count(column)} times")
        if not header:
            raise DataError(f"{path}, line 1: no header; the first line names the columns")
        # A table without rows still has columns to be looked for.
        yield 1, dict.fromkeys(header)
        for cells in reader:
            line, end = end + 1, reader.line_num
            if not cells:
                continue
            if len(cells) != len(header):
                raise DataError(f"{path}, line {line}: {len(cells)} cells; the header has {len(header)}")
            yield line, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not CSV: {error}") from None


def _json_lines(path: Path, text: str) -> Iterator[Row]:
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        try:
            value = json.loads(content)
        except ValueError as error:
            raise DataError(f"{path}, line {line}: not JSON: {error}") from None
        if not isinstance(value, dict):
            raise DataError(f"{path}, line {line}: holds {type(value).__name__}; each line is one JSON object")
        yield line, value


def _parquet(path: Path, raw: bytes) -> Iterator[Row]:
    with extra("Parquet files"):
        from pyarrow import ArrowException, BufferReader, parquet
    try:
        table = parquet.read_table(BufferReader(raw))
    except (ArrowException, OSError) as error:
        raise DataError(f"{path}: not Parquet: {error}") from None
    yield from enumerate(table.to_pylist(), start=1)
