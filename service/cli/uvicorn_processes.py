"""Several processes under uvicorn that listen on one port, and the supervisor that replaces those that end."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

import structlog
import uvicorn
from uvicorn.supervisors import Multiprocess

from rootstock.adapters.home.home import Home
from rootstock.service.cli.process_app import ProcessApp
from rootstock.service.startup import EXIT_CODE
from rootstock.service.telemetry.logs import configure_logs

if TYPE_CHECKING:
    from rootstock.service.settings import Settings

# Seconds that a process may leave the supervisor without an answer, from its start on. The interpreter starts
# before the first one, and on a busy machine many that start at once take their time.
_SILENT_SECONDS = 60


class ServerSupervisor(Multiprocess):
    """uvicorn's supervisor, which also logs what it replaces, and closes the port as the processes stop."""

    def keep_subprocess_alive(self) -> None:
        """Replace the processes that have ended or do not answer."""
        before = list(self.processes)
        for process in before:
            # With a copy of the pipe's other end, the supervisor would not see that a process ends while it waits
            # for its answer.
            process.child_conn.close()
        super().keep_subprocess_alive()
        for old, new in zip(before, self.processes, strict=True):
            if new is not old:
                structlog.get_logger().warning(
                    "process replaced", ended=old.pid, exit_code=old.exitcode, began=new.pid
                )

    def handle_hup(self) -> None:
        """Stop, as one process does when its terminal closes; uvicorn would start the processes anew."""
        self.handle_term()

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
        timeout_worker_healthcheck=_SILENT_SECONDS,
    )
    listener = config.bind_socket()
    listener.listen(config.backlog)
    supervisor = ServerSupervisor(config, sockets=[listener])
    supervisor.run()
    return EXIT_CODE if any(process.exitcode == EXIT_CODE for process in supervisor.processes) else 0
