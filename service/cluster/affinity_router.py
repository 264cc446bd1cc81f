"""The request router of Ray Serve that places requests by their adapters."""

from __future__ import annotations

import random
import time

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from rootstock.service.cluster.affinity import AdapterAffinity

# Between names in the model id of a request, which is one text. No name holds it.
SEPARATOR = ","
# A replica that could not be reached gets no request for this time, unless no other one is there.
_SHUNNED_SECONDS = 5.0


class AffinityRouter(RequestRouter):  # type: ignore[misc]
    """Sends a request to the replica that holds its adapter.

    The handle states the adapters as the request's model id. The length of a queue is what this process knows of
    it: its own requests, and what the replica said last. Where it knows nothing, Serve asks the replica.
    """

    _rule = AdapterAffinity()
    _by_adapter = True

    def initialize_state(self, by_adapter: bool = True) -> None:
        """Start without knowledge. With `by_adapter` false, two random replicas compete for each request."""
        self._by_adapter = by_adapter
        self._dice = random.Random()  # noqa: S311 - no secret
        self._unreached: dict[str, float] = {}

    def on_replica_actor_unavailable(self, replica_id: ReplicaID) -> None:
        """Leave a replica alone for a while, because it may have ended."""
        super().on_replica_actor_unavailable(replica_id)
        self._unreached[replica_id.unique_id] = time.monotonic()

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Return groups of replicas to try in turn; Serve takes the shortest queue of a group."""
        model_id = ""
        if pending_request is not None:
            # Else Serve would ask again at once, for ever, while all replicas are full.
            pending_request.routing_context.should_backoff = True
            model_id = pending_request.metadata.multiplexed_model_id
        known = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        queues = {
            name: self.replica_queue_len_cache.get(replica.replica_id) or 0 for name, replica in known.items()
        }
        names = model_id.split(SEPARATOR) if model_id and self._by_adapter else []
        groups = self._rule.choose(names, self._reached(queues), self._dice)
        return [[known[name] for name in group] for group in groups if group]

    def _reached(self, queues: dict[str, int]) -> dict[str, int]:
        if not self._unreached:
            return queues
        now = time.monotonic()
        self._unreached = {
            name: since for name, since in self._unreached.items() if now - since < _SHUNNED_SECONDS
        }
        return {name: length for name, length in queues.items() if name not in self._unreached} or queues
