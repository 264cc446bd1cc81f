"""What the fault tests share: a runner that can be made to fail, and where their figures go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rootstock.service import app
from rootstock.service.settings import Settings

State = Callable[[str, str, float], None]


@pytest.fixture
def state(record_property: Callable[[str, object], None]) -> State:
    """Records a fault, what it lost and the seconds until the server answered again, for `make faults`."""

    def record(fault: str, lost: str, seconds: float) -> None:
        for name, value in (("fault", fault), ("lost", lost), ("seconds", round(seconds, 3))):
            record_property(name, value)

    return record


class Faulty:
    """The real runner, but that its next batch raises `fault`."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner
        self.fault: BaseException | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)

    def run(self, batch: Any) -> Any:
        fault, self.fault = self.fault, None
        if fault is not None:
            raise fault
        return self._runner.run(batch)


@pytest.fixture
def runners(monkeypatch: pytest.MonkeyPatch) -> list[Faulty]:
    """The runners of the servers that the test starts, in order."""
    opened: list[Faulty] = []
    real = app.open_runner

    def open_faulty(settings: Settings) -> Any:
        runner, *folders = real(settings)
        opened.append(Faulty(runner))
        return opened[-1], *folders

    monkeypatch.setattr(app, "open_runner", open_faulty)
    return opened
