"""The labelled rows for a finished adapter, read before the adapter is opened, which takes its time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

from rootstock.adapters.bundle import Limits
from rootstock.adapters.bundle.archive import CONFIG, MANIFEST, open_archive
from rootstock.adapters.bundle.manifest import read_json, read_manifest
from rootstock.adapters.client.upload import read_source
from rootstock.adapters.spec import Rejected
from rootstock.adapters.tasks import task_named
from rootstock.training.data.dataset import read_rows
from rootstock.training.errors import MissingColumn
from rootstock.training.recipe.recipe import CLASSIFYING, TaskType
from rootstock.training.recipe.recipe_file import naming


def stated_task_type(path: Path) -> str | None:
    """Return the task that the bundle at a path states, under PEFT's name; None for a file that is no bundle."""
    with suppress(OSError, Rejected):
        members = open_archive(read_source(path)[0], Limits()).members
        if MANIFEST in members:
            return task_named(read_manifest(members[MANIFEST]).task).peft_type
        return str(read_json(members[CONFIG], CONFIG).get("task_type"))
    # Whoever opens it says what is wrong.
    return None


def check_rows(bundle: Path, data: Path, text_column: str, label_column: str) -> None:
    """Raise DataError for rows that a classifier's bundle cannot be measured on; the bundle is not opened."""
    task_type = stated_task_type(bundle)
    if task_type in [task_named(task).peft_type for task in CLASSIFYING]:
        with named_columns(data, text_column, label_column):
            read_rows(naming(data, cast(TaskType, task_type), text_column, label_column), data.name, "DATA")


@contextmanager
def named_columns(data: Path, text_column: str, label_column: str) -> Iterator[None]:
    """Add to the error about a missing column how a command names the columns."""
    try:
        yield
    except MissingColumn as error:
        raise MissingColumn(
            f"{error}; name the columns with --text-column (now {text_column}) and --label-column (now "
            f"{label_column})"
        ) from None
