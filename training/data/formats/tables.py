"""Reads tables of labelled rows from CSV, JSON lines and Parquet: each row maps columns to values."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rootstock.adapters.strict_json.json_member import unique_keys
from rootstock.training.characters import check_characters, quoted
from rootstock.training.data.formats.characters import check_nul, decoded, lines_of
from rootstock.training.errors import DataError, MissingColumn, extra

Row = tuple[int, Mapping[str, Any]]
FORMATS = (".csv", ".jsonl", ".parquet")
_MAX_COLUMNS = 20
# Other characters than a comma between the cells of a file with the ending .csv.
_SEPARATORS = (";", "\t", "|")
_LONGEST_HEADER = 100_000


def read_table(path: Path, raw: bytes, columns: Sequence[str]) -> Iterator[Row]:
    """Yield the values of these columns, row by row, with the line (in Parquet: the row's number, from 1).

    Raise DataError for a file that is not a valid table, and for a column that is missing or occurs twice.
    """
    if path.suffix.lower() == ".parquet":
        rows = _parquet(path, raw, columns)
    elif path.suffix.lower() == ".jsonl":
        rows = _json_lines(path, decoded(path, raw), columns)
    else:
        rows = _csv(path, decoded(path, raw), columns)
    for line, row in rows:
        check_nul(row, f"{path}, line {line}")
        yield line, row


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
            text = decoded(path, raw)
            names = next(csv.reader(io.StringIO(text, newline=""), delimiter=_separator(text)), [])
        except csv.Error as error:
            raise DataError(f"{path}, line 1: not CSV: {error}") from None
    return ColumnNames(names, frozenset(name for name, times in Counter(names).items() if times == 1))


def _csv(path: Path, text: str, columns: Sequence[str]) -> Iterator[Row]:
    # The limit holds for the whole process, so it is only raised. No field is longer than its file.
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    separator = _separator(text)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator)
    end = 0
    try:
        header = next(reader, [])
        end = reader.line_num
        if not any(name.strip() for name in header):
            raise DataError(f"{path}, line 1: no header; the first line names the columns")
        positions = _positions(f"{path}, line 1", header, columns)
        for cells in reader:
            line, end = end + 1, reader.line_num
            # Editors and spreadsheets leave blank lines, and rows of empty cells.
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                more = len(cells) > len(header)
                hint = _other_separator(header) or (f"; quote a cell with {separator!r} in it" if more else "")
                raise DataError(f"{path}, line {line}: {len(cells)} cells; the header has {len(header)}{hint}")
            yield line, {column: cells[position] for column, position in positions.items()}
    except csv.Error as error:
        raise DataError(f"{path}, line {end + 1}: {_unquotable(str(error), reader.line_num)}") from None


def _unquotable(problem: str, last: int) -> str:
    """Return a message on a row whose quotes do not pair; `last` is the line where the reader gave up."""
    if "unexpected end" in problem:
        return (
            f"not CSV: a quote that opens in this row is not closed until the last line, {last}; close it, and "
            "write a quote in a quoted cell twice"
        )
    if "expected after" in problem:
        return (
            f"not CSV: a cell goes on after its closing quote (line {last}); write a quote in a quoted cell twice"
        )
    return f"not CSV: {problem}"


def _separator(text: str) -> str:
    """Return the character between the cells: a comma, unless the first line has none and has another one."""
    first = next(csv.reader(io.StringIO(text[:_LONGEST_HEADER], newline="")), [])
    if len(first) != 1:
        return ","
    return max(_SEPARATORS, key=first[0].count) if any(mark in first[0] for mark in _SEPARATORS) else ","


def _other_separator(header: Sequence[str]) -> str:
    """Return a hint if the header seems to be split by another character than the one that splits it."""
    other = next((mark for mark in _SEPARATORS if any(mark in name for name in header)), None)
    return "" if other is None else f"; separate all cells by one character, not also by {other!r}"


def _json_lines(path: Path, text: str, columns: Sequence[str]) -> Iterator[Row]:
    for line, content, value in _json_objects(path, text):
        where = f"{path}, line {line}"
        names = list(value)
        row = {column: value[names[at]] for column, at in _positions(where, names, columns).items()}
        if "\\u" in content:
            check_characters(row, where)
        yield line, row


def _json_objects(path: Path, text: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield the line, the text and the value of each JSON object."""
    for line, content in enumerate(lines_of(text), start=1):
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

    positions = _positions(str(path), table.column_names, columns)
    try:
        # Convert only the requested columns: some types, such as nanoseconds, have no equivalent in Python.
        cells = [table.column(position).to_pylist() for position in positions.values()]
    except (ArrowException, ValueError, OverflowError) as error:
        raise DataError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
    for number in range(table.num_rows):
        yield number + 1, dict(zip(positions, (column[number] for column in cells), strict=True))


def _parquet_table(path: Path, raw: bytes) -> Any:
    with extra("Parquet files"):
        from pyarrow import ArrowException, BufferReader, parquet
    try:
        # Read the bytes and not the path: pyarrow reads `=` in a folder's name as a column.
        return parquet.ParquetFile(BufferReader(raw)).read()
    except (ArrowException, OSError) as error:
        raise DataError(f"{path}: not Parquet: {' '.join(str(error).split())}") from None


def _positions(where: str, names: Sequence[str], columns: Sequence[str]) -> dict[str, int]:
    """Return the position of each column among names, which may have spaces at their ends.

    Raise MissingColumn if one is not there, DataError if one is there twice.
    """
    positions = {}
    for column in columns:
        found = [at for at, name in enumerate(names) if name == column]
        found = found or [at for at, name in enumerate(names) if name.strip() == column.strip()]
        if not found:
            known = [quoted(name) for name in names if name]
            more = f" and {len(known) - _MAX_COLUMNS} more" if len(known) > _MAX_COLUMNS else ""
            listing = ", ".join(known[:_MAX_COLUMNS]) or "nothing"
            raise MissingColumn(f"{where}: needs a column {column!r}; found: {listing}{more}")
        if len(found) > 1:
            raise DataError(f"{where}: the column {column!r} occurs {len(found)} times; keep one")
        positions[column] = found[0]
    return positions
