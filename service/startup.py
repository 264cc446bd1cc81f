"""A server that cannot start: the reason in one line, under each server, and an exit code that is not 0."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rootstock.adapters.errors import AdapterError
from rootstock.adapters.foundation.location import FoundationError
from rootstock.service.settings import SettingsError

# uvicorn's own for a start that failed.
EXIT_CODE = 3
# Names the pipe on which BentoML's worker tells the process that started it of a start that failed.
_PIPE = "_ROOTSTOCK_START"
# Faults that the person who starts the server can mend; anything else is a fault of the program's.
_REASONS = (AdapterError, FoundationError, SettingsError, OSError)


class Startup:
    """An ASGI app around one whose start may fail: the reason is written to stderr, and `failed` is called.

    Its lifespan may be another app's: BentoML's, which runs ours.
    """

    def __init__(
        self, app: ASGIApp, lifespan: ASGIApp | None = None, failed: Callable[[], None] = lambda: None
    ) -> None:
        self._app = app
        self._lifespan = lifespan or app
        self._failed = failed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and a start that fails as well, without the traceback that is its message."""
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        refusal: Message | None = None

        async def watched(message: Message) -> None:
            nonlocal refusal
            if message["type"] == "lifespan.startup.failed":
                refusal = message
            else:
                await send(message)

        try:
            await self._lifespan(scope, receive, watched)
        except Exception as error:
            if refusal is None:
                raise
            sys.stderr.write(f"rootstock: {_reason(error)}\n")
            sys.stderr.flush()
        if refusal is not None:
            await send({"type": "lifespan.startup.failed", "message": ""})
            self._failed()


def _reason(error: Exception) -> str:
    if isinstance(error, _REASONS):
        return f"the server cannot start: {error}"
    return "the server cannot start\n" + "".join(traceback.format_exception(error)).rstrip()


def tell_parent() -> None:
    """Tell the process that started this one, if it listens, that the start failed."""
    pipe = os.environ.get(_PIPE, "")
    if pipe.isdigit():
        os.write(int(pipe), b"failed")


def run_bentoml() -> int | str | None:
    """Run BentoML's command with this program's arguments; the exit code.

    That is EXIT_CODE where the worker cannot start. By itself the command ends with 0 then: the worker asks it to
    stop, for it would start another worker for ever.
    """
    from bentoml_cli.cli import cli

    reads, writes = os.pipe()
    os.set_inheritable(writes, True)
    os.set_blocking(reads, False)
    os.environ[_PIPE] = str(writes)
    code: int | str | None = 0
    try:
        cli()
    except SystemExit as ended:
        code = ended.code
    with suppress(BlockingIOError):
        os.read(reads, 1)
        return EXIT_CODE
    return code


if __name__ == "__main__":
    sys.exit(run_bentoml())
