"""Progress of uploads and of many predictions, on stderr where that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

# Is called with what is done and what there is in all; None if that is unknown.
Report = Callable[[int, int | None], None]


@contextmanager
def upload_progress(progress: bool | Report) -> Iterator[Report]:
    """Yield a callback that takes the bytes sent and the bytes in all.

    True shows a bar while the bundle is sent, then a spinner while the server verifies it; on a terminal only.
    """
    if not isinstance(progress, bool):
        yield progress
        return
    if not (progress and sys.stderr.isatty()):
        yield lambda sent, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("sending"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with ExitStack() as stack:
        bar = stack.enter_context(Progress(*columns, console=console, transient=True))
        task = bar.add_task("sending")
        verifying = False

        def report(sent: int, total: int | None) -> None:
            nonlocal verifying
            bar.update(task, completed=sent, total=total)
            if sent == total and not verifying:
                verifying = True
                bar.stop()
                stack.enter_context(console.status("verifying"))

        yield report


@contextmanager
def count_progress(progress: bool | Report) -> Iterator[Report]:
    """Yield a callback that takes the number of inputs done and of all inputs, None if that is unknown.

    True shows a bar, on a terminal only.
    """
    if not isinstance(progress, bool):
        yield progress
        return
    if not (progress and sys.stderr.isatty()):
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("predicting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("predicting", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
