"""The RayService of deploy/kubernetes: by Ray's own schema and commands, and by what KubeRay documents."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import pytest
import yaml

from tests.deploy.kustomize import container, needs_kubectl, one, pod_templates

pytestmark = needs_kubectl
# The fields of ray.io/v1 by KubeRay's reference of its API, docs/reference/api.md. No package has its schema.
FIELDS = {
    "RayServiceSpec": {
        "excludeHeadPodFromServeSvc",
        "rayClusterConfig",
        "serveConfigV2",
        "serveService",
        "upgradeStrategy",
    },
    "RayClusterSpec": {
        "autoscalerOptions",
        "enableInTreeAutoscaling",
        "gcsFaultToleranceOptions",
        "headGroupSpec",
        "headServiceAnnotations",
        "managedBy",
        "rayVersion",
        "suspend",
        "workerGroupSpecs",
    },
    "AutoscalerOptions": {
        "env",
        "envFrom",
        "idleTimeoutSeconds",
        "image",
        "imagePullPolicy",
        "resources",
        "securityContext",
        "upscalingMode",
        "version",
        "volumeMounts",
    },
    "HeadGroupSpec": {"enableIngress", "headService", "rayStartParams", "serviceType", "template"},
    "WorkerGroupSpec": {
        "groupName",
        "idleTimeoutSeconds",
        "maxReplicas",
        "minReplicas",
        "numOfHosts",
        "rayStartParams",
        "replicas",
        "scaleStrategy",
        "suspend",
        "template",
    },
}


def service() -> Any:
    return one("overlays/ray", "RayService")["spec"]


def groups() -> list[Any]:
    cluster = service()["rayClusterConfig"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def test_each_field_is_one_that_kuberay_documents() -> None:
    spec, cluster = service(), service()["rayClusterConfig"]
    head, *workers = groups()
    assert spec.keys() <= FIELDS["RayServiceSpec"]
    assert cluster.keys() <= FIELDS["RayClusterSpec"]
    assert cluster["autoscalerOptions"].keys() <= FIELDS["AutoscalerOptions"]
    assert head.keys() <= FIELDS["HeadGroupSpec"]
    assert all(worker.keys() <= FIELDS["WorkerGroupSpec"] for worker in workers)
    assert spec["upgradeStrategy"]["type"] in ("NewCluster", "None")
    assert all(w["minReplicas"] <= w["replicas"] <= w["maxReplicas"] for w in workers)
    assert all(isinstance(v, str) for group in groups() for v in group["rayStartParams"].values())


# Ray's own code, as it is imported.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_ray_accepts_the_application_and_the_options_of_each_pod() -> None:
    ray = pytest.importorskip("ray")
    from ray.scripts.scripts import start
    from ray.serve.schema import ServeDeploySchema

    config = yaml.safe_load(service()["serveConfigV2"])
    (application,) = ServeDeploySchema.model_validate(config).applications
    assert (application.route_prefix, config["http_options"]) == ("/", {"host": "0.0.0.0", "port": 8000})
    dumped = ServeDeploySchema.model_validate(config).model_dump(exclude_unset=True)
    assert dumped.keys() == config.keys()
    options = {name.removeprefix("--") for parameter in start.params for name in parameter.opts}
    assert {name for group in groups() for name in group["rayStartParams"]} <= options
    assert service()["rayClusterConfig"]["rayVersion"] == ray.__version__


def test_the_application_is_one_of_this_package() -> None:
    config = yaml.safe_load(service()["serveConfigV2"])
    (application,) = config["applications"]
    module, _, attribute = application["import_path"].partition(":")
    pytest.importorskip("ray")
    if importlib.util.find_spec("rootstock.service.cluster") is None:
        pytest.skip("this release has no rootstock.service.cluster")
    assert callable(getattr(importlib.import_module(module), attribute))


def test_the_pods_of_requests_are_ready_by_their_proxy_and_need_no_wget() -> None:
    head, worker = map(container, pod_templates("overlays/ray"))
    for own in (head, worker):
        ports = {port["name"]: port["containerPort"] for port in own["ports"]}
        probes = [own[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")]
        assert {probe["port"] for probe in probes} <= ports.keys()
    serve = yaml.safe_load(service()["serveConfigV2"])["http_options"]["port"]
    assert worker["readinessProbe"]["httpGet"] == {"path": "/-/healthz", "port": "serve"}
    assert {"name": "serve", "containerPort": serve} in worker["ports"]


def test_only_clients_of_the_application_and_the_operator_reach_the_pods() -> None:
    policy = one("overlays/ray", "NetworkPolicy")["spec"]
    own, clients, operator = policy["ingress"]
    assert own == {"from": [{"podSelector": policy["podSelector"]}]}
    assert clients == {"ports": [{"protocol": "TCP", "port": "serve"}]}
    # Whoever reaches the dashboard can run any code.
    (asked,) = operator["from"]
    assert asked["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "kuberay-operator"}
    assert [port["port"] for port in operator["ports"]] == ["dashboard", "serve"]
