"""A home serves one program at a time, and is free again however that one ends."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rootstock.adapters.errors import HomeInUse
from rootstock.adapters.home.home import Home
from rootstock.adapters.home_folder import home_from_environment, searched_homes
from rootstock.service.settings import Settings

HOLD = """
import sys
from pathlib import Path
from rootstock.adapters.home.home import Home
with Home(Path(sys.argv[1])).hold("another program"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("variables", [{}, {"HOME": "~/other"}, {"HOME": "here"}, {"EXPORTS": "ahead"}])
def test_every_program_searches_the_folders_that_a_server_with_the_same_environment_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    for name, value in variables.items():
        monkeypatch.setenv(f"ROOTSTOCK_{name}", value)
    assert home_from_environment() == Settings().home_folder
    assert searched_homes() == Settings().export_folders
    assert searched_homes(tmp_path)[-1] == tmp_path


def test_a_home_that_another_process_holds_is_refused_by_name_and_free_once_that_is_killed(
    tmp_path: Path,
) -> None:
    home = tmp_path / "new" / "home"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(HomeInUse) as refused, Home(home).hold("this test"):
            pass
        assert f"{home} is in use by another program, process {other.pid}" in str(refused.value)
        other.kill()
        other.wait()
    with Home(home).hold("this test"):
        pass


def test_a_home_is_held_against_the_same_process_and_given_back_at_the_end(tmp_path: Path) -> None:
    with Home(tmp_path).hold("first"):
        for _ in range(2):
            with pytest.raises(HomeInUse, match=f"first, process {os.getpid()}"), Home(tmp_path).hold("second"):
                pass
    with pytest.raises(RuntimeError, match="mine"), Home(tmp_path).hold("third"):
        raise RuntimeError("mine")
    with Home(tmp_path).hold("x"):
        assert (tmp_path / "lock").read_text() == f"x, process {os.getpid()}\n"


def test_a_program_that_is_started_meanwhile_does_not_hold_the_home_longer(tmp_path: Path) -> None:
    with Home(tmp_path).hold("first"):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)
    try:
        with Home(tmp_path).hold("second"):
            pass
    finally:
        child.kill()
        child.communicate()


KEEP = """
import os, subprocess, sys
from pathlib import Path
from rootstock.adapters.home.home import Home
Home(Path(sys.argv[1])).keep("a server")
worker = subprocess.Popen([sys.executable, "-c", sys.argv[2], sys.argv[1]], close_fds=False)
worker.wait()
"""


def test_a_home_that_a_program_keeps_is_held_for_the_one_that_it_starts_and_until_both_have_ended(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", KEEP, str(tmp_path), HOLD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        assert server.stdout.readline() == "held\n"
        for still_runs in ("both", "the worker"):
            named = pytest.raises(HomeInUse, match=f"in use by a server, process {server.pid}: ")
            with named, Home(tmp_path).hold(still_runs):
                pass
            server.kill()
            server.wait()
        server.stdin.close()
        assert server.stdout.read() == ""
    with Home(tmp_path).hold("this test"):
        pass


@pytest.mark.parametrize("kept", ["", "no number", "-1", "0", "99999", "9" * 30])
def test_a_handle_that_is_not_of_this_home_s_lock_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: str
) -> None:
    monkeypatch.setenv("_ROOTSTOCK_HOME_LOCK", kept)
    with (
        Home(tmp_path).hold("first"),
        pytest.raises(HomeInUse, match="in use by first"),
        Home(tmp_path).hold("x"),
    ):
        pass


def test_a_holder_that_has_not_written_its_name_yet_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "lock"
    lock.write_text(f"one that was killed, process {2**30}\n")
    monkeypatch.setattr("time.sleep", lambda _: lock.write_text(f"another program, process {os.getpid()}\n"))
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(HomeInUse, match="in use by another program, process"), Home(tmp_path).hold("x"):
            pass
