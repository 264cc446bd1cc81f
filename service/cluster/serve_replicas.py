"""The replicas behind a handle of Ray Serve."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from ray.exceptions import RayActorError
from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from rootstock.service.cluster.affinity_router import SEPARATOR
from rootstock.service.cluster.errors import ReplicaLost
from rootstock.service.cluster.exchange import AnswerPart, AnswerStart, ForwardedRequest

_EACH_SECONDS = 10.0


class ServeReplicas:
    """The replicas of one deployment, as ReplicaCalls describes them."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle

    async def answer(self, request: ForwardedRequest, names: list[str]) -> AsyncIterator[AnswerPart]:
        """Have a replica answer, which the request router chooses by the names. Raise ReplicaLost if it ends."""
        handle = self._handle.options(
            method_name="answer", stream=True, multiplexed_model_id=SEPARATOR.join(names)
        )
        response: Any = handle.remote(request)
        try:
            async for part in response:
                yield part
        except (RayActorError, DeploymentUnavailableError) as error:
            raise ReplicaLost(
                "the replica that answered this request has ended; look whether the call took effect, and send "
                "it again"
            ) from error
        finally:
            # Does nothing to a request that has ended.
            response.cancel()

    async def answer_of_each(self, request: ForwardedRequest) -> dict[str, AnswerStart]:
        """Return the answers of all replicas by their names. One that does not answer is left out."""
        response = self._handle.broadcast("named_answer", request)
        answers = await response.results_async(timeout_s=_EACH_SECONDS, return_exceptions=True)
        return dict(one for one in answers if not isinstance(one, BaseException))
