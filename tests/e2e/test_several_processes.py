"""Several processes behind one port, on one home: they agree, they show one page of metrics, and are replaced."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.bounds import HANG
from tests.e2e.replicas import AliasHistory, Asking
from tests.faults.clients import REFUSED, Clients
from tests.live_server import upload
from tests.peft_adapters import PeftAdapter
from tests.process_tree import listeners
from tests.serve_process import ROOTSTOCK, free_port, serving

pytestmark = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="several processes of a server need as many cores"
)
# The most seconds between a change through one process and the first answer of another that follows it.
WITHIN = 2.0
ADMIN = "an-admin-key-of-this-test"
OPERATOR = {"Authorization": f"Bearer {ADMIN}"}


def ready(page: str) -> dict[str, float]:
    """Return what the page of metrics says of each process: 1 if it admits requests."""
    return values(page, "rootstock_ready")


def values(page: str, name: str, **labels: str) -> dict[str, float]:
    """Return the samples with these labels, by process."""
    return {
        sample.labels["process"]: sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    }


def until(true: Callable[[], bool]) -> float:
    """Wait until something is true, and return how many seconds that took."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < HANG
        time.sleep(0.01)
    return time.monotonic() - began


def workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return the processes that hold a process's home, which are those that serve."""
    serve = []
    for child in psutil.Process(process.pid).children():
        with suppress(psutil.Error):
            if any("/processes/" in file.path for file in child.open_files()):
                serve.append(child)
    return serve


@contextmanager
def clients_of_each(url: str, count: int, **options: object) -> Iterator[list[httpx.Client]]:
    """Yield a client of each process. A client has one connection, and a connection leads to one process."""
    with ExitStack() as stack:
        asked = stack.enter_context(httpx.Client(base_url=url, timeout=HANG))
        found: dict[str, httpx.Client] = {}
        until(lambda: list(ready(asked.get("/metrics").text).values()) == [1.0] * count)
        began = time.monotonic()
        while len(found) < count:
            assert time.monotonic() - began < HANG, f"no connection leads to another process than {found.keys()}"
            client = stack.enter_context(httpx.Client(base_url=url, timeout=HANG, **options))  # type: ignore[arg-type]
            before, _, after = (page_of(asked), client.get("/livez"), page_of(asked))
            (number,) = [one for one, seen in after.items() if seen > before.get(one, 0.0)]
            found.setdefault(number, client)
        yield list(found.values())


def page_of(client: httpx.Client) -> dict[str, float]:
    return values(client.get("/metrics").text, "rootstock_requests_total", route="/livez", status="200")


def answered(client: httpx.Client, model: str, key: str = ADMIN) -> httpx.Response:
    body = {"model": model, "inputs": "ok", "parameters": {"top_k": None}}
    return client.post("/v1/predict", json=body, headers={"Authorization": f"Bearer {key}"})


def labels(answer: httpx.Response) -> set[str]:
    return {one["label"] for one in answer.json()["predictions"][0]}


