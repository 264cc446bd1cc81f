"""The `rootstock bench` commands. What is heavy is imported by the command that needs it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from adapters.foundation import FoundationFiles
    from loadtest.row import Row

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)

_PAIRS = 30
_QUICK_PAIRS = 2

Pairs = Annotated[
    int | None, typer.Option(min=1, help=f"Interleaved pairs; {_PAIRS} by default, {_QUICK_PAIRS} with --quick.")
]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads of each side; one for each core by default.")]
Json = Annotated[
    Path | None, typer.Option("--json", help="Where the figures go; loadtest/results/ unless --quick.")
]
Quick = Annotated[bool, typer.Option("--quick", help="A few pairs, to see that it works; kept only with --json.")]


@app.callback()
def bench() -> None:
    """Measure the engine and the server against their peers: ratios of interleaved pairs, medians, targets."""


@app.command(epilog="Example: rootstock bench engine --rows 1 --pairs 60")
def engine(
    rows: Annotated[str, typer.Option(help="1: against the foundation alone; 2: against PEFT.")] = "1,2",
    pairs: Pairs = None,
    threads: Threads = None,
    json: Json = None,
    quick: Quick = False,
) -> None:
    """Rows 1 and 2: 32 adapters in one batch, against the foundation alone and against PEFT's mixed batch."""
    wanted = _rows(rows, (1, 2))
    count, used = pairs or (_QUICK_PAIRS if quick else _PAIRS), threads or _cores()

    def measure(files: FoundationFiles, export: Path) -> list[Row]:
        from loadtest.engine_rows import foundation_row, peft_row

        measured = []
        if 1 in wanted:
            measured += [foundation_row(export, tokens, count, used, _say) for tokens in (32, 16)]
        if 2 in wanted:
            measured.append(peft_row(files.folder, export, count, used, _say))
        return measured

    name = "engine" if wanted == (1, 2) else "engine-" + "-".join(str(row) for row in wanted)
    _report(measure, {"rows": list(wanted), "pairs": count, "threads": used}, _kept(json, name, quick))


@app.command(epilog="Example: rootstock bench http --seconds 5")
def http(
    rows: Annotated[str, typer.Option(help="4: over HTTP against the engine in process.")] = "4",
    connections: Annotated[int, typer.Option(min=1, help="Clients at once.")] = 32,
    seconds: Annotated[int, typer.Option(min=1, help="Length of a window.")] = 2,
    pairs: Pairs = None,
    threads: Threads = None,
    json: Json = None,
    quick: Quick = False,
) -> None:
    """Row 4: requests a second over HTTP, under BentoML and uvicorn, against the engine in process. Needs wrk."""
    wanted = _rows(rows, (4,))
    count, used = pairs or (_QUICK_PAIRS if quick else _PAIRS), threads or _cores()
    window = 1 if quick else seconds

    def measure(_: FoundationFiles, export: Path) -> list[Row]:
        from loadtest.http_rows import Windows, http_rows

        return http_rows(export, Windows(window, count, connections), used, _say)

    parameters = {
        "rows": list(wanted),
        "pairs": count,
        "threads": used,
        "connections": connections,
        "seconds": window,
    }
    _report(measure, parameters, _kept(json, "http", quick))


def _report(
    measure: Callable[[FoundationFiles, Path], list[Row]], parameters: dict[str, Any], kept: Path | None
) -> None:
    from adapters.foundation import FoundationError, locate
    from adapters.transport_errors import ClientError
    from loadtest.agreement import Disagreement
    from loadtest.chart import draw
    from loadtest.inprocess import EngineEnded
    from loadtest.machine import describe_machine
    from loadtest.report import Report
    from loadtest.server import ServerFailed
    from loadtest.wrk import LoadError
    from service.exports import ensure_export

    home = Path(os.environ.get("ROOTSTOCK_HOME", "~/.rootstock")).expanduser().absolute()
    try:
        files = locate("default")
        rows = measure(files, ensure_export("default", files, home))
    except Disagreement as error:
        _fail(f"the sides disagree, nothing was measured: {error}", 1)
    except (FoundationError, EngineEnded, ServerFailed, LoadError, ClientError) as error:
        _fail(str(error), 1)
    report = Report(describe_machine(), parameters, rows)
    report.show()
    if kept is not None:
        report.write(kept)
        _say(f"written: {kept}")
        if not draw(report, kept.with_suffix(".png")):
            _say("no chart: matplotlib is not installed (pip install 'rootstock[dev]')")


def _rows(text: str, known: tuple[int, ...]) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and int(part) in known for part in parts):
        _fail(f"--rows {text!r}: expected one or more of {', '.join(map(str, known))}", 2)
    return tuple(sorted({int(part) for part in parts}))


def _kept(given: Path | None, name: str, quick: bool) -> Path | None:
    from loadtest.report import RESULTS

    return given if given is not None or quick else RESULTS / f"{name}.json"


def _cores() -> int:
    from loadtest.machine import cores

    return cores()


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _fail(message: str, code: int) -> NoReturn:
    sys.stderr.write(f"rootstock: {message}\n")
    raise SystemExit(code)
