"""The processes of a server show one page of metrics, whatever becomes of one of them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from rootstock.service.telemetry import process_pages
from rootstock.service.telemetry.process_pages import ProcessPages
from rootstock.service.telemetry.snapshot import MetricsSnapshot

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


def page(value: int) -> bytes:
    return f"# HELP rootstock_ready Ready\n# TYPE rootstock_ready gauge\nrootstock_ready {value}\n".encode()


def folder(home: Path, number: int) -> Path:
    made = home / str(number)
    made.mkdir(exist_ok=True, parents=True)
    return made


@asynccontextmanager
async def processes(home: Path, count: int) -> AsyncIterator[list[ProcessPages]]:
    """Yield the pages of processes. Those of process N say N, and ten more to the operator."""
    async with AsyncExitStack() as stack:
        pages = []
        for number in range(count):

            async def own(to_operator: bool, number: int = number) -> bytes:
                return page(number + 10 * to_operator)

            one = ProcessPages(folder(home, number), lambda: sorted(home.iterdir()), own)
            await stack.enter_async_context(one.listening())
            pages.append(one)
        yield pages


async def shown(pages: ProcessPages, to_operator: bool = False) -> dict[str, float]:
    snapshot = MetricsSnapshot((await pages.merged(to_operator)).decode(), 0.0)
    numbers = snapshot.values("ready", "process")
    return {number: snapshot.sum("ready", process=number) for number in numbers}


async def test_each_process_shows_the_series_of_all_and_those_of_the_operator_to_the_operator_alone(
    tmp_path: Path,
) -> None:
    # The address of a Unix socket has at most 107 bytes, and the path of a home may have more.
    home = tmp_path / ("a" * 120)
    async with processes(home, 3) as pages:
        for one in pages:
            assert await shown(one) == {"0": 0.0, "1": 1.0, "2": 2.0}
            assert await shown(one, True) == {"0": 10.0, "1": 11.0, "2": 12.0}
    assert [path.name for path in home.glob("*/*")] == []


@pytest.mark.parametrize("fault", ["starts", "was killed", "is silent", "ends in the middle of its page"])
async def test_a_process_that_gives_no_page_is_left_out(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_pages, "_SECONDS", 0.2)
    absent = folder(tmp_path, 2) / "metrics.sock"
    silence = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if fault == "is silent":
            await silence.wait()
        else:
            writer.write((1000).to_bytes(8, "big") + page(2))
        writer.close()

    async with AsyncExitStack() as stack:
        (one, _) = await stack.enter_async_context(processes(tmp_path, 2))
        if fault == "was killed":
            with socket.socket(socket.AF_UNIX) as left:
                left.bind(str(absent))
        elif fault != "starts":
            await stack.enter_async_context(await asyncio.start_unix_server(answer, str(absent)))
        assert await shown(one) == {"0": 0.0, "1": 1.0}
        silence.set()
