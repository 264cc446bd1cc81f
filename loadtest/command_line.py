"""The common parts of the `rootstock bench` commands: the setup of a run, its end, and its messages."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from rootstock.loadtest.fixtures.setup import BenchmarkSetup

if TYPE_CHECKING:
    from rootstock.loadtest.measure.outcome import BenchmarkRun

T = TypeVar("T")


def finish(run: BenchmarkRun, file: Path | None) -> None:
    """Print a run and write its figures. Exit with code 1 if a row counts a fault."""
    from rootstock.loadtest.report.table import show

    show(run)
    write_run(run.write, file)
    if any(row.exact and not row.met for row in run.outcome.measured_rows):
        fail("some answers failed, or were stale, mixed or wrong; the notes above quote the first of them", 1)


def measure_with(measure: Callable[[BenchmarkSetup], T], size: dict[str, Any]) -> T:
    """Return the result of `measure` on the default foundation. Exit with code 1 on an expected fault."""
    from rootstock.adapters.client.errors import ClientError
    from rootstock.adapters.errors import AdapterError
    from rootstock.adapters.foundation.location import FoundationError, locate
    from rootstock.adapters.home_folder import home_from_environment
    from rootstock.loadtest.fixtures.engine_process import EngineEnded
    from rootstock.loadtest.fixtures.registration import ImportFailed
    from rootstock.loadtest.fixtures.server import ServerFailed
    from rootstock.loadtest.load.trial import GeneratorFailed, NothingAnswered
    from rootstock.loadtest.measure.agreement import Disagreement
    from rootstock.loadtest.measure.wrk import LoadError
    from rootstock.service.engine.core.errors import EngineError
    from rootstock.service.exports.cache import ensure_export

    expected = (FoundationError, EngineEnded, ServerFailed, LoadError, ClientError, AdapterError, EngineError)
    try:
        files = locate("default")
        export = ensure_export("default", files, home_from_environment())
        return measure(BenchmarkSetup(files.folder, export, say=say, **size))
    except Disagreement as error:
        fail(f"the two sides give different answers, so nothing was measured: {error}", 1)
    except (*expected, ImportFailed, GeneratorFailed, NothingAnswered) as error:
        fail(str(error), 1)


def results_file(choice: Path | None, name: str, quick: bool) -> Path | None:
    """Return the file for a run's figures: the caller's choice, else one in results/, or None if it is quick."""
    from rootstock.loadtest.report.render import RESULTS

    return choice if choice is not None or quick else RESULTS / f"{name}.json"


def write_run(write: Callable[[Path], None], file: Path | None) -> None:
    """Write a run into a file, if there is one, and say where it is."""
    if file is not None:
        write(file)
        say(f"written: {file}; 'rootstock bench render {file}' makes its page and pictures")


def say(line: str) -> None:
    """Print a line of progress."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def fail(message: str, code: int) -> NoReturn:
    """Print an error and exit with this code."""
    sys.stderr.write(f"rootstock: {message}\n")
    raise SystemExit(code)
