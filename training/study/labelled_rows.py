"""The labelled rows for a finished adapter, read before the adapter is opened, which takes its time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, cast

from rootstock.adapters.bundle import Limits
from rootstock.adapters.bundle.archive import CONFIG, MANIFEST, open_archive
from rootstock.adapters.bundle.manifest import read_manifest
from rootstock.adapters.client.upload import read_source
from rootstock.adapters.spec import Rejected
from rootstock.adapters.strict_json.json_member import read_json
from rootstock.adapters.tasks import task_named
from rootstock.training.data.dataset import read_rows
from rootstock.training.data.example import Rows
from rootstock.training.data.formats.tables import column_names
from rootstock.training.errors import DataError, MissingColumn
from rootstock.training.recipe.problem_keys import MULTI, REGRESSION
from rootstock.training.recipe.recipe import CLASSIFYING, TaskType
from rootstock.training.recipe.recipe_file import naming


class RowColumns(NamedTuple):
    """The columns of texts and of labels, and the text between the labels of a row."""

    text: str
    label: str
    separator: str | None = None


class StatedTask(NamedTuple):
    """The task of an adapter under PEFT's name, its problem type, and its labels in id order."""

    task_type: str | None
    problem_type: str | None = None
    labels: tuple[str, ...] = ()


def stated_task(path: Path) -> StatedTask:
    """Return the task that the bundle at a path states; that of a file that is no bundle is None."""
    with suppress(OSError, Rejected):
        members = open_archive(read_source(path)[0], Limits()).members
        if MANIFEST in members:
            manifest = read_manifest(members[MANIFEST])
            return StatedTask(task_named(manifest.task).peft_type, manifest.problem_type, manifest.labels)
        return StatedTask(str(read_json(members[CONFIG], CONFIG).get("task_type")))
    # Whoever opens it says what is wrong.
    return StatedTask(None)


def check_rows(bundle: Path, data: Path, columns: RowColumns) -> None:
    """Raise DataError for rows that a classifier's bundle cannot be measured on; the bundle is not opened."""
    task = stated_task(bundle)
    if task.task_type in [task_named(name).peft_type for name in CLASSIFYING]:
        with named_columns(data, columns):
            labelled_rows(data, task, columns)


def labelled_rows(data: Path, task: StatedTask, columns: RowColumns) -> Rows:
    """Return the rows of a labelled file, for an adapter of this task.

    For several labels a row, the file has them in one column, or has columns of 0 and 1 with the labels' names.
    Raise DataError for rows that cannot be read.
    """
    problem = task.problem_type if task.problem_type in (MULTI, REGRESSION) else None
    further: dict[str, Any] = {}
    label = columns.label
    if problem == MULTI and _has_columns(data, task.labels, columns.label):
        further, label = {"label_columns": list(task.labels)}, "label"
    elif columns.separator is not None:
        further = {"label_separator": columns.separator}
    task_type = cast(TaskType, task.task_type)
    return read_rows(naming(data, task_type, columns.text, label, problem, **further), data.name, "DATA")


def _has_columns(data: Path, labels: Sequence[str], label_column: str) -> bool:
    """Return True for a table that has a column for each label and no column of labels."""
    with suppress(OSError, DataError):
        names = {name.strip() for name in column_names(data, data.read_bytes()).names}
        return label_column not in names and names.issuperset(labels)
    return False


@contextmanager
def named_columns(data: Path, columns: RowColumns) -> Iterator[None]:
    """Add to the error about a missing column how a command names the columns."""
    try:
        yield
    except MissingColumn as error:
        raise MissingColumn(
            f"{error}; name the columns with --text-column (now {columns.text}) and --label-column (now "
            f"{columns.label})"
        ) from None
