"""The application of Ray Serve: an ingress, and the replicas of one server behind it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, RequestRouterConfig
from ray.serve.handle import DeploymentHandle

from rootstock.service.cluster.ingress import ClusterIngress
from rootstock.service.cluster.replica import ServerReplica
from rootstock.service.cluster.serve_replicas import ServeReplicas

_MIB = 2**20
_ROUTER = "rootstock.service.cluster.affinity_router:AffinityRouter"
_SCALING = "rootstock.service.cluster.load_scaling:replicas_by_load"
# A replica refuses what is too much itself, by the shares of its queue. A queue in front of it would know none.
_MOST_ONGOING = 4096
# Serve's line for each request repeats the server's own.
_LOGS = {"enable_access_log": False, "log_level": "WARNING"}
# Seconds after the grace period in which a replica closes its parts.
_CLOSING_SECONDS = 15.0


@dataclass(frozen=True)
class ClusterPlan:
    """How many replicas there are, and on what.

    Between `replicas` and `most_replicas` Serve keeps as many as the load needs (load_scaling.py), with at most
    `target` requests under way in each. `settings` are the environment variables of each replica. With
    `by_adapter` false, requests go to the shorter queue of two random replicas. `shared` tells that the registry
    is one for all replicas.
    """

    replicas: int = 2
    most_replicas: int | None = None
    target: float = 16.0
    cpus: float = 1.0
    gpus: float = 0.0
    ingresses: int = 1
    by_adapter: bool = True
    grace_seconds: float = 30.0
    max_body: int = 16 * _MIB
    max_upload: int = 65 * _MIB
    shared: bool = True
    settings: Mapping[str, str] = field(default_factory=dict)
    served_names: Mapping[str, str] = field(default_factory=dict)

    @property
    def ingress_cpus(self) -> float:
        """Return the cores of an ingress."""
        return min(1.0, self.cpus)

    @property
    def needs(self) -> dict[str, float]:
        """Return what the fewest replicas and the ingresses take of a cluster, by Ray's names."""
        cores = self.replicas * self.cpus + self.ingresses * self.ingress_cpus
        return {"CPU": cores, "GPU": self.replicas * self.gpus}

    @property
    def update_needs(self) -> dict[str, float]:
        """Return the same for an update, in which a new replica starts before an old one ends.

        Without a shared registry, only a new ingress does.
        """
        spare = (self.cpus, self.gpus) if self.shared else (self.ingress_cpus, 0.0)
        return {name: need + more for (name, need), more in zip(self.needs.items(), spare, strict=True)}


class Ingress:
    """The deployment that clients reach: the ASGI app in front of the replicas."""

    def __init__(self, replicas: DeploymentHandle, plan: ClusterPlan) -> None:
        proxied = os.environ.get("RAY_SERVE_ENABLE_HA_PROXY", "0") not in ("1", "true", "True")
        self._app = ClusterIngress(
            ServeReplicas(replicas),
            plan.max_body,
            plan.max_upload,
            plan.served_names,
            # Serve's own proxy repeats the id of each request; HAProxy does not.
            added_in_front=(b"x-request-id",) if proxied else (),
        )

    def __serve_build_asgi_app__(self) -> ClusterIngress:
        """Return the app; Ray Serve asks for it."""
        return self._app


def application(plan: ClusterPlan) -> Application:
    """Return the application for `serve.run`."""
    how_many: dict[str, Any] = {"num_replicas": plan.replicas}
    if plan.most_replicas is not None:
        how_many = {
            "autoscaling_config": AutoscalingConfig(
                min_replicas=plan.replicas,
                max_replicas=plan.most_replicas,
                initial_replicas=plan.replicas,
                target_ongoing_requests=plan.target,
                policy=AutoscalingPolicy(policy_function=_SCALING),
            )
        }
    replicas = serve.deployment(
        ServerReplica,
        name="replica",
        max_ongoing_requests=_MOST_ONGOING,
        ray_actor_options={"num_cpus": plan.cpus, "num_gpus": plan.gpus},
        graceful_shutdown_timeout_s=plan.grace_seconds + _CLOSING_SECONDS,
        health_check_period_s=2.0,
        # Two replicas cannot share one home, so that the old one ends first.
        max_surge_percent=25 if plan.shared else 0,
        max_constructor_retry_count=3,
        logging_config=_LOGS,
        request_router_config=RequestRouterConfig(
            request_router_class=_ROUTER,
            request_router_kwargs={"by_adapter": plan.by_adapter},
        ),
        **how_many,
    )
    ingress = serve.deployment(
        serve.ingress()(Ingress),
        name="ingress",
        num_replicas=plan.ingresses,
        max_ongoing_requests=_MOST_ONGOING,
        ray_actor_options={"num_cpus": plan.ingress_cpus},
        graceful_shutdown_timeout_s=math.ceil(plan.grace_seconds + _CLOSING_SECONDS),
        max_surge_percent=100,
        logging_config=_LOGS,
    )
    return ingress.bind(replicas.bind(dict(plan.settings), plan.shared), plan)
