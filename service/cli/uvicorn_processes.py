"""Several processes under uvicorn that listen on one port, and the supervisor that replaces those that end."""

from __future__ import annotations

import math
import os
import socket
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors.multiprocess import Multiprocess, Process

from rootstock.adapters.home.home import Home
from rootstock.service.cli.process_app import ProcessApp
from rootstock.service.startup import EXIT_CODE
from rootstock.service.telemetry.logs import configure_logs

if TYPE_CHECKING:
    from rootstock.service.settings import Settings

# Seconds that a process may leave the supervisor without an answer, from its start on. The interpreter starts
# before the first one, and on a busy machine many that start at once take their time.
_SILENT_SECONDS = 60.0
# Seconds without a look at the processes after which the supervisor was stopped, and they probably with it.
_AWAY_SECONDS = 5.0
# Seconds before a process that ended in its start is replaced. It may have ended for want of memory.
_PAUSE_SECONDS = 5.0
# Seconds that the kernel may take to end a process that is killed, before the supervisor looks at the others.
_KILL_SECONDS = 1.0
# Seconds that a process may take to end after the time of the requests that it has admitted.
_END_SECONDS = 30.0


@dataclass
class ProcessWatch:
    """The supervisor's notes on a process, with times of the monotonic clock.

    `asked` is the time of the question that it has not answered yet. `started` says that it has answered that it
    serves. `ended` is the time from which a pause counts: it was found ended, or its replacement could not start.
    """

    asked: float | None = None
    started: bool = False
    ended: float | None = None


class ServerSupervisor(Multiprocess):
    """uvicorn's supervisor, which waits for no process that hangs, and logs what it replaces.

    It closes the port as the processes stop.
    """

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket], stop_seconds: float) -> None:
        """Take the seconds from the signal until a process has answered all that it has admitted."""
        super().__init__(config, sockets)
        self._stop_seconds = stop_seconds
        self._watches: defaultdict[Process, ProcessWatch] = defaultdict(ProcessWatch)
        self._looked = time.monotonic()

    def run(self) -> None:
        """Serve until a signal comes. After a fault, end the processes, and raise it."""
        try:
            super().run()
        except BaseException:
            self.terminate_all()
            self.join_all()
            raise

    def keep_subprocess_alive(self) -> None:
        """Replace the processes that have ended or do not answer. Wait for the answer of none."""
        now = time.monotonic()
        if now - self._looked > _AWAY_SECONDS:
            for watch in self._watches.values():
                watch.asked = watch.asked and now
        for place, process in enumerate(self.processes):
            if not self.should_exit.is_set() and not self._answers(process):
                self._replace(place)
        self._looked = time.monotonic()

    def _answers(self, process: Process) -> bool:
        """Ask a process once it has answered the last question. Return False once it has ended or hangs."""
        # With a copy of the pipe's other end, the supervisor would not see that the process ends.
        process.child_conn.close()
        if not process.process.is_alive():
            return False
        now, watch = time.monotonic(), self._watches[process]
        try:
            if watch.asked is None:
                process.parent_conn.send(b"ping")
                watch.asked = now
            elif process.parent_conn.poll(0):
                watch.started |= process.parent_conn.recv()
                watch.asked = None
        except Exception:
            # It has closed the pipe, or has sent what is no answer.
            return False
        return watch.asked is None or now - watch.asked < _SILENT_SECONDS

    def _replace(self, place: int) -> None:
        old = self.processes[place]
        now, watch = time.monotonic(), self._watches[old]
        old.kill()
        old.process.join(_KILL_SECONDS)
        if old.process.is_alive():
            return
        if old.exitcode == STARTUP_FAILURE:
            # It would fail in the same way again.
            self.should_exit.set()
            return
        if not watch.started:
            watch.ended = watch.ended or now
            if now - watch.ended < _PAUSE_SECONDS:
                return
        try:
            new = Process(self.config, self.sockets)
            new.start()
        except OSError as error:
            # The next try comes after a pause.
            watch.started, watch.ended = False, now
            structlog.get_logger().warning("process cannot start", error=str(error), ended=old.pid)
            return
        self.processes[place] = new
        del self._watches[old]
        structlog.get_logger().warning("process replaced", ended=old.pid, exit_code=old.exitcode, began=new.pid)

    def join_all(self) -> None:
        """Wait for the processes, and end those that take longer than their requests may."""
        end = time.monotonic() + self._stop_seconds + _END_SECONDS
        for process in self.processes:
            process.process.join(max(0.0, end - time.monotonic()))
            if process.process.is_alive():
                structlog.get_logger().warning("process that does not stop is killed", process=process.pid)
                process.kill()
                process.process.join(_KILL_SECONDS)

    def handle_hup(self) -> None:
        """Stop, as one process does when its terminal closes; uvicorn would start the processes anew."""
        self.handle_term()

    def handle_ttin(self) -> None:
        """Keep the number of processes, which the settings state; uvicorn would add one."""

    def handle_ttou(self) -> None:
        """Keep the number of processes, also if a terminal sends this to a program in the background."""

    def terminate_all(self) -> None:
        """Stop the processes. The port closes with the last one, so that nobody waits there for an answer."""
        super().terminate_all()
        for listener in self.sockets:
            listener.close()


def serve_processes(settings: Settings) -> int:
    """Serve until a signal comes, and return the exit code: EXIT_CODE if a process could not start."""
    configure_logs(settings.log_level)
    # An interpreter that is started with a command imports from the folder in which the server was started, where
    # anyone may have put a module.
    os.environ["PYTHONSAFEPATH"] = "1"
    config = uvicorn.Config(
        ProcessApp(Home(settings.home_folder).kept_lock),
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.processes,
        loop="uvloop",
        http="rootstock.service.api.connection.protocol:BoundedHeadProtocol",
        access_log=False,
        log_config=None,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=math.ceil(settings.grace_period),
    )
    listener = config.bind_socket()
    listener.listen(config.backlog)
    supervisor = ServerSupervisor(config, [listener], settings.drain_delay + settings.grace_period)
    try:
        supervisor.run()
    except OSError as error:
        sys.stderr.write(
            f"rootstock: not all of {settings.processes} processes can start: {error}; lower "
            "ROOTSTOCK_PROCESSES, or raise the limits of processes, open files and memory\n"
        )
        return EXIT_CODE
    return EXIT_CODE if any(process.exitcode == EXIT_CODE for process in supervisor.processes) else 0
