"""One replica: the server's app in an actor of Ray Serve."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing

from rootstock.service.cluster.exchange import AnswerPart, AnswerStart, Exchange, ForwardedRequest

_READY = ForwardedRequest("GET", "http", "/livez", b"/livez", b"", "1.1", [(b"host", b"localhost")], None, b"")


class ServerReplica:
    """The server, with its own home and engines, on the registry and the store of all replicas.

    Ray Serve makes it in a separate process, calls `check_health` from time to time, and awaits `__del__` once
    the requests under way have ended.
    """

    # Ray Serve awaits it.
    async def __init__(  # type: ignore[misc]
        self, settings: Mapping[str, str], shared: bool
    ) -> None:
        """Open the server with the environment variables `settings`.

        If it shares its registry, its home is a folder under ROOTSTOCK_HOME.
        """
        os.environ.update(settings)
        from ray import serve

        from rootstock.service.lean_imports import lean_imports

        with lean_imports():
            from rootstock.adapters.home_folder import home_from_environment
            from rootstock.service.app import create_app
            from rootstock.service.cluster.load_scaling import ReplicaLoad
            from rootstock.service.cluster.replica_home import keep_only_home, take_replica_home
            from rootstock.service.settings import read_settings
            from rootstock.service.startup import keep_files_private

        keep_files_private()
        base = home_from_environment()
        # The machine's home has the exports that the replicas share.
        os.environ.setdefault("ROOTSTOCK_EXPORTS", str(base))
        home = take_replica_home(base) if shared else keep_only_home(base)
        os.environ["ROOTSTOCK_HOME"] = str(home)
        self._name = f"{serve.get_replica_context().replica_id.unique_id}"
        self._app = create_app(read_settings())
        self._lifespan = self._app.router.lifespan_context(self._app)
        await self._lifespan.__aenter__()
        self._load = ReplicaLoad(self._app.state.server.metrics.registry)

    async def __del__(self) -> None:
        """Close the server. Raise nothing if it never opened."""
        lifespan = self.__dict__.pop("_lifespan", None)
        if lifespan is not None:
            await lifespan.__aexit__(None, None, None)

    async def check_health(self) -> None:
        """Raise RuntimeError if only a restart helps. A database that is away is no reason."""
        status = (await self._whole(_READY)).status
        if status != 200:
            raise RuntimeError(f"/livez answers {status}: the engine has stopped")

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Return the load since the last call; Ray Serve asks for it if the number of replicas varies."""
        return self._load.rates()

    async def answer(self, request: ForwardedRequest) -> AsyncIterator[AnswerPart]:
        """Yield the parts of the answer to a request."""
        async with aclosing(Exchange(self._app, request).parts()) as parts:  # type: ignore[type-var]
            async for part in parts:
                yield self._named(part) if isinstance(part, AnswerStart) else part

    async def named_answer(self, request: ForwardedRequest) -> tuple[str, AnswerStart]:
        """Return the name of this replica, and the answer to a request in one piece."""
        return self._name, await self._whole(request)

    def _named(self, start: AnswerStart) -> AnswerStart:
        return start._replace(headers=[*start.headers, (b"x-replica", self._name.encode())])

    async def _whole(self, request: ForwardedRequest) -> AnswerStart:
        start, rest = AnswerStart(500, [], b"", False), []
        async with aclosing(Exchange(self._app, request).parts()) as parts:  # type: ignore[type-var]
            async for part in parts:
                if isinstance(part, AnswerStart):
                    start = part
                else:
                    rest.append(part)
        return start._replace(body=b"".join([start.body, *rest]), more=False)