@pytest.fixture(scope="module")
def server(new_home: Callable[[], Path]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    home = new_home()
    canary = home / "canary"
    # An interpreter that runs a command imports these from the folder in which the server was started.
    for name in ("multiprocessing", "uvicorn", "pickle"):
        (home / f"{name}.py").write_text(f"open({str(canary)!r}, 'a').write({name!r})\nraise ImportError\n")
    settings = {"ROOTSTOCK_PROCESSES": "2", "ROOTSTOCK_DEMO": "false", "ROOTSTOCK_ADMIN_KEY": ADMIN}
    with serving(home, "uvicorn", cwd=home, log=[], **settings) as (process, client):
        yield process, str(client.base_url)
    assert not canary.exists()


@pytest.fixture
def both(server: tuple[subprocess.Popen[str], str]) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    with clients_of_each(server[1], 2, headers=OPERATOR) as (first, second):
        yield first, second


def test_what_one_process_publishes_the_other_serves_and_an_alias_that_it_moves_moves_there_within_two_seconds(
    both: tuple[httpx.Client, httpx.Client], peft_saved: dict[str, PeftAdapter]
) -> None:
    first, second = both
    for mark in ("one", "two"):
        assert upload(first, "moved", peft_saved["first"].zip(), labels=f'["{mark}", "b", "c"]').is_success
        assert until(lambda: mark in labels(answered(second, "moved"))) < WITHIN  # noqa: B023
    for version, (mover, follower) in ((1, (first, second)), (2, (second, first))):
        mover.put("/v1/adapters/moved/aliases/live", json={"version": version}).raise_for_status()
        assert answered(mover, "moved").json()["version"] == version, "the process that moves it follows at once"
        lag = until(lambda: answered(follower, "moved").json()["version"] == version)  # noqa: B023
        assert lag < WITHIN


def test_a_key_that_is_revoked_and_a_quota_that_is_spent_in_one_process_are_so_in_the_other_within_two_seconds(
    both: tuple[httpx.Client, httpx.Client], peft_saved: dict[str, PeftAdapter]
) -> None:
    first, second = both
    assert upload(first, "keyed", peft_saved["first"].zip()).is_success

    def make(**quota: int) -> dict[str, str]:
        made = first.post("/v1/keys", json={"role": "predict", "tenant": "default", **quota})
        assert made.status_code == 201, made.text
        key: dict[str, str] = made.json()
        until(lambda: answered(second, "keyed", key["key"]).status_code == 200)
        return key

    doomed = make()
    assert first.delete(f"/v1/keys/{doomed['id']}").status_code == 204
    assert until(lambda: answered(second, "keyed", doomed["key"]).status_code == 401) < WITHIN
    poor = make(requests_per_minute=20)["key"]
    until(lambda: answered(first, "keyed", poor).status_code == 429)
    assert until(lambda: answered(second, "keyed", poor).status_code == 429) < WITHIN


def test_one_page_has_the_series_of_all_processes_and_names_adapters_to_the_operator_alone(
    server: tuple[subprocess.Popen[str], str],
    both: tuple[httpx.Client, httpx.Client],
    peft_saved: dict[str, PeftAdapter],
) -> None:
    assert upload(both[0], "counted", peft_saved["first"].zip()).is_success
    for client, times in zip(both, (2, 3), strict=True):
        for _ in range(times):
            assert answered(client, "counted").is_success
    name, total = "rootstock_latency_seconds_count", {"adapter": "counted", "stage": "total"}
    for client in both:
        page = client.get("/metrics").text
        assert sorted(values(page, name, **total).values()) == [2.0, 3.0]
        assert ready(page) == {"0": 1.0, "1": 1.0}
        open_page = client.get("/metrics", headers={"Authorization": ""}).text
        assert ready(open_page) == {"0": 1.0, "1": 1.0}
        assert values(open_page, name) == {}
    port = httpx.URL(server[1]).port
    assert listeners(server[0]).ports == {("127.0.0.1", port)}


def test_a_process_that_is_killed_is_replaced_and_meanwhile_the_other_answers_and_shows_its_metrics(
    server: tuple[subprocess.Popen[str], str], peft_saved: dict[str, PeftAdapter]
) -> None:
    process, url = server
    with httpx.Client(base_url=url, timeout=HANG, headers=OPERATOR) as client:
        assert upload(client, "stays", peft_saved["first"].zip()).is_success
        doomed = workers(process)[0]
        doomed.kill()
        doomed.wait(HANG)
    with httpx.Client(base_url=url, timeout=HANG, headers=OPERATOR) as client:
        assert answered(client, "stays").is_success
        assert len(ready(client.get("/metrics").text)) == 1
    with clients_of_each(url, 2) as found:
        assert [answered(client, "stays").status_code for client in found] == [200, 200]


def killed(doomed: psutil.Process, process: subprocess.Popen[str]) -> Callable[[], bool]:
    """Kill a process and return a test of whether the server has another one in its place."""
    known = {one.pid for one in spawned(process.pid)}
    doomed.kill()
    return lambda: bool({one.pid for one in spawned(process.pid)} - known)


def test_a_process_that_hangs_delays_the_replacement_of_no_other(
    server: tuple[subprocess.Popen[str], str],
) -> None:
    process, url = server
    # In both orders: the supervisor looks at one process after the other.
    for first in (0, 1):
        with clients_of_each(url, 2):
            both = workers(process)
        hangs, doomed = both[first], both[1 - first]
        hangs.suspend()
        try:
            # The supervisor asks twice a second.
            time.sleep(1.5)
            seconds = until(killed(doomed, process))
        finally:
            hangs.resume()
        # The supervisor gives up a process that hangs after a minute.
        assert seconds < 30
    with clients_of_each(url, 2):
        assert hangs in workers(process)


@pytest.mark.slow
def test_a_process_that_is_killed_in_its_start_is_replaced_after_a_pause(new_home: Callable[[], Path]) -> None:
    command = [ROOTSTOCK, "serve", "--server", "uvicorn", "--processes", "2", "--port", str(free_port())]
    environment = {**os.environ, "ROOTSTOCK_HOME": str(new_home()), "ROOTSTOCK_DEMO": "false"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            until(lambda: len(spawned(process.pid)) == 2)
            spawned(process.pid)[0].kill()
            until(lambda: len(spawned(process.pid)) == 1)
            assert until(lambda: len(spawned(process.pid)) == 2) > 3
        finally:
            process.terminate()


@pytest.mark.slow
def test_a_replacement_that_cannot_start_is_tried_again(new_home: Callable[[], Path]) -> None:
    log: list[str] = []
    settings = {"ROOTSTOCK_PROCESSES": "2", "ROOTSTOCK_DEMO": "false"}
    with serving(new_home(), "uvicorn", log=log, **settings) as (process, client):
        with clients_of_each(str(client.base_url), 2):
            doomed = workers(process)[0]
        parent = psutil.Process(process.pid)
        limits = parent.rlimit(psutil.RLIMIT_NOFILE)
        # Without a file for the pipe to it, no process starts.
        parent.rlimit(psutil.RLIMIT_NOFILE, (3, limits[1]))
        doomed.kill()
        until(lambda: any("process cannot start" in line for line in log))
        assert client.get("/livez").is_success
        parent.rlimit(psutil.RLIMIT_NOFILE, limits)
        with clients_of_each(str(client.base_url), 2):
            assert len(workers(process)) == 2


@pytest.mark.slow
def test_a_process_that_hangs_is_replaced_and_a_server_that_was_stopped_as_a_whole_goes_on(
    new_home: Callable[[], Path],
) -> None:
    settings = {"ROOTSTOCK_PROCESSES": "2", "ROOTSTOCK_DEMO": "false"}
    with serving(new_home(), "uvicorn", log=[], **settings) as (process, client):
        with clients_of_each(str(client.base_url), 2):
            both = workers(process)
        parent = psutil.Process(process.pid)
        for _ in range(3):
            for one in (parent, *both):
                one.suspend()
            # Longer than a process may be silent.
            time.sleep(62)
            for one in (parent, *both):
                one.resume()
            # The supervisor looks twice a second.
            time.sleep(3)
            assert workers(process) == both
        both[0].suspend()
        assert until(lambda: not both[0].is_running()) > 30
        with clients_of_each(str(client.base_url), 2):
            assert both[1] in workers(process)


@pytest.mark.slow
def test_a_process_that_hangs_is_killed_half_a_minute_after_its_time_to_stop(
    new_home: Callable[[], Path],
) -> None:
    settings = {"ROOTSTOCK_PROCESSES": "2", "ROOTSTOCK_DEMO": "false", "ROOTSTOCK_GRACE_PERIOD": "1"}
    with serving(new_home(), "uvicorn", log=[], **settings) as (process, client):
        with clients_of_each(str(client.base_url), 2):
            hangs, other = workers(process)
        hangs.suspend()
        process.terminate()
        began = time.monotonic()
        assert process.wait(HANG) == 0
        assert time.monotonic() - began > 30
        assert psutil.wait_procs([hangs, other], 0)[1] == []


def test_a_start_that_fails_in_a_process_ends_the_server_with_exit_code_3(new_home: Callable[[], Path]) -> None:
    home = new_home()
    (home / "store").write_text("not a folder")
    environment = {**os.environ, "ROOTSTOCK_HOME": str(home)}
    command = [ROOTSTOCK, "serve", "--port", str(free_port()), "--server", "uvicorn", "--processes", "2"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HANG, check=False)
    assert done.returncode == 3, done.stderr
    assert "rootstock: the server cannot start: " in done.stderr
    assert "Traceback" not in done.stderr


def test_processes_that_the_system_refuses_to_start_end_the_server_with_exit_code_3(
    new_home: Callable[[], Path],
) -> None:
    environment = {**os.environ, "ROOTSTOCK_HOME": str(new_home())}
    serve = [ROOTSTOCK, "serve", "--port", str(free_port()), "--server", "uvicorn", "--processes", "2"]
    # The parent's own files leave no room for the pipes to its processes.
    limited = ["bash", "-c", 'ulimit -n 12; exec "$@"', "-", *serve]
    done = subprocess.run(limited, env=environment, capture_output=True, text=True, timeout=HANG, check=False)
    assert done.returncode == 3, done.stderr
    assert "lower ROOTSTOCK_PROCESSES, or raise the limits" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("server_kind", ["uvicorn", "bentoml"])
def test_while_processes_are_killed_under_load_no_answer_is_wrong_and_only_the_killed_lose_requests(
    server_kind: str, new_home: Callable[[], Path], peft_saved: dict[str, PeftAdapter]
) -> None:
    kills, dice = 6, random.Random(57)
    settings = {"ROOTSTOCK_PROCESSES": "2", "ROOTSTOCK_DEMO": "false"}
    with serving(new_home(), server_kind, log=[], **settings) as (process, client):
        url = str(client.base_url)
        names = ["first", "second"]
        for name in names:
            assert upload(client, name, peft_saved[name].zip()).is_success
        for mark in ("one", "two"):
            assert upload(client, "moved", peft_saved["first"].zip(), labels=f'["{mark}", "b", "c"]').is_success
        history = AliasHistory(2)
        right = broken = moves = 0
        replaced = []
        for turn in range(kills):
            with clients_of_each(url, 2) as found, Asking(found, "moved@live") as asking:
                with Clients(url, names) as clients:
                    clients.more(60)
                    history.move(found[0], "moved", "live", turn % 2 + 1)
                    moves += 1
                    doomed = dice.choice(workers(process))
                    doomed.kill()
                    killed = time.monotonic()
                    until(lambda: not doomed.is_running() or doomed.status() == psutil.STATUS_ZOMBIE)  # noqa: B023
                    until(lambda: len(workers(process)) == 2)
                # The clients of the killed process lost what they had sent; nobody got a wrong answer.
                assert clients.failed == []
                right += len(clients.replies)
                broken += len(clients.broken) + len(asking.broken)
                heard = [one for of_one in asking.heard for one in of_one]
                assert [one for one in heard if one.status != 200] == []
                assert max(history.lag(one) for one in heard) < WITHIN
            with httpx.Client(base_url=url, timeout=HANG) as asked:
                until(lambda: list(ready(asked.get("/metrics").text).values()) == [1.0, 1.0])
            replaced.append(time.monotonic() - killed)
    print(
        f"\n{server_kind}: {kills} kills, {moves} moves: {right} answers, wrong 0, lost with the killed "
        f"{broken}; both ready again after at most {max(replaced):.1f} s"
    )
    assert broken > 0


@pytest.mark.slow
@pytest.mark.parametrize("server_kind", ["uvicorn", "bentoml"])
def test_after_sigterm_all_processes_finish_what_was_admitted_and_end(
    server_kind: str, new_home: Callable[[], Path], peft_saved: dict[str, PeftAdapter]
) -> None:
    log: list[str] = []
    settings = {"ROOTSTOCK_PROCESSES": "2", "ROOTSTOCK_DEMO": "false", "ROOTSTOCK_LOG_LEVEL": "debug"}
    with serving(new_home(), server_kind, log=log, **settings) as (process, client):
        url = str(client.base_url)
        assert upload(client, "a", peft_saved["first"].zip()).is_success
        with clients_of_each(url, 2):
            serve = workers(process)
        assert len(serve) == 2
        with Clients(url, ["a"], count=16) as clients:
            clients.more(60)
            process.send_signal(signal.SIGTERM)
            assert process.wait(HANG) in (0, -signal.SIGTERM)
        assert not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in serve)
    assert {(r.status, r.code) for r in clients.failed} <= {(503, "draining"), (REFUSED, None)}
    seen = {json.loads(line).get("request_id") for line in log if line.startswith("{")}
    assert len(seen) >= 50
    # The system resets requests that come in as the listener closes, and the server never sees them.
    assert not clients.broken & seen


@pytest.mark.slow
def test_a_terminal_that_closes_ends_all_processes(new_home: Callable[[], Path]) -> None:
    with serving(new_home(), "uvicorn", log=[], ROOTSTOCK_PROCESSES="2", ROOTSTOCK_DEMO="false") as (process, _):
        serve = workers(process)
        for one in (process.pid, *(worker.pid for worker in serve)):
            os.kill(one, signal.SIGHUP)
        process.wait(HANG)
        assert psutil.wait_procs(serve, HANG)[1] == []


@pytest.mark.slow
@pytest.mark.parametrize("imported", [False, True])
def test_processes_whose_parent_is_killed_as_they_start_end_too(
    imported: bool, new_home: Callable[[], Path]
) -> None:
    command = [ROOTSTOCK, "serve", "--server", "uvicorn", "--processes", "2", "--port", str(free_port())]
    environment = {**os.environ, "ROOTSTOCK_HOME": str(new_home()), "ROOTSTOCK_DEMO": "false"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        until(lambda: len(spawned(process.pid)) == 2)
        serve = spawned(process.pid)
        if imported:
            until(lambda: all(any("uvloop" in one.path for one in worker.memory_maps()) for worker in serve))
        process.kill()
    assert psutil.wait_procs(serve, HANG)[1] == []


def spawned(pid: int) -> list[psutil.Process]:
    """Return the processes that a server has started, also before they serve."""
    found = []
    for child in psutil.Process(pid).children():
        with suppress(psutil.Error):
            if any("spawn_main" in part for part in child.cmdline()):
                found.append(child)
    return found
