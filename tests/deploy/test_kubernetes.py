"""deploy/kubernetes, built with kubectl: by the schemas of its kinds, and by the server that it starts."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from rootstock.service.app import create_app
from rootstock.service.settings import PREFIX, Settings
from rootstock.service.telemetry.metrics import Metrics
from tests.deploy.conftest import ROOT
from tests.deploy.image import instructions
from tests.deploy.kustomize import (
    FOLDER,
    build,
    container,
    environment,
    needs_kubectl,
    objects,
    one,
    pod_templates,
    selects,
)
from tests.deploy.settings import read

pytestmark = needs_kubectl
OVERLAYS = ("overlays/one-server", "overlays/replicas", "overlays/ray")
SERVERS = OVERLAYS[:2]
EVERY = (*OVERLAYS, "adapters")
TEMPLATE = ROOT / "deploy" / "image" / "Dockerfile.template"
# The models of each kind that Kubernetes itself does not know. KubeRay's are in no package.
MODELS = {
    "ServiceMonitor": "cloudcoil.models.prometheus_operator.v1",
    "ScaledObject": "cloudcoil.models.keda.v1alpha1",
}
PODS = [(folder, i) for folder in EVERY for i in range(2 if folder == "overlays/ray" else 1)]


def check_schema(made: Any) -> None:
    """Raise an error unless an object is valid by the schema of its kind, with no field that it does not know."""
    if made["kind"] in MODELS:
        model = getattr(importlib.import_module(MODELS[made["kind"]]), made["kind"])
        # The models drop fields that they do not know.
        assert model.model_validate(made).model_dump(mode="json", by_alias=True, exclude_unset=True) == made
    else:
        kubernetes_validate.validate(made, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("folder", EVERY)
def test_every_object_of_kubernetes_is_valid_by_its_schema_with_no_unknown_field(folder: str) -> None:
    for made in objects(folder):
        if made["kind"] not in (*MODELS, "RayService"):
            check_schema(made)
    names = [(made["kind"], made["metadata"]["name"]) for made in objects(folder)]
    assert len(set(names)) == len(names)


# The models of the Prometheus operator take seconds to import.
@pytest.mark.parametrize("kind", ["ScaledObject", pytest.param("ServiceMonitor", marks=pytest.mark.slow)])
def test_an_object_of_another_project_is_valid_by_its_schema_with_no_unknown_field(kind: str) -> None:
    made = one("overlays/replicas", kind)
    check_schema(made)
    with pytest.raises(AssertionError):
        check_schema({**made, "spec": {**made["spec"], "nonsense": 1}})


@pytest.mark.parametrize(("folder", "index"), PODS)
def test_a_pod_is_valid_also_where_another_kind_holds_its_template(folder: str, index: int) -> None:
    template = pod_templates(folder)[index]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", **template["metadata"]}}
    kubernetes_validate.validate(
        {**pod, "spec": template["spec"]}, kubernetes_validate.latest_version(), strict=True
    )


@pytest.mark.parametrize(("folder", "index"), PODS)
def test_a_pod_is_not_root_s_and_writes_to_its_volumes_alone(folder: str, index: int) -> None:
    template = pod_templates(folder)[index]
    spec, own = template["spec"], container(template)
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert min(value for key, value in spec["securityContext"].items() if key in ("runAsUser", "runAsGroup")) > 0
    assert own["securityContext"] == {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    mounts = {mount["name"]: mount["mountPath"] for mount in own["volumeMounts"]}
    assert mounts.keys() == {volume["name"] for volume in spec["volumes"]}
    assert mounts["tmp"] == "/tmp"
    if folder != "adapters":
        (volume,) = (json.loads(rest) for word, rest in instructions(TEMPLATE.read_text()) if word == "VOLUME")
        assert mounts["data"] == volume[0]
    # For a Service named rootstock the links would be ROOTSTOCK_PORT=tcp://… and names that the server refuses.
    assert spec["enableServiceLinks"] is False
    # The head of a Ray cluster adds and removes pods.
    assert spec.get("automountServiceAccountToken") is (None if own["name"] == "ray-head" else False)
    assert own["resources"]["requests"].keys() == {"cpu", "memory"}
    assert "memory" in own["resources"]["limits"]


@pytest.mark.parametrize(("folder", "index"), [pod for pod in PODS if pod[0] != "adapters"])
def test_the_environment_is_settings_that_exist_and_secrets_by_reference(
    folder: str, index: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = pod_templates(folder)[index]
    entries = environment(template)
    examples = {
        "ROOTSTOCK_THREADS": "2",
        "ROOTSTOCK_REGISTRY_URL": "postgresql+psycopg://db/rootstock",
        "ROOTSTOCK_STORE_URL": "s3://bundles/production",
    }
    settings = read(
        {name: entry.get("value", examples.get(name, "k" * 16)) for name, entry in entries.items()}, monkeypatch
    )
    secret = {name for name, entry in entries.items() if "secretKeyRef" in entry.get("valueFrom", {})}
    assert {n for n in entries if re.search("KEY|SECRET|REGISTRY_URL", n)} <= secret
    assert {"ROOTSTOCK_ADMIN_KEY", "ROOTSTOCK_API_KEY"} <= secret
    shared = folder != "overlays/one-server"
    assert bool(settings.registry_url) == bool(settings.store_url) == shared
    # AWS's names are those that s3fs reads.
    others = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"} if shared else set()
    others |= {"RAY_TMPDIR"} if folder == "overlays/ray" else set()
    assert {name for name in entries if not name.startswith(PREFIX)} == others
    grace = template["spec"]["terminationGracePeriodSeconds"]
    drain = 0 if folder == "overlays/ray" else settings.drain_delay
    assert grace >= drain + settings.grace_period + 5
    if folder in SERVERS:
        assert settings.drain_delay >= 5


@pytest.mark.parametrize("folder", SERVERS)
def test_probes_and_scraping_reach_routes_of_the_app_on_its_port(folder: str) -> None:
    app = create_app(Settings())
    (template,) = pod_templates(folder)
    own = container(template)
    assert own["ports"] == [{"name": "http", "containerPort": Settings().port}]
    probes = {kind: own[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")}
    # Without the registry, replicas go on with what is in memory.
    ready = "/readyz" if folder == "overlays/one-server" else "/readyz?exclude=registry"
    assert {kind: probe["path"] for kind, probe in probes.items()} == {
        "startup": "/livez",
        "readiness": ready,
        "liveness": "/livez",
    }
    assert {probe["port"] for probe in probes.values()} == {"http"}
    monitor = yaml.safe_load((FOLDER / "components/monitoring/service-monitor.yaml").read_text())
    (scraped,) = monitor["spec"]["endpoints"]
    for path in (*(probe["path"] for probe in probes.values()), scraped["path"]):
        route = path.partition("?")[0]
        assert app.url_path_for(route.removeprefix("/")) == route
    service = one(folder, "Service")
    (port,) = service["spec"]["ports"]
    assert (port["targetPort"], port["name"]) == ("http", scraped["port"])
    assert selects(monitor["spec"]["selector"]["matchLabels"], service["metadata"]["labels"])


@pytest.mark.parametrize("folder", EVERY)
def test_selectors_find_the_pods_that_they_are_for(folder: str) -> None:
    labels = [template["metadata"]["labels"] for template in pod_templates(folder)]
    chosen = {}
    for made in objects(folder):
        spec = made.get("spec", {})
        if made["kind"] == "Service":
            chosen["Service"] = spec["selector"]
        elif made["kind"] == "NetworkPolicy":
            chosen["NetworkPolicy"] = spec["podSelector"]["matchLabels"]
        elif made["kind"] in ("Deployment", "PodDisruptionBudget"):
            chosen[made["kind"]] = spec["selector"]["matchLabels"]
    for template in pod_templates(folder):
        for rule in template["spec"].get("topologySpreadConstraints", ()):
            assert selects(rule["labelSelector"]["matchLabels"], template["metadata"]["labels"])
    matched = {kind: [selects(selector, of) for of in labels] for kind, selector in chosen.items()}
    # Ray's head is one, and no budget can keep it.
    budget = matched.pop("PodDisruptionBudget", None)
    assert budget == {"overlays/replicas": [True], "overlays/ray": [False, True]}.get(folder)
    assert all(all(found) for found in matched.values())


def test_there_is_never_a_second_pod_on_the_volume() -> None:
    spec = one("overlays/one-server", "Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    claims = [
        v["persistentVolumeClaim"]["claimName"]
        for v in spec["template"]["spec"]["volumes"]
        if "persistentVolumeClaim" in v
    ]
    assert claims == [one("overlays/one-server", "PersistentVolumeClaim")["metadata"]["name"]]


def test_an_update_and_a_drain_take_away_no_replica_that_is_needed() -> None:
    spec = one("overlays/replicas", "Deployment")["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert one("overlays/replicas", "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    # Ray's pods have no controller with a scale, and then a budget knows `minAvailable` as a number alone.
    (group,) = one("overlays/ray", "RayService")["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    assert one("overlays/ray", "PodDisruptionBudget")["spec"]["minAvailable"] == group["minReplicas"] - 1 > 0
    # Replicas share no volume.
    (template,) = pod_templates("overlays/replicas")
    assert all("emptyDir" in volume for volume in template["spec"]["volumes"])


def test_scaling_asks_for_metrics_that_the_server_has_and_for_pods_of_its_deployment() -> None:
    scaled, deployment = one("overlays/replicas", "ScaledObject")["spec"], one("overlays/replicas", "Deployment")
    assert scaled["scaleTargetRef"] == {"kind": "Deployment", "name": deployment["metadata"]["name"]}
    # A number in the manifest would set the replicas back with each `kubectl apply`.
    assert "replicas" not in deployment["spec"]
    open_page = Metrics().render(to_operator=False).decode()
    names = set(re.findall(r"^(rootstock_\w+)", open_page, re.MULTILINE))
    jobs = {one("overlays/replicas", "Service")["metadata"]["name"]}
    for trigger in scaled["triggers"]:
        query = trigger["metadata"]["query"]
        assert set(re.findall(r"rootstock_\w+", query)) <= names
        assert set(re.findall(r'job="(\w+)"', query)) == jobs
        assert trigger["metricType"] == "AverageValue", "the fallback needs an average"


@pytest.mark.parametrize("folder", SERVERS)
def test_the_pod_takes_connections_on_its_port_alone_and_opens_few(folder: str) -> None:
    spec = one(folder, "NetworkPolicy")["spec"]
    # A policy that lists only one type leaves the other direction open.
    assert set(spec["policyTypes"]) == {"Ingress", "Egress"}
    (inward,) = spec["ingress"]
    assert inward["ports"] == [{"protocol": "TCP", "port": "http"}]
    dns, *others = spec["egress"]
    assert dns["to"][0].keys() == {"namespaceSelector", "podSelector"}
    assert {(p["protocol"], p["port"]) for p in dns["ports"]} == {("UDP", 53), ("TCP", 53)}
    opened = [port["port"] for rule in others for port in rule["ports"]]
    assert opened == ([] if folder == "overlays/one-server" else [5432, 443])


def test_the_rules_that_the_network_policy_offers_in_comments_are_valid_too() -> None:
    path = FOLDER / "base" / "network-policy.yaml"
    _, marker, offered = path.read_text().partition("    # - to:\n")
    extended = path.read_text() + "".join(
        line.replace("    # ", "    ", 1) for line in (marker + offered).splitlines(keepends=True)
    )
    policy = yaml.safe_load(extended)
    assert len(policy["spec"]["egress"]) == 3
    kubernetes_validate.validate(policy, kubernetes_validate.latest_version(), strict=True)


def test_the_gateway_s_component_switches_the_metrics_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overlay = tmp_path / "kustomization.yaml"
    # kustomize reads no absolute path.
    up = "/".join([".."] * (len(tmp_path.resolve().parts) - 1))
    lines = {"resources": "overlays/replicas", "components": "components/gateway"}
    overlay.write_text("".join(f"{key}: [{up}{FOLDER.resolve()}/{path}]\n" for key, path in lines.items()))
    (deployment,) = (made for made in build(tmp_path) if made["kind"] == "Deployment")
    check_schema(deployment)
    value = environment(deployment["spec"]["template"])["ROOTSTOCK_GATEWAY_METRICS"]["value"]
    assert read({"ROOTSTOCK_GATEWAY_METRICS": value}, monkeypatch).gateway_metrics == "open"
