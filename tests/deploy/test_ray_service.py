"""The RayService of deploy/kubernetes: by Ray's own schema and commands, and by what KubeRay documents."""

from __future__ import annotations

import importlib
import math
from typing import Any

import pytest
import yaml

from tests.deploy.kustomize import container, needs_kubectl, one, pod_templates

pytestmark = needs_kubectl
# The fields of ray.io/v1, by the reference of KubeRay 1.6 in Ray's documentation. No package has their schema.
FIELDS = {
    "RayServiceSpec": {
        "excludeHeadPodFromServeSvc",
        "rayClusterConfig",
        "serveConfigV2",
        "serveService",
        "upgradeStrategy",
    },
    "RayClusterSpec": {
        "authOptions",
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
    import ray
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


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_application_is_built_of_its_arguments_and_the_pod_s_settings_and_holds_no_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ray.serve import Application

    (declared,) = yaml.safe_load(service()["serveConfigV2"])["applications"]
    module, _, attribute = declared["import_path"].partition(":")
    build = getattr(importlib.import_module(module), attribute)
    with pytest.raises(ValueError, match="set ROOTSTOCK_REGISTRY_URL"):
        build(declared["args"])
    monkeypatch.setenv("ROOTSTOCK_REGISTRY_URL", "postgresql+psycopg://rootstock:secret-1@db/rootstock")
    monkeypatch.setenv("ROOTSTOCK_STORE_URL", "s3://bundles/production")
    monkeypatch.setenv("ROOTSTOCK_ADMIN_KEY", "secret-2-0123456789")
    built = build(declared["args"])
    assert isinstance(built, Application)
    ingress = built._bound_deployment
    replicas, plan = ingress.init_args
    assert (plan.replicas, plan.most_replicas, plan.cpus) == (2, 8, 2)
    held = repr((plan, replicas._bound_deployment.init_args))
    assert "secret" not in held
    assert plan.settings == {"ROOTSTOCK_THREADS": "2"}
    # A pod has room for a replica and an ingress, and there are pods for all replicas, also during an update.
    (worker,) = groups()[1:]
    needed = sum(one.ray_actor_options["num_cpus"] for one in (ingress, replicas._bound_deployment))
    assert float(container(worker["template"])["resources"]["limits"]["cpu"]) >= needed
    surge = math.ceil(plan.most_replicas * replicas._bound_deployment._deployment_config.max_surge_percent / 100)
    assert surge > 0
    assert (worker["minReplicas"], worker["maxReplicas"]) == (plan.replicas, plan.most_replicas + surge)
    with pytest.raises(ValueError, match="replica is no argument of the application; known: by_adapter, cpus"):
        build({"replica": 3})


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
    # Whoever reaches the dashboard can run any code, unless a token is asked for.
    assert service()["rayClusterConfig"]["authOptions"] == {"mode": "token"}
    (asked,) = operator["from"]
    assert asked["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "kuberay-operator"}
    assert [port["port"] for port in operator["ports"]] == ["dashboard", "serve"]
