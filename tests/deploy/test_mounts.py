"""What deploy/compose.yaml mounts into Prometheus and Grafana, and what these files say of each other."""

from __future__ import annotations

from pathlib import Path

import yaml

from rootstock.service.settings import Settings
from tests.deploy.test_compose import DEPLOY, compose


def test_what_is_mounted_lies_in_the_tree() -> None:
    for service in compose()["services"].values():
        for mount in service["volumes"]:
            if mount.endswith(":ro"):
                assert (DEPLOY / mount.split(":")[0]).exists(), mount


def test_prometheus_reads_its_configuration_from_what_is_mounted() -> None:
    service = compose()["services"]["prometheus"]
    (mount,) = (v.split(":") for v in service["volumes"] if v.endswith(":ro"))
    (flag,) = (a for a in service["command"] if a.startswith("--config.file="))
    inside = Path(flag.partition("=")[2])
    assert (DEPLOY / mount[0] / inside.relative_to(mount[1])).is_file()


def test_prometheus_and_grafana_name_each_other_s_and_the_server_s_service_and_port() -> None:
    services = compose()["services"]
    scrape = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text())["scrape_configs"]
    targets = [t for job in scrape for group in job.get("static_configs", []) for t in group["targets"]]
    assert f"rootstock:{Settings().port}" in targets
    (source,) = (DEPLOY / "grafana" / "provisioning" / "datasources").iterdir()
    urls = [one["url"] for one in yaml.safe_load(source.read_text())["datasources"]]
    assert urls == ["http://prometheus:9090"]
    assert {"rootstock", "prometheus"} <= services.keys()
    (provider,) = (DEPLOY / "grafana" / "provisioning" / "dashboards").glob("*.yaml")
    (folder,) = (one["options"]["path"] for one in yaml.safe_load(provider.read_text())["providers"])
    mounted = [v.split(":")[1] for v in services["grafana"]["volumes"] if "rootstock.json" in v]
    assert [str(Path(path).parent) for path in mounted] == [folder]
