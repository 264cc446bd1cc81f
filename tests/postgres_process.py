"""Runs a real PostgreSQL on a free port, in a temporary folder."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.bounds import HANG
from tests.serve_process import free_port

PASSWORD = "s3cret-Pa55word"


class PostgresProcess:
    """A PostgreSQL server, whose data outlive a kill. Its user is `rootstock`, with PASSWORD."""

    def __init__(self, folder: Path, programs: Path, user: str | None) -> None:
        self._folder = folder
        self._programs = programs
        self._user = user
        self._numbers = itertools.count(1)
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server, and return once it answers."""
        # Tests lose no power, so nothing is lost without fsync, also after a kill.
        options = {
            "listen_addresses": "127.0.0.1",
            "fsync": "off",
            "full_page_writes": "off",
            "shared_buffers": "16MB",
            "max_connections": "200",
        }
        command = [self._programs / "postgres", "-D", self._folder / "data", "-p", self.port, "-k", self._folder]
        command += [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                list(map(str, command)), stdout=log, stderr=log, user=self._user, cwd=self._folder
            )
        deadline = time.monotonic() + HANG
        while True:
            try:
                psycopg.connect(self.address, connect_timeout=2).close()
                return
            except psycopg.OperationalError:
                assert self._process.poll() is None, (self._folder / "log").read_text()
                assert time.monotonic() < deadline, "PostgreSQL does not answer"
                time.sleep(0.02)

    def kill(self) -> None:
        """Kill the server and all processes that serve its connections, without a word to anyone."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        for process in (self._process.pid, *map(int, children)):
            os.kill(process, signal.SIGKILL)
        self._process.wait(HANG)

    def stop(self) -> None:
        """Stop the server, if it runs, without waiting for its clients."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(HANG)

    @property
    def address(self) -> str:
        """Return the URL of the database that is there from the start, for programs that are no registry."""
        return f"postgresql://rootstock:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def new_schema(self) -> str:
        """Make an empty schema, which is faster than a database; return the URL of a registry in it."""
        name = f"registry_{next(self._numbers)}"
        with psycopg.connect(self.address, autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {name}")
        return f"{self.address.replace('postgresql:', 'postgresql+psycopg:')}?options=-csearch_path%3D{name}"


@contextmanager
def postgres_process() -> Iterator[PostgresProcess]:
    """Make a cluster, start it, and remove all at the end. Skip the test where PostgreSQL is not installed."""
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    # PostgreSQL refuses to run as root.
    user = "nobody" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="rootstock-postgres-"))
    try:
        (folder / "password").write_text(PASSWORD)
        if user is not None:
            for path in (folder, folder / "password"):
                shutil.chown(path, user)
        # The order of names in this locale is not the order of their bytes.
        locale = ["--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en"]
        account = ["--username=rootstock", "--auth=scram-sha-256", f"--pwfile={folder / 'password'}"]
        command = [programs / "initdb", "-D", folder / "data", "--encoding=UTF8", "--no-sync", *locale, *account]
        subprocess.run(list(map(str, command)), check=True, capture_output=True, user=user, cwd=folder)
        server = PostgresProcess(folder, programs, user)
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path | None:
    """Return the folder of PostgreSQL's programs, the newest, which Debian does not put on the path."""
    found = [Path(program).parent for program in filter(None, [shutil.which("initdb")])]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
    return next((folder for folder in reversed(found) if (folder / "initdb").exists()), None)
