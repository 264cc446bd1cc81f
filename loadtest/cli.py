"""The `rootstock bench` commands. What is heavy is imported by the command that needs it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

from rootstock.loadtest.scenarios import SCENARIOS

if TYPE_CHECKING:
    from rootstock.adapters.foundation.location import FoundationFiles
    from rootstock.loadtest.load.outcome import Outcome
    from rootstock.loadtest.measure.row import BenchmarkRow, NotRun
    from rootstock.loadtest.report.report import Report

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)

T = TypeVar("T")

_PAIRS = 30
_SWEEP_PAIRS = 7
_QUICK_PAIRS = 2

# Of rootstock.loadtest.engine.rows, which is imported when they are measured.
ENGINE_ROWS = {
    "plain": "no adapter in use, against a plain ONNX export",
    "1": "32 adapters against the foundation alone",
    "1b": "against one head",
    "2": "against PEFT and sentence-transformers",
    "6": "20 heads on one text, one call against 20",
    "7": "the same with adapters of the top layers",
    "8": "the first answer of a cold adapter",
    "loads": "late loads against early ones",
    "9": "10,000 registered adapters",
    "10": "start and memory of a server",
}

# Of rootstock.loadtest.http.rows.
HTTP_ROWS = {
    "3": "against one set_adapter a request behind BentoML",
    "4": "against the engine in process",
    "5": "against Infinity",
    "9": "10,000 registered adapters",
    "11": "p99 while versions are published",
    "cost": "CPU time of a request beside an empty route's",
}
_SERVERS = ("bentoml", "uvicorn")
_WINDOW_S = 2
# The slowest peer answers 32 clients at once in a second or two where other programs run too.
_QUICK_WINDOW_S = 3

Pairs = Annotated[
    int | None,
    typer.Option(
        min=1, help=f"Interleaved pairs; {_PAIRS} by default, {_QUICK_PAIRS} with --quick; a sweep has fewer."
    ),
]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads of each side; one for each core by default.")]
Json = Annotated[
    Path | None, typer.Option("--json", help="Where the figures go; loadtest/results/ unless --quick.")
]
Quick = Annotated[bool, typer.Option("--quick", help="A few pairs, to see that it works; kept only with --json.")]


@app.callback()
def bench() -> None:
    """Measure the engine and the server against their peers: ratios of interleaved pairs, medians, targets."""


@app.command(
    epilog="Examples: rootstock bench engine --rows plain,1,1b --pairs 60; "
    "rootstock bench engine --rows 9,10 --quick; rootstock bench engine --sweep --full"
)
def engine(
    rows: Annotated[str, typer.Option(help="; ".join(f"{k}: {v}" for k, v in ENGINE_ROWS.items()))] = "all",
    pairs: Pairs = None,
    threads: Threads = None,
    sweep: Annotated[
        bool,
        typer.Option(
            "--sweep", help="Instead of rows: by adapters, popularity, rank, batch and length, in turn."
        ),
    ] = False,
    full: Annotated[bool, typer.Option("--full", help="With --sweep: every combination; takes an hour.")] = False,
    json: Json = None,
    quick: Quick = False,
) -> None:
    """The runner, the engine and the server's process against the foundation alone and against their peers.

    Needs up to 4 GB of disk for row 9. Rows without a target are printed and not judged.
    """
    used = threads or _cores()
    if sweep:
        _sweep(full, pairs or (_QUICK_PAIRS if quick else _SWEEP_PAIRS), used, _kept(json, "engine-sweep", quick))
        return
    if full:
        _fail("--full belongs to --sweep: add it, or leave --full out", 2)
    known = tuple(ENGINE_ROWS)
    wanted = known if rows == "all" else _rows(rows, known)
    count = pairs or (_QUICK_PAIRS if quick else _PAIRS)

    def measure(files: FoundationFiles, export: Path) -> Sequence[BenchmarkRow | NotRun]:
        from rootstock.loadtest.engine.rows import EngineSetup, engine_rows, full_scale, quick_scale

        scale = quick_scale(count) if quick else full_scale(count)
        return engine_rows(wanted, EngineSetup(files.folder, export, used, scale, _say))

    name = "engine" if wanted == known else "engine-" + "-".join(wanted)
    _report(measure, {"rows": list(wanted), "pairs": count, "threads": used}, _kept(json, name, quick))


@app.command(
    epilog="Examples: rootstock bench http --rows 3,5; rootstock bench http --scenario churn; "
    "rootstock bench http --scenario soak --seconds 600 --json soak.json; "
    "rootstock bench http --scenario ramp --quick --json ramp.json"
)
def http(
    rows: Annotated[
        str | None, typer.Option(help="; ".join(f"{k}: {v}" for k, v in HTTP_ROWS.items()) + "; all by default.")
    ] = None,
    scenario: Annotated[
        str | None, typer.Option(help="Instead of rows: " + "; ".join(f"{k}: {v}" for k, v in SCENARIOS.items()))
    ] = None,
    server: Annotated[str, typer.Option(help="Of a scenario and row 11: bentoml or uvicorn.")] = "bentoml",
    connections: Annotated[int, typer.Option(min=1, help="Clients at once, of wrk.")] = 32,
    seconds: Annotated[
        float | None,
        typer.Option(min=1, help="Length of a window (rows, 2 by default) or of a scenario's stretch of load."),
    ] = None,
    pairs: Pairs = None,
    threads: Threads = None,
    json: Json = None,
    quick: Quick = False,
) -> None:
    """The server over HTTP: against its peers by rows, or under a scenario's load, every answer checked.

    Writes JSON and one HTML page beside it, a scenario a CSV file too. Rows need wrk; row 5 installs Infinity
    once, 1.4 GB in the user's cache. Exit code 1 where an answer was wrong.
    """
    used = threads or _cores()
    if server not in _SERVERS:
        _fail(f"--server {server!r}: expected {' or '.join(_SERVERS)}", 2)
    if scenario is not None:
        if rows is not None or pairs is not None:
            _fail("--rows and --pairs do not belong to --scenario: leave one or the other out", 2)
        _scenario(scenario, server, seconds, used, quick, json)
        return
    wanted = tuple(HTTP_ROWS) if rows is None else _rows(rows, tuple(HTTP_ROWS))
    count = pairs or (_QUICK_PAIRS if quick else _PAIRS)
    window = round(seconds or (_QUICK_WINDOW_S if quick else _WINDOW_S))

    def measure(files: FoundationFiles, export: Path) -> Sequence[BenchmarkRow | NotRun]:
        from rootstock.loadtest.fixtures.windows import Windows
        from rootstock.loadtest.http.rows import HttpSetup, served_rows
        from rootstock.loadtest.load.preparation import ScenarioSetup

        setup = ScenarioSetup(files.folder, export, used, server, quick, _say)
        return served_rows(wanted, HttpSetup(setup, Windows(window, count, connections)))

    parameters = {
        "rows": list(wanted),
        "pairs": count,
        "threads": used,
        "connections": connections,
        "seconds": window,
    }
    name = "http" if wanted == tuple(HTTP_ROWS) else "http-" + "-".join(wanted)
    _report(measure, parameters, _kept(json, name, quick), page="Rootstock over HTTP against its peers")


def _scenario(
    name: str, server: str, seconds: float | None, threads: int, quick: bool, json: Path | None
) -> None:
    from rootstock.loadtest.measure.machine import describe_machine
    from rootstock.loadtest.report.page import write_outcome
    from rootstock.loadtest.report.report import Report

    if name not in SCENARIOS:
        _fail(f"--scenario {name!r}: expected one of {', '.join(SCENARIOS)}", 2)

    def measure(files: FoundationFiles, export: Path) -> Outcome:
        from rootstock.loadtest.load.preparation import ScenarioSetup
        from rootstock.loadtest.scenarios.catalogue import RUN

        return RUN[name](ScenarioSetup(files.folder, export, threads, server, quick, _say, seconds))

    outcome = _measured(measure)
    parameters = {"scenario": name, "server": server, "threads": threads, "quick": quick, "seconds": seconds}
    report = Report(describe_machine(), parameters, outcome.rows)
    report.show()
    kept = _kept(json, name, quick)
    if kept is not None:
        write_outcome(kept, f"Rootstock under load: {name}", report, outcome)
        _say(f"written: {kept}, .csv and .html beside it")
    _require_right(report)


def _report(
    measure: Callable[[FoundationFiles, Path], Sequence[BenchmarkRow | NotRun]],
    parameters: dict[str, Any],
    kept: Path | None,
    page: str = "",
) -> None:
    from rootstock.loadtest.measure.machine import describe_machine
    from rootstock.loadtest.report.chart import draw
    from rootstock.loadtest.report.report import Report

    report = Report(describe_machine(), parameters, _measured(measure))
    report.show()
    _keep(kept, report.write, lambda path: not report.measured or draw(report, path))
    if page and kept is not None:
        from rootstock.loadtest.report.page import write_page

        write_page(kept.with_suffix(".html"), page, report)
    _require_right(report)


def _require_right(report: Report) -> None:
    """End with exit code 1 where a row counts what must not be."""
    if any(row.exact and not row.met for row in report.measured):
        _fail("answers failed, or were stale, mixed or wrong: see above", 1)


def _sweep(full: bool, pairs: int, threads: int, kept: Path | None) -> None:
    from rootstock.loadtest.engine.sweep import cells, sweep
    from rootstock.loadtest.measure.machine import describe_machine
    from rootstock.loadtest.report.sweep_report import SweepReport

    points = _measured(lambda _, export: sweep(export, cells(full), pairs, threads, _say))
    report = SweepReport(describe_machine(), {"full": full, "pairs": pairs, "threads": threads}, points)
    report.show()
    _keep(kept, report.write, report.draw)


def _measured(measure: Callable[[FoundationFiles, Path], T]) -> T:
    """What `measure` gives for the default foundation and its export; an expected fault ends the program."""
    from rootstock.adapters.client.errors import ClientError
    from rootstock.adapters.errors import AdapterError
    from rootstock.adapters.foundation.location import FoundationError, locate
    from rootstock.loadtest.fixtures.engine_process import EngineEnded
    from rootstock.loadtest.fixtures.registration import ImportFailed
    from rootstock.loadtest.fixtures.server import ServerFailed
    from rootstock.loadtest.load.trial import GeneratorFailed, NothingAnswered
    from rootstock.loadtest.measure.agreement import Disagreement
    from rootstock.loadtest.measure.wrk import LoadError
    from rootstock.service.engine.core.errors import EngineError
    from rootstock.service.exports.cache import ensure_export

    home = Path(os.environ.get("ROOTSTOCK_HOME", "~/.rootstock")).expanduser().absolute()
    expected = (FoundationError, EngineEnded, ServerFailed, LoadError, ClientError, AdapterError, EngineError)
    try:
        files = locate("default")
        return measure(files, ensure_export("default", files, home))
    except Disagreement as error:
        _fail(f"the sides disagree, nothing was measured: {error}", 1)
    except (*expected, ImportFailed, GeneratorFailed, NothingAnswered) as error:
        _fail(str(error), 1)


def _keep(kept: Path | None, write: Callable[[Path], None], draw: Callable[[Path], bool]) -> None:
    if kept is None:
        return
    write(kept)
    _say(f"written: {kept}")
    if not draw(kept.with_suffix(".png")):
        _say("no chart: matplotlib is not installed (pip install 'rootstock[dev]')")


def _rows(text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """The labels in `text`, each once, in the order of `known`."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part in known for part in parts):
        _fail(f"--rows {text!r}: expected one or more of {', '.join(known)}", 2)
    return tuple(label for label in known if label in parts)


def _kept(given: Path | None, name: str, quick: bool) -> Path | None:
    from rootstock.loadtest.report.report import RESULTS

    return given if given is not None or quick else RESULTS / f"{name}.json"


def _cores() -> int:
    from rootstock.loadtest.measure.machine import cores

    return cores()


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _fail(message: str, code: int) -> NoReturn:
    sys.stderr.write(f"rootstock: {message}\n")
    raise SystemExit(code)
