"""The dashboard, the alert rules and the page on metrics name what a real server's /metrics shows, no more."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.live_server import RunningServer, upload
from tests.peft_adapters import PeftAdapter
from tests.service.generating_server import CHAT, run_generating_server

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "deploy/grafana/rootstock.json").read_text())
RULES = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yaml").read_text())["groups"]
PROMETHEUS = ROOT / "deploy/prometheus/prometheus.yaml"
# What Prometheus itself puts on every series of a target.
ADDED = {"instance", "job"}
ALERTS = {rule["alert"]: rule["expr"] for group in RULES for rule in group["rules"]}
TARGETS = {
    f"{panel['id']} {panel['title']} {target['refId']}": target
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", ())
}
PANELS = {where: target["expr"] for where, target in TARGETS.items()}
VARIABLES = {
    variable["name"]: variable["query"]["query"]
    for variable in DASHBOARD["templating"]["list"]
    if variable["type"] == "query"
}
EXPRESSIONS = {**ALERTS, **PANELS, **VARIABLES}


@pytest.fixture(scope="module")
def server(new_home: Callable[[], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with run_generating_server(new_home(), tmp_path_factory.mktemp("llama")) as running:
        yield running


@pytest.fixture(scope="module")
def shown(client: httpx.Client, peft_saved: dict[str, PeftAdapter]) -> dict[str, set[str]]:
    """The labels of each sample's name that a server shows once it has done a little of everything."""
    assert upload(client, "mood", peft_saved["first"].zip()).status_code == 201
    assert client.post("/v1/predict", json={"model": "mood", "inputs": "Fine."}).status_code == 200
    halved = {"adapters": [{"model": "mood", "weight": 0.5}], "inputs": "Fine."}
    assert client.post("/v1/predict", json=halved).status_code == 200
    assert client.post("/v1/chat/completions", json=CHAT).status_code == 200
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def selectors(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Each metric of ours in a PromQL expression, with the labels that it is selected by."""
    for name, inside in re.findall(r"\b(rootstock_\w+)(?:\{([^}]*)\})?", expression):
        yield name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", inside))


def grouped(expression: str) -> set[str]:
    """The labels that a PromQL expression groups by."""
    return {
        label.strip()
        for labels in re.findall(r"\b(?:by|without|on|ignoring) \(([^)]*)\)", expression)
        for label in labels.split(",")
    }


@pytest.mark.parametrize("where", EXPRESSIONS)
def test_a_query_names_metrics_and_labels_that_the_server_shows(where: str, shown: dict[str, set[str]]) -> None:
    expression = EXPRESSIONS[where]
    used = list(selectors(expression))
    assert used or expression.startswith("up{"), "it asks for nothing of ours"
    for name, labels in used:
        assert name in shown, f"{name} is not in /metrics"
        assert labels <= shown[name] | ADDED, f"{name} has the labels {shown[name]}"
    known = ADDED.union(*(shown[name] for name, _ in used))
    assert grouped(expression) <= known


@pytest.mark.parametrize("where", TARGETS)
def test_a_legend_names_labels_that_its_query_leaves(where: str) -> None:
    target = TARGETS[where]
    assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= grouped(target["expr"])


@pytest.mark.parametrize("rule", [rule for group in RULES for rule in group["rules"]], ids=lambda r: r["alert"])
def test_an_alert_says_what_happened_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    annotations = rule["annotations"]
    assert set(annotations) == {"summary", "description"}
    told = set(re.findall(r"\$labels\.(\w+)", "".join(annotations.values())))
    left = grouped(rule["expr"]) if " by (" in rule["expr"] else {"instance", "tier"}
    assert told <= left


def test_panels_do_not_overlap_and_every_variable_that_they_use_is_declared() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    declared = {variable["name"] for variable in DASHBOARD["templating"]["list"]} | {"__rate_interval"}
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD["panels"]))) <= declared
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_prometheus_reads_the_rules_and_scrapes_where_the_server_serves() -> None:
    config = yaml.safe_load(PROMETHEUS.read_text())
    assert config["rule_files"] == ["alerts.yaml"]
    (job,) = config["scrape_configs"]
    assert job["job_name"] == "rootstock"
    assert "metrics_path" not in job, "/metrics is Prometheus's default"


def test_grafana_s_provisioning_is_the_dashboard_s_data_source_and_folder() -> None:
    provisioning = ROOT / "deploy/grafana/provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())["datasources"]
    (chosen,) = (v for v in DASHBOARD["templating"]["list"] if v["type"] == "datasource")
    assert (source["uid"], source["type"]) == (chosen["current"]["value"], "prometheus")
    (provider,) = yaml.safe_load((provisioning / "dashboards/rootstock.yaml").read_text())["providers"]
    assert provider["type"] == "file"


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.parametrize("command", [["check", "rules", "alerts.yaml"], ["check", "config", "prometheus.yaml"]])
def test_promtool_accepts_the_files(command: list[str]) -> None:
    done = subprocess.run(
        ["promtool", *command], cwd=PROMETHEUS.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_on_metrics_lists_each_with_its_type_and_labels(client: httpx.Client, shown: object) -> None:
    page = (ROOT / "docs/operations.md").read_text()
    rows = re.findall(r"^\| `(rootstock_\w+)` \| (\w+) \|(.*?)\| .+ \|$", page, re.MULTILINE)
    told = {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    assert len(told) == len(rows), "a metric is listed twice"
    shows = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        shows[name] = (family.type, labels)
    assert told == shows
