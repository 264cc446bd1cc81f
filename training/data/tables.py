"""Reads tables of labelled rows from CSV, JSON lines and Parquet: each row maps columns to values."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rootstock.adapters.bundle.manifest import unique_keys
from rootstock.training.characters import check_characters, quoted
from rootstock.training.errors import DataError, MissingColumn, extra

Row = tuple[int, Mapping[str, Any]]
FORMATS = (".csv", ".jsonl", ".parquet")
_MAX_COLUMNS = 20


def read_table(path: Path, raw: bytes, columns: Sequence[str]) -> Iterator[Row]:
    """Yield the values of these columns, row by row, with the line (in Parquet: the row's number, from 1).

    Raise DataError for a file that is not a valid table, and for a column that is missing or occurs twice.
    """
    if path.suffix.lower() == ".parquet":
        yield from _parquet(path, raw, columns)
        return
    text = decoded(path, raw)
    if path.suffix.lower() == ".jsonl":
        yield from _json_lines(path, text, columns)
    else:
        yield from _csv(path, text, columns)


class ColumnNames(NamedTuple):
    """The names of a table's columns in order, in JSON lines those of the first row.

    `whole` has those that occur once and, in JSON lines, in each row.
    """

    names: list[str]
    whole: frozenset[str]


def column_names(path: Path, raw: bytes) -> ColumnNames:
    """Return the names of a table's columns. Raise DataError for a file that is not a valid table."""
    if path.suffix.lower() == ".jsonl":
        rows = [value for _, _, value in _json_objects(path, decoded(path, raw))]
        names = list(rows[0]) if rows else []
        return ColumnNames(names, frozenset(names).intersection(*rows))
    if path.suffix.lower() == ".parquet":
        names = list(_parquet_table(path, raw).column_names)
    else:
        try:
            names = next(csv.reader(io.StringIO(decoded(path, raw), newline="")), [])
        except csv.Error as error:
            raise DataError(f"{path}, line 1: not CSV: {error}") from None
    return ColumnNames(names, frozenset(name for name, times in Counter(names).items() if times == 1))


def decoded(path: Path, raw: bytes) -> str:
    """Return the text of a UTF-8 file without its byte order mark. Raise DataError, with the line, otherwise."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}, line {line}: not UTF-8; save the file as UTF-8") from None


def _csv(path: Path, text: str, columns: Sequence[str]) -> Iterator[Row]:
    # The limit holds for the whole process, so it is only raised. No field is longer than its file.
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        end = reader.line_num
        if not any(header):
            raise DataError(f"{path}, line 1: no header; the first line names the columns")
        _check_columns(f"{path}, line 1", header, columns)
        positions = {column: header.index(column) for column in columns}
        for cells in reader:
            line, end = end + 1, reader.line_num
            # Editors and spreadsheets leave blank lines, and rows of empty cells.
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                hint = _separator(header) or ("; quote a cell with commas" if len(cells) > len(header) else "")
                raise DataError(f"{path}, line {line}: {len(cells)} cells; the header has {len(header)}{hint}")
            yield line, {column: cells[position] for column, position in positions.items()}
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not CSV: {error}") from None


def _separator(header: Sequence[str]) -> str:
    """Return a hint if the header seems to be split by another character than a comma."""
    other = next((mark for mark in (";", "\t", "|") if any(mark in name for name in header)), None)
    return "" if other is None else f"; separate cells by commas, not by {other!r}"


def _json_lines(path: Path, text: str, columns: Sequence[str]) -> Iterator[Row]:
    for line, content, value in _json_objects(path, text):
        where = f"{path}, line {line}"
        _check_columns(where, value, columns)
        row = {column: value[column] for column in columns}
        if "\\u" in content:
            check_characters(row, where)
        yield line, row


def _json_objects(path: Path, text: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield the line, the text and the value of each JSON object."""
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        where = f"{path}, line {line}"
        try:
            value = json.loads(content, object_pairs_hook=unique_keys)
        except RecursionError:
            raise DataError(f"{where}: not JSON: nested too deep") from None
        except ValueError as error:
            raise DataError(f"{where}: not JSON: {error}") from None
        if not isinstance(value, dict):
            raise DataError(f"{where}: holds {type(value).__name__}; each line is one JSON object")
        yield line, content, value


def _parquet(path: Path, raw: bytes, columns: Sequence[str]) -> Iterator[Row]:
    table = _parquet_table(path, raw)
    from pyarrow import ArrowException

    _check_columns(str(path), table.column_names, columns)
    try:
        # Convert only the requested columns: some types, such as nanoseconds, have no equivalent in Python.
        rows = table.select([table.column_names.index(column) for column in columns]).to_pylist()
    except (ArrowException, ValueError, OverflowError) as error:
        raise DataError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
    yield from enumerate(rows, start=1)


def _parquet_table(path: Path, raw: bytes) -> Any:
    with extra("Parquet files"):
        from pyarrow import ArrowException, BufferReader, parquet
    try:
        # Read the bytes and not the path: pyarrow reads `=` in a folder's name as a column.
        return parquet.ParquetFile(BufferReader(raw)).read()
    except (ArrowException, OSError) as error:
        raise DataError(f"{path}: not Parquet: {' '.join(str(error).split())}") from None


def _check_columns(where: str, names: Iterable[str], columns: Sequence[str]) -> None:
    names = list(names)
    for column in columns:
        if column not in names:
            known = [quoted(name) for name in names if name]
            more = f" and {len(known) - _MAX_COLUMNS} more" if len(known) > _MAX_COLUMNS else ""
            listing = ", ".join(known[:_MAX_COLUMNS]) or "nothing"
            raise MissingColumn(f"{where}: needs a column {column!r}; found: {listing}{more}")
        if (times := names.count(column)) > 1:
            raise DataError(f"{where}: the column {column!r} occurs {times} times; keep one")
