"""The logs on stderr: one JSON object a line, or coloured text on a terminal."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

# Tracebacks omit local variables, because these hold keys and what users sent.
_TRACEBACKS = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)
# The root logger and the loggers for which uvicorn installs handlers with another format.
_TAKEN_OVER = ("", "uvicorn", "uvicorn.error")


def configure_logs(level: str) -> None:
    """Write the server's log from `level` up and the libraries' logs from `warning` up, in one format.

    A line that is logged during a request has the fields bound to that request (structlog.contextvars).
    """
    terminal = sys.stderr.isatty()
    least = logging.getLevelNamesMapping()[level.upper()]
    first_steps: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last_steps: list[Any] = [
        *([] if terminal else [_TRACEBACKS]),
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if terminal
        else structlog.processors.JSONRenderer(),
    ]
    structlog.configure(
        processors=[*first_steps, *last_steps],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=_stderr_logger,
        cache_logger_on_first_use=False,
    )
    form = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*first_steps, structlog.stdlib.add_logger_name],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last_steps],
    )
    _take_over(form, max(least, logging.WARNING))


def _stderr_logger(*_: object) -> structlog.WriteLogger:
    """Return a logger on the present sys.stderr, so that a replaced stderr gets the lines too."""
    return structlog.WriteLogger(sys.stderr)


def _take_over(form: logging.Formatter, least: int) -> None:
    """Replace the stream handlers of the standard library's loggers by one handler of ours."""
    for name in _TAKEN_OVER:
        logger = logging.getLogger(name)
        for handler in logger.handlers[:]:
            if type(handler) in (logging.StreamHandler, _Stderr):
                logger.removeHandler(handler)
        logger.propagate = True
    ours = _Stderr(least)
    ours.setFormatter(form)
    logging.getLogger().addHandler(ours)


class _Stderr(logging.Handler):
    """A handler that looks up sys.stderr for each record, so that a replaced stderr gets it too."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
        except Exception:
            self.handleError(record)
