"""Operations of several calls: a batch that is split, a bundle by reference, the wait for a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from rootstock.adapters.client import routes
from rootstock.adapters.client.errors import (
    ClientError,
    InvalidRequest,
    NotFound,
    ServerBusy,
    TimedOut,
    Unreachable,
    Unreadable,
)
from rootstock.adapters.client.exchange import ClientFlow, HttpCall, Pause, RetryPolicy, step_of
from rootstock.adapters.client.records import AdapterRecord
from rootstock.adapters.errors import UnknownVersion
from rootstock.adapters.reference import LIVE, Reference

X = TypeVar("X")

# Seconds between two looks at a server that is not ready, and the longest wait for one of them.
_LOOK = 0.2
_LONGEST_LOOK = 5.0


def whole(
    policy: RetryPolicy, call_of: Callable[[Sequence[X]], HttpCall[list[Any]]], part: Sequence[X]
) -> ClientFlow[list[Any]]:
    """Make one call for all inputs of a part, or two for its halves if the server finds the part too large."""
    try:
        return (yield from policy.ask(call_of(part)))
    except InvalidRequest as error:
        if error.status != 413 or len(part) == 1:
            raise
    middle = len(part) // 2
    first = yield from whole(policy, call_of, part[:middle])
    second = yield from whole(policy, call_of, part[middle:])
    return first + second


def resolved(policy: RetryPolicy, reference: str) -> ClientFlow[tuple[str, int]]:
    """Find the name and the version that a reference means now.

    Raise an AdapterError if it does not mean exactly one version.
    """
    parsed = Reference.parse(reference)
    if parsed.version is not None:
        return parsed.path, parsed.version
    adapter = yield from policy.ask(routes.show(parsed.path))
    try:
        versions = _meant(parsed, adapter)
    except (AttributeError, TypeError) as error:
        raise Unreadable(
            f"the versions of {parsed.name} are not those of a Rootstock server ({error!r})"
        ) from error
    if len(versions) != 1:
        raise UnknownVersion(
            f"{reference} means {len(versions)} versions of {parsed.name}, not one; see its versions with: "
            f"rootstock adapters show {parsed.name}"
        )
    return parsed.name, versions[0]


def pulled(policy: RetryPolicy, reference: str) -> ClientFlow[tuple[str, int, bytes]]:
    """Get the zip of the version that a reference means now, with its name and number."""
    name, version = yield from resolved(policy, reference)
    data = yield from policy.ask(routes.bundle(name, version))
    return name, version, data


def until_ready(model: str | None, timeout: float, clock: Callable[[], float]) -> ClientFlow[None]:
    """Wait until the server admits requests, and then until it knows a model, if one is given.

    Raise TimedOut if that takes longer than `timeout` seconds.
    """
    deadline = clock() + timeout
    yield from _look(routes.ready(), (Unreachable, ServerBusy), "is not ready", deadline, timeout, clock)
    if model is not None:
        lack = f"does not serve {model!r}"
        yield from _look(routes.model(model), (Unreachable, ServerBusy, NotFound), lack, deadline, timeout, clock)


def _look(
    call: HttpCall[Any],
    waits_for: tuple[type[ClientError], ...],
    lack: str,
    deadline: float,
    timeout: float,
    clock: Callable[[], float],
) -> ClientFlow[None]:
    while True:
        try:
            yield from step_of(replace(call, timeout=min(_LONGEST_LOOK, max(deadline - clock(), _LOOK))))
        except waits_for as error:
            if clock() + _LOOK > deadline:
                raise TimedOut(f"after {timeout:g} s the server {lack}: {error}") from error
        else:
            return
        yield Pause(_LOOK)


def _meant(reference: Reference, adapter: AdapterRecord) -> list[int]:
    if reference.digest_prefix is not None:
        start = f"sha256:{reference.digest_prefix}"
        return [one.version for one in adapter.versions if one.digest.startswith(start)]
    wanted = reference.alias or LIVE
    return [version for alias, version in adapter.aliases.items() if alias == wanted]
