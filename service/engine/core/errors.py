"""Define the engine's errors: `code` is stable, and `param` names the part of the request at fault."""

from __future__ import annotations

from rootstock.adapters.tasks import TASKS

_MAX_MESSAGE = 500


class EngineError(Exception):
    """The base class of the engine's own errors."""

    code = "engine_error"

    def __init__(self, message: str, param: str | None = None) -> None:
        # A message can quote text from the request, which has any length.
        super().__init__(message if len(message) <= _MAX_MESSAGE else message[:_MAX_MESSAGE] + "…")
        self.param = param


class InvalidInput(EngineError):
    """An input of the wrong form for the task."""

    code = "invalid_input"


class InvalidParameter(EngineError):
    """A parameter that the task does not have, or a value that it does not take."""

    code = "invalid_parameter"


class WrongTask(EngineError):
    """A reference to a model that does not support the task that the request asks for."""

    code = "wrong_task"

    def __init__(self, reference: str, supported: str, task: str, reason: str = "") -> None:
        """Name the tasks that the model supports, the task asked for and, if it is known, the reason."""
        because = f": {reason}" if reason else ""
        message = f"model {reference!r} supports {supported}, not {task}{because}; choose {_server_of(task)}"
        super().__init__(message, "model")


class InvalidComposition(EngineError):
    """Adapters that do not add up to one, or a head that none of them has."""

    code = "invalid_composition"


class WrongRoute(EngineError):
    """A reference to a model that another route serves, which the message names."""

    code = "wrong_task"


class TooLong(EngineError):
    """An input with more tokens than the adapter takes, in a request that does not ask for truncation."""

    code = "input_too_long"

    def __init__(self, message: str, param: str | None = None, setting: str | None = None) -> None:
        """Keep `setting`, the option that truncates the input, separate: each route spells it in its own way."""
        super().__init__(message, param)
        self.setting = setting

    def __str__(self) -> str:
        advice = "" if self.setting is None else f", or set {self.setting} to true"
        return super().__str__() + advice


class TooLarge(EngineError):
    """A request that is over a limit on its size, and therefore never fits."""

    code = "request_too_large"


class Overloaded(EngineError):
    """A full queue, or a full share of it. `retry_after` is in whole seconds."""

    code = "overloaded"

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Expired(EngineError):
    """A request whose deadline passed before it was answered."""

    code = "deadline_exceeded"


class RunnerFault(EngineError):
    """A failure of the runner on this request's batch. It does not affect other batches."""

    code = "runner_fault"

    @classmethod
    def caused(cls, what: str, cause: Exception) -> RunnerFault:
        """Return the fault that a library's own error is. Its text may hold paths, so only the log has it."""
        fault = cls(f"{what} ({type(cause).__name__}); the server's log has the cause")
        fault.__cause__ = cause
        return fault


class Draining(EngineError):
    """A request to an engine that is stopping and admits nothing more."""

    code = "draining"


def _server_of(task: str) -> str:
    """Return what a client can choose to have a task served."""
    spec = next((spec for spec in TASKS if spec.name == task), None)
    if spec is None:
        return f"one of the tasks {', '.join(spec.name for spec in TASKS)}"
    return f"a {task} adapter" if spec.heads else f"a foundation that supports {task}"
