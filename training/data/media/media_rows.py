"""Reads labelled images and recordings: from folders named after labels, or from a table of paths."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rootstock.adapters.tasks import Modality
from rootstock.training.characters import quoted
from rootstock.training.data.example import Example, Rows
from rootstock.training.data.formats.label_value import label_text
from rootstock.training.data.formats.tables import read_table
from rootstock.training.data.media.decoding import content_digest
from rootstock.training.errors import DataError
from rootstock.training.recipe.data_section import Data

# The folders of a divided set, and the parts that they hold.
_PARTS = {"train": "train", "val": "validation", "test": "test"}
_MOST_NAMED = 5


def read_folder(root: Path, data: Data, modality: Modality, origin: str) -> dict[str, Rows]:
    """Return the rows of a folder by part: `train`, and with `given` splits `test` and perhaps `validation`.

    Each subfolder is named after its label and holds files of it, at any depth. A file whose name begins with a
    dot is left out. Raise DataError, which begins with `origin`, if the folder has another form.
    """
    if not root.is_dir():
        raise DataError(f"{origin}: {root} is no folder; give one with a subfolder for each label")
    found = [name for name in _PARTS if (root / name).is_dir()]
    if data.splits.strategy == "given":
        if missing := [name for name in ("train", "test") if name not in found]:
            raise DataError(
                f"{origin}: {root} has no folder {' and no folder '.join(missing)}, which splits.strategy: given "
                "reads; add it, or set stratified"
            )
        return {_PARTS[name]: _folder_rows(root / name, modality) for name in found}
    if {"train", "test"} <= set(found):
        raise DataError(
            f"{origin}: {root} has the folders {' and '.join(found)}, which are no labels; set "
            "data.splits.strategy: given"
        )
    return {"train": _folder_rows(root, modality)}


def read_table_of_files(path: Path, raw: bytes, data: Data, modality: Modality) -> Rows:
    """Return the rows of a table whose column `path_column` holds paths, from the table's folder."""
    entries = list(_table_entries(path, raw, data))
    if not entries:
        raise DataError(f"{path}: holds no rows")
    return _rows(path, entries, modality, hashlib.sha256(raw).hexdigest())


def _folder_rows(folder: Path, modality: Modality) -> Rows:
    entries: list[dict[str, Any]] = []
    for label in sorted(one for one in folder.iterdir() if one.is_dir() and not one.name.startswith(".")):
        files = [path for path in sorted(label.rglob("*")) if path.is_file() and not path.name.startswith(".")]
        if not files:
            raise DataError(f"{label}: holds no files; add some, or remove the folder of this label")
        entries += [
            {"text": path.relative_to(folder).as_posix(), "labels": (label.name.strip(),), "file": path}
            for path in files
        ]
    if not entries:
        raise DataError(f"{folder}: has no subfolders; files belong into subfolders named after their labels")
    numbered = [{**entry, "line": number} for number, entry in enumerate(entries, start=1)]
    return _rows(folder, numbered, modality, "")


def _table_entries(path: Path, raw: bytes, data: Data) -> Iterator[Mapping[str, Any]]:
    name = str(data.path_column)
    columns = [name, data.label_column, *filter(None, (data.group_column,))]
    for line, row in read_table(path, raw, columns):
        file, where = row[name], f"{path}, line {line}"
        if not isinstance(file, str) or not file.strip():
            problem = "is empty" if file is None or isinstance(file, str) else f"is {quoted(file)}, not text"
            raise DataError(f"{where}: the column {name!r} {problem}")
        label = label_text(where, data.label_column, row[data.label_column])
        group = None if data.group_column is None else str(row[data.group_column] or "")
        place = path.parent / file.strip()
        yield {"text": file.strip(), "labels": (label,), "line": line, "file": place, "group": group}


def _rows(path: Path, entries: Iterable[Mapping[str, Any]], modality: Modality, table: str) -> Rows:
    """Return the rows with their digests. Raise DataError, which names the files that cannot be read."""
    examples, faults, hasher = [], [], hashlib.sha256(table.encode())
    for entry in entries:
        try:
            whole, content = content_digest(entry["file"], modality)
        except DataError as error:
            faults.append(str(error))
            continue
        hasher.update(f"{entry['text']}\0{whole}\n".encode())
        examples.append(Example(**entry, digest=content))
    if faults:
        more = f"; and {len(faults) - _MOST_NAMED} more files" if len(faults) > _MOST_NAMED else ""
        raise DataError(f"{'; '.join(faults[:_MOST_NAMED])}{more}; remove or repair what cannot be read")
    return Rows(path, "sha256:" + hasher.hexdigest(), tuple(examples))
