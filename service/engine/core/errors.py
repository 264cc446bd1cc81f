"""Reasons why the engine does not answer. `code` is stable, `param` names the part of the request at fault."""

from __future__ import annotations

_MAX_MESSAGE = 500


class EngineError(Exception):
    """The base of all of the engine's own errors."""

    code = "engine_error"

    def __init__(self, message: str, param: str | None = None) -> None:
        # A message quotes a request's own text, of any length.
        super().__init__(message if len(message) <= _MAX_MESSAGE else message[:_MAX_MESSAGE] + "…")
        self.param = param


class InvalidInput(EngineError):
    """An input of the wrong form for the task."""

    code = "invalid_input"


class InvalidParameter(EngineError):
    """A parameter that the task does not have, or a value that it does not take."""

    code = "invalid_parameter"


class WrongTask(EngineError):
    """The reference answers another task than the request asks for."""

    code = "wrong_task"

    def __init__(self, reference: str, answers: str, asked: str) -> None:
        super().__init__(f"{reference!r} answers {answers}; the request asks for {asked}", "model")


class TooLong(EngineError):
    """An input with more tokens than the adapter takes, where truncation was not asked for."""

    code = "input_too_long"

    def __init__(self, message: str, param: str | None = None, setting: str | None = None) -> None:
        """Keep the `setting` that would truncate the input apart: each route spells it in its own way."""
        super().__init__(message, param)
        self.setting = setting

    def __str__(self) -> str:
        advice = "" if self.setting is None else f", or set {self.setting} to true"
        return super().__str__() + advice


class TooLarge(EngineError):
    """A request with more inputs or tokens than the engine could ever hold."""

    code = "request_too_large"


class Overloaded(EngineError):
    """The queue is full. `retry_after` is in whole seconds."""

    code = "overloaded"

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Expired(EngineError):
    """The request's deadline passed before it was computed."""

    code = "deadline_exceeded"


class RunnerFault(EngineError):
    """The runner failed on this request's batch; other batches are not affected."""

    code = "runner_fault"


class Draining(EngineError):
    """The engine is stopping and admits nothing more."""

    code = "draining"
