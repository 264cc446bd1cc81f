"""What the fault tests share: a runner that can be made to fail, and where their figures go."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import pytest

from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.service.app import OpenServer
from rootstock.service.composition.runner_parts import OpenedRunner, open_runner
from rootstock.service.composition.server_parts import open_server
from rootstock.service.engine.encode.batch import Encoder
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
def runners() -> list[Faulty]:
    """The runners of the servers that `opened` opens, in order."""
    return []


@pytest.fixture
def opened(runners: list[Faulty]) -> OpenServer:
    """Opens a server whose runner can be made to fail."""

    def open_faulty(setting: str, files: FoundationFiles, settings: Settings) -> OpenedRunner:
        runner = open_runner(setting, files, settings)
        runners.append(Faulty(runner.encoder))
        return runner._replace(encoder=cast(Encoder, runners[-1]))

    return partial(open_server, open_runner=open_faulty)
