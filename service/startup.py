"""The failure of a start: under both HTTP servers, one line gives the reason and the exit code is not 0."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rootstock.adapters.errors import AdapterError, explained
from rootstock.adapters.foundation.location import FoundationError
from rootstock.service.settings import SettingsError

# uvicorn's exit code for a failed start.
EXIT_CODE = 3
# The variable with the pipe on which BentoML's worker reports a failed start to the process that started it.
_PIPE = "_ROOTSTOCK_START"
# Errors that the operator can fix. Any other error is a bug and is shown with its traceback.
_REASONS = (AdapterError, FoundationError, SettingsError, OSError)


class Startup:
    """An ASGI app around another one. If that fails to start, it writes the reason to stderr and calls `failed`.

    The lifespan may belong to a third app: BentoML's, which runs ours.
    """

    def __init__(
        self, app: ASGIApp, lifespan: ASGIApp | None = None, failed: Callable[[], None] = lambda: None
    ) -> None:
        self._app = app
        self._lifespan = lifespan or app
        self._failed = failed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass requests on. Pass a failed start on without its message, which is a traceback."""
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        refusal: Message | None = None

        async def send_unless_failed(message: Message) -> None:
            nonlocal refusal
            if message["type"] == "lifespan.startup.failed":
                refusal = message
            else:
                await send(message)

        try:
            await self._lifespan(scope, receive, send_unless_failed)
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
        return f"the server cannot start: {explained(error)}"
    return "the server cannot start\n" + "".join(traceback.format_exception(error)).rstrip()


def keep_files_private() -> None:
    """Make the files that this process creates from now on unreadable to other users of the machine."""
    os.umask(os.umask(0o077) | 0o077)


def tell_parent() -> None:
    """Report a failed start to the process that started this one, if it opened a pipe for that."""
    pipe = os.environ.get(_PIPE, "")
    if pipe.isdigit():
        os.write(int(pipe), b"failed")


def run_bentoml() -> int | str | None:
    """Run BentoML's command with this program's arguments and return its exit code.

    Return EXIT_CODE if the worker cannot start. The command would exit with 0 then, because the worker asks it to
    stop: otherwise it would start another worker for ever.
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
