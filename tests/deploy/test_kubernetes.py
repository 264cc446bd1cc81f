"""deploy/kubernetes: by Kubernetes' own schema, and by the server that it starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from rootstock.service.app import create_app
from rootstock.service.settings import Settings
from tests.deploy.conftest import ROOT
from tests.deploy.image import instructions
from tests.deploy.settings import read

FOLDER = ROOT / "deploy" / "kubernetes"
FILES = sorted(FOLDER.glob("*.yaml"))
TEMPLATE = ROOT / "deploy" / "image" / "Dockerfile.template"


def loaded(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


def pod() -> Any:
    return loaded("deployment.yaml")["spec"]["template"]["spec"]


def container() -> Any:
    (only,) = pod()["containers"]
    return only


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_manifest_is_valid_by_kubernetes_schema_with_no_unknown_field(path: Path) -> None:
    for document in yaml.safe_load_all(path.read_text()):
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_there_is_never_a_second_pod_on_the_volume() -> None:
    spec = loaded("deployment.yaml")["spec"]
    assert (spec["replicas"], spec["strategy"]["type"]) == (1, "Recreate")
    claims = [v["persistentVolumeClaim"]["claimName"] for v in pod()["volumes"] if "persistentVolumeClaim" in v]
    assert claims == [loaded("volume.yaml")["metadata"]["name"]]


def test_no_service_link_becomes_a_setting() -> None:
    """For a service named rootstock they would be ROOTSTOCK_PORT=tcp://… and names that the server refuses."""
    assert loaded("service.yaml")["metadata"]["name"] == "rootstock"
    assert pod()["enableServiceLinks"] is False


def test_the_pod_is_not_root_s_and_writes_to_its_volumes_alone() -> None:
    security, own = pod()["securityContext"], container()["securityContext"]
    assert security["runAsNonRoot"]
    assert min(security["runAsUser"], security["runAsGroup"], security["fsGroup"]) > 0
    assert own["readOnlyRootFilesystem"]
    assert own["allowPrivilegeEscalation"] is False
    assert own["capabilities"] == {"drop": ["ALL"]}
    (volume,) = (json.loads(rest) for word, rest in instructions(TEMPLATE.read_text()) if word == "VOLUME")
    mounts = {mount["name"]: mount["mountPath"] for mount in container()["volumeMounts"]}
    assert mounts == {"data": volume[0], "tmp": "/tmp"}
    assert mounts.keys() == {volume["name"] for volume in pod()["volumes"]}


def test_the_pod_takes_connections_on_its_port_alone_and_opens_none_but_to_dns() -> None:
    spec = loaded("network-policy.yaml")["spec"]
    labels = loaded("deployment.yaml")["spec"]["template"]["metadata"]["labels"]
    assert spec["podSelector"]["matchLabels"] == labels
    # A policy that lists only one type leaves the other direction open.
    assert set(spec["policyTypes"]) == {"Ingress", "Egress"}
    (inward,) = spec["ingress"]
    (port,) = container()["ports"]
    assert inward["ports"] == [{"protocol": "TCP", "port": port["name"]}]
    (outward,) = spec["egress"]
    (dns,) = outward["to"]
    assert dns.keys() == {"namespaceSelector", "podSelector"}
    assert {(p["protocol"], p["port"]) for p in outward["ports"]} == {("UDP", 53), ("TCP", 53)}


def test_the_rules_that_the_network_policy_offers_in_comments_are_valid_too() -> None:
    path = FOLDER / "network-policy.yaml"
    _, marker, offered = path.read_text().partition("    # - to:\n")
    extended = path.read_text() + "".join(
        line.replace("    # ", "    ", 1) for line in (marker + offered).splitlines(keepends=True)
    )
    policy = yaml.safe_load(extended)
    assert len(policy["spec"]["egress"]) == 3
    kubernetes_validate.validate(policy, kubernetes_validate.latest_version(), strict=True)


def test_the_settings_are_known_and_the_keys_come_from_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {entry["name"]: entry.get("value", "1" * 16) for entry in container()["env"]}
    settings = read(given, monkeypatch)
    secrets = {e["name"] for e in container()["env"] if "secretKeyRef" in e.get("valueFrom", {})}
    assert secrets == {"ROOTSTOCK_ADMIN_KEY", "ROOTSTOCK_API_KEY"}
    grace = pod()["terminationGracePeriodSeconds"]
    assert grace > settings.drain_delay + settings.grace_period


def test_probes_and_scraping_reach_routes_of_the_app_on_its_port() -> None:
    app = create_app(Settings())
    (port,) = container()["ports"]
    assert port == {"name": "http", "containerPort": Settings().port}
    probes = {kind: container()[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")}
    assert {probe["port"] for probe in probes.values()} == {"http"}
    assert {kind: probe["path"] for kind, probe in probes.items()} == {
        "startup": "/livez",
        "readiness": "/readyz",
        "liveness": "/livez",
    }
    (scraped,) = loaded("monitoring/service-monitor.yaml")["spec"]["endpoints"]
    asked = {probe["path"] for probe in probes.values()} | {scraped["path"]}
    assert all(app.url_path_for(path.removeprefix("/")) == path for path in asked)
    (service_port,) = loaded("service.yaml")["spec"]["ports"]
    assert (service_port["targetPort"], service_port["name"]) == ("http", scraped["port"])


def test_the_service_and_its_monitor_select_the_pods() -> None:
    deployment, service = loaded("deployment.yaml"), loaded("service.yaml")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels == service["spec"]["selector"]
    monitor = loaded("monitoring/service-monitor.yaml")["spec"]["selector"]["matchLabels"]
    assert monitor.items() <= service["metadata"]["labels"].items()
