"""Logs: one JSON object a line on stderr, or coloured lines on a terminal."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

# Without locals: they hold keys and what users sent.
_TRACEBACKS = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)
# Loggers that a server brings handlers for, which write lines of another form.
_TAKEN_OVER = ("", "uvicorn", "uvicorn.error")


def configure_logs(level: str) -> None:
    """Write the server's own log from `level` up, and what libraries log from warnings up, in one form.

    Each line that is logged while a request is handled has what was bound to it (structlog.contextvars).
    """
    terminal = sys.stderr.isatty()
    least = logging.getLevelNamesMapping()[level.upper()]
    described: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    written: list[Any] = [
        *([] if terminal else [_TRACEBACKS]),
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if terminal
        else structlog.processors.JSONRenderer(),
    ]
    structlog.configure(
        processors=[*described, *written],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    form = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*described, structlog.stdlib.add_logger_name],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *written],
    )
    _take_over(form, max(least, logging.WARNING))


def _take_over(form: logging.Formatter, least: int) -> None:
    """Let what the standard library's loggers are told be written by one handler of ours."""
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
    """Writes to what stderr is at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
        except Exception:
            self.handleError(record)
