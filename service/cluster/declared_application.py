"""The application that a configuration of Ray Serve names, such as a RayService of KubeRay."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ray.serve import Application

from rootstock.service.cluster.application import ClusterPlan, application
from rootstock.service.settings import Settings, read_settings

_MIB = 2**20
# The settings decide these.
_OF_SETTINGS = {"grace_seconds", "max_body", "max_upload", "shared", "settings", "served_names", "stamp"}
_ARGUMENTS = {field.name for field in fields(ClusterPlan)} - _OF_SETTINGS


def from_environment(args: Mapping[str, Any]) -> Application:
    """Return the application with the settings of this environment, and `args` as fields of its ClusterPlan.

    The replicas take their settings from the environment of their own pod, so that no key is in what Ray keeps of
    the application. Raise ValueError for an argument that there is not, without a shared registry, or
    with ROOTSTOCK_PROCESSES, and SettingsError for wrong settings.
    """
    if unknown := sorted(args.keys() - _ARGUMENTS):
        known = ", ".join(sorted(_ARGUMENTS))
        raise ValueError(f"{', '.join(unknown)} is no argument of the application; known: {known}")
    settings = read_settings()
    if not settings.registry_address:
        raise ValueError(
            "replicas need one registry and one store; set ROOTSTOCK_REGISTRY_URL and ROOTSTOCK_STORE_URL in the "
            "environment of every pod"
        )
    if settings.processes > 1:
        raise ValueError(
            f"ROOTSTOCK_PROCESSES is {settings.processes}, and a replica on Ray is one process; unset it, "
            "and state more replicas"
        )
    return application(
        ClusterPlan(
            grace_seconds=settings.grace_period,
            max_body=settings.max_body_mb * _MIB,
            max_upload=(settings.max_bundle_mb + 1) * _MIB,
            settings=_threads(settings, args),
            served_names=settings.names,
            **args,
        )
    )


def _threads(settings: Settings, args: Mapping[str, Any]) -> dict[str, str]:
    """Return the variable that keeps a replica to its cores, unless the settings state the threads."""
    if settings.threads:
        return {}
    return {"ROOTSTOCK_THREADS": str(max(1, math.floor(args.get("cpus", ClusterPlan.cpus))))}
