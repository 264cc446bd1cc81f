"""The objects that `kubectl kustomize` makes of the folders of deploy/kubernetes."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.conftest import ROOT

FOLDER = ROOT / "deploy" / "kubernetes"
WORKLOADS = ("Deployment", "Job", "RayService")
needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")


@cache
def build(folder: Path) -> list[Any]:
    """Return the objects that `kubectl apply -k` would send for a folder."""
    command = ["kubectl", "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def objects(folder: str) -> list[Any]:
    """Return the objects of a folder of deploy/kubernetes."""
    return build(FOLDER / folder)


def one(folder: str, kind: str) -> Any:
    """Return the only object of a kind."""
    (only,) = (made for made in objects(folder) if made["kind"] == kind)
    return only


def templates(made: Any) -> Iterator[Any]:
    """Yield the templates of the pods that an object makes."""
    if made["kind"] == "RayService":
        cluster = made["spec"]["rayClusterConfig"]
        yield from (group["template"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]))
    elif made["kind"] in WORKLOADS:
        yield made["spec"]["template"]


def pod_templates(folder: str) -> list[Any]:
    """Return the templates of all pods of a folder."""
    return [template for made in objects(folder) for template in templates(made)]


def container(template: Any) -> Any:
    """Return the only container of a pod."""
    (only,) = template["spec"]["containers"]
    return only


def environment(template: Any) -> dict[str, Any]:
    """Return the entries of a container's environment by name."""
    return {entry["name"]: entry for entry in container(template)["env"]}


def selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    """Tell whether `matchLabels` selects an object with these labels."""
    return selector.items() <= labels.items()
