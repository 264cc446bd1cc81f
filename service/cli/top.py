"""The command `rootstock top`."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from rootstock.adapters.cli.options import URL, Json, ServerUrl, examples
from rootstock.service.cli.serve import fail

if TYPE_CHECKING:
    from rootstock.service.telemetry.top import Frame

_WIDTH = 120

top = typer.Typer(add_completion=False, rich_markup_mode=None)


@top.command(epilog=examples("rootstock top", "rootstock top --url https://models.example.com --once --json"))
def top_command(
    url: ServerUrl = URL,
    key: Annotated[
        str | None,
        typer.Option(envvar="ROOTSTOCK_ADMIN_KEY", help="The server's admin key, sent as a bearer token."),
    ] = None,
    interval: Annotated[float, typer.Option(min=0.05, help="The seconds between two views.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print one view and exit.")] = False,
    as_json: Json = False,
) -> None:
    """Watch a server's traffic, live in a terminal.

    A view has answers, latency, queue, batches, slots and the busiest adapters. The key q or Ctrl-C ends it. In a
    pipe or a file, the views follow one another as text. With --json, each view is one line of JSON.

    Exit codes: 1 if no server answers; 2 for wrong usage.
    """
    from rootstock.adapters.client.client import Client
    from rootstock.adapters.client.errors import ClientError, Misused
    from rootstock.service.telemetry.top import frames

    def views(ended: Callable[[float], bool]) -> Iterator[Frame]:
        return islice(frames(client, interval, ended), 1 if once else None)

    try:
        with suppress(KeyboardInterrupt), Client(url, key, timeout=10) as client:
            if as_json:
                _print_lines(views(_slept))
            elif sys.stdout.isatty():
                _watch(views, url)
            else:
                _print_views(views(_slept), url)
    except BrokenPipeError:
        # The reader has gone, as `head` does. At its exit Python would write what is left, and fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except ClientError as error:
        fail("; ".join(filter(None, (str(error), error.advice))), 2 if isinstance(error, Misused) else 1)


def _print_lines(views: Iterator[Frame]) -> None:
    from dataclasses import asdict

    for view in views:
        sys.stdout.write(json.dumps(asdict(view)) + "\n")
        sys.stdout.flush()


def _print_views(views: Iterator[Frame], url: str) -> None:
    from rich.console import Console

    from rootstock.service.telemetry.top_screen import shown

    # There is no terminal to take the width from; this one holds the tables' usual rows.
    console = Console(width=_WIDTH, markup=False, highlight=False)
    for view in views:
        # Captured, because rich makes an exit code 1 of a reader that has gone.
        with console.capture() as text:
            console.print(shown(view, url))
        sys.stdout.write(text.get())
        sys.stdout.flush()


def _watch(views: Callable[[Callable[[float], bool]], Iterator[Frame]], url: str) -> None:
    from rich.console import Console
    from rich.live import Live

    from rootstock.service.cli.keyboard import Keyboard
    from rootstock.service.telemetry.top_screen import shown

    console = Console(markup=False, highlight=False)
    with Keyboard() as keyboard, Live(console=console, auto_refresh=False) as live:
        for view in views(lambda seconds: keyboard.pressed("q", seconds)):
            live.update(shown(view, url, f"{'q' if keyboard.reads else 'Ctrl-C'} ends it"), refresh=True)


def _slept(seconds: float) -> bool:
    time.sleep(seconds)
    return False
