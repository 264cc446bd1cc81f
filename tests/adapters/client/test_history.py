"""The history of an adapter and the difference of two versions, by both clients and by the command line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from rootstock.adapters.cli.adapter_commands import app
from rootstock.adapters.cli.event_sentences import sentence
from rootstock.adapters.cli.history_commands import difference_lines
from rootstock.adapters.cli.output import tell
from rootstock.adapters.client.async_client import AsyncClient
from rootstock.adapters.client.client import Client
from rootstock.adapters.client.errors import Misused, NotFound
from rootstock.adapters.client.history.event_flows import EventEntry
from rootstock.adapters.client.history.version_diff import VersionDiff
from tests.adapters.client.conftest import Awaited
from tests.live_server import RunningServer
from tests.peft_adapters import PeftAdapter, with_card


@pytest.fixture(scope="module")
def told(live: RunningServer, saved: dict[str, PeftAdapter]) -> Iterator[Client]:
    """A client of a server that has two versions of `told`, of which the first is live again."""
    with Client(live.url) as client:
        one = with_card(saved["mood"], "---\nlicense: mit\n---\n# Moods\n\nOf 100 texts.\n")
        two = with_card(saved["mood"], "---\nlicense: mit\n---\n# Moods\n\nOf 200 texts.\n")
        client.push(one, "told", labels=("neutral", "glad", "angry"))
        client.push(two, "told", labels=("glad", "neutral", "cross"), max_length=32)
        client.rollback("told")
        yield client


@pytest.fixture
def run(live: RunningServer, told: Client, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.delenv("ROOTSTOCK_ADMIN_KEY", raising=False)
    return lambda *words: CliRunner().invoke(app, ["--url", live.url, *map(str, words)])


def test_the_history_of_an_adapter_is_its_events_newest_first_by_both_clients(
    live: RunningServer, told: Client
) -> None:
    events = told.history("told")
    assert [one.what for one in events] == ["rolled_back", "alias_set", "published", "alias_set", "published"]
    assert events[0].detail == {"before": 2, "after": 1}
    assert events[1].detail == {"before": 1, "after": 2}
    assert told.history("told", 2) == events[:2]
    assert told.history(limit=1)[0].name == "told"
    with closing(Awaited(AsyncClient(live.url), asyncio.Runner())) as client:
        assert client.history("told") == events


def test_a_history_longer_than_a_page_is_fetched_in_pages(told: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = told.history("told")
    monkeypatch.setattr("rootstock.adapters.client.history.event_flows._PAGE", 2)
    assert told.history("told") == whole
    assert told.history("told", 3) == whole[:3]


def test_the_history_of_nobody_is_refused_and_so_is_an_empty_one(told: Client) -> None:
    with pytest.raises(NotFound):
        told.history("nobody")
    with pytest.raises(Misused, match="limit is 0"):
        told.history("told", 0)


def test_a_difference_states_fields_labels_targets_figures_and_the_card(
    live: RunningServer, told: Client
) -> None:
    found = told.diff("told", 1, 2)
    changed = {one.field: (one.before, one.after) for one in found.changes}
    shown = {one.version: one for one in told.show("told").versions}
    assert changed["digest"] == (shown[1].digest, shown[2].digest)
    assert changed["max_length"][1] == 32
    assert not {"task", "kind", "ranks", "licence"} & changed.keys()
    assert (found.labels_added, found.labels_removed, found.labels_moved) == (("cross",), ("angry",), True)
    assert (found.targets_added, found.targets_removed) == ((), ())
    assert [line for line in found.card if line[:1] in "+-"][2:] == ["-Of 100 texts.", "+Of 200 texts."]
    with closing(Awaited(AsyncClient(live.url), asyncio.Runner())) as client:
        assert client.diff("told", 1, 2) == found
    with pytest.raises(NotFound):
        told.diff("told", 1, 9)


def test_a_version_does_not_differ_from_itself(told: Client, run: Callable[..., Result]) -> None:
    found = told.diff("told", 1, 1)
    assert (found.changes, found.labels_added, found.card) == ((), (), ())
    assert run("diff", "told", 1, 1).stdout == "versions 1 and 1 are the same\n"


def test_the_commands_print_lines_or_the_documents(told: Client, run: Callable[..., Result]) -> None:
    lines = run("history", "told", "--limit", 3).stdout.splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == [
        "default: rolled back, live: version 2 → version 1",
        "default: live: version 1 → version 2",
        f"default: version 2 published ({told.show('told').versions[1].digest[:19]})",
    ]
    assert lines[0].startswith(told.history("told", 1)[0].at[:19].replace("T", " "))
    assert run("history", "--limit", 1).stdout.split(" ", 2)[2].startswith("default: told: rolled back")
    printed = json.loads(run("history", "told", "--json").stdout)
    assert printed == {"events": [one.document for one in told.history("told")]}
    shown = run("diff", "told", 1, 2).stdout
    for text in ("max_length", "labels added: cross", "labels removed: angry", "+Of 200 texts."):
        assert text in shown
    assert json.loads(run("diff", "told", 1, 2, "--json").stdout) == told.diff("told", 1, 2).document


def test_figures_stand_side_by_side() -> None:
    def version(number: int, accuracy: float, **more: float) -> dict[str, Any]:
        figures = {"accuracy": accuracy, **more}
        evaluation = {"adapter": figures, "intervals": {"accuracy": [0.1, 0.2]}, "split": "test"}
        return {"version": number, "digest": f"sha256:{number}", "description": {"evaluation": evaluation}}

    found = VersionDiff.of("a", (version(1, 0.5, f1=0.25), version(2, 0.75)), ("", ""))
    assert [(one.name, one.before, one.after) for one in found.figures] == [
        ("adapter.accuracy", 0.5, 0.75),
        ("adapter.f1", 0.25, None),
    ]


def test_the_lines_of_a_difference_leave_out_equal_figures_and_shorten_digests(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def version(number: int, accuracy: float) -> dict[str, Any]:
        evaluation = {"adapter": {"accuracy": accuracy, "rows": 120, "macro_f1": 0.5}}
        digest = f"sha256:{number:064x}"
        return {"version": number, "digest": digest, "description": {"evaluation": evaluation}}

    tell({}, False, *difference_lines(VersionDiff.of("a", (version(1, 0.5), version(2, 0.75)), ("", ""))))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1:] for line in lines if "accuracy" in line] == [["0.5", "0.75", "+0.25"]]
    assert not any("rows" in line for line in lines)
    assert lines[-1] == "figures that are the same: 2; see them with --json"
    assert [line.split()[1:] for line in lines if "digest" in line] == [["sha256:000000000000"] * 2]


RULE = {"window_seconds": 300.0, "min_requests": 50, "max_error_rate": 0.05, "max_disagreement": None}
JUDGED = {"reason": "max_disagreement", "measured": 0.4, "limit": 0.1, "requests": 57}


@pytest.mark.parametrize(
    ("what", "version", "alias", "detail", "told"),
    [
        ("alias_set", 2, "prod", {"before": None, "after": 2}, "prod: none → version 2"),
        (
            "rolled_back",
            1,
            "live",
            {"before": 2, "after": 1, **JUDGED},
            "rolled back, live: version 2 → version 1 because of max_disagreement "
            "(measured 0.4, limit 0.1, requests 57)",
        ),
        (
            "split_set",
            None,
            "live",
            {"before": {}, "after": {"4": 10.0, "5": 2.5}},
            "split of live: none → version 4 with 10 %, version 5 with 2.5 %",
        ),
        (
            "split_ended",
            None,
            "prod",
            {"before": {"4": 10.0}, "after": None},
            "split of prod: version 4 with 10 % → none",
        ),
        (
            "shadow_set",
            4,
            None,
            {"before": None, "after": {"version": 4, "percent": 20.0}},
            "shadow: none → version 4 with 20 %",
        ),
        (
            "shadow_ended",
            4,
            None,
            {"before": {"version": 4, "percent": 20.0}, "after": None},
            "shadow: version 4 with 20 % → none",
        ),
        (
            "rule_set",
            None,
            None,
            {"before": None, "after": RULE},
            "rollback rule: none → window_seconds 300 s, min_requests 50, max_error_rate 0.05",
        ),
        ("activation_requested", 3, "live", {"before": 2}, "version 3 awaits approval"),
        (
            "split_ended",
            None,
            "live",
            {"before": {"4": 10.0}, "after": {}, "reason": "alias_moved"},
            "split of live: version 4 with 10 % → none because the alias moved",
        ),
        (
            "split_ended",
            None,
            "live",
            {"before": {"4": 10.0}, "after": {}, "reason": "asked"},
            "split of live: version 4 with 10 % → none",
        ),
        (
            "version_deleted",
            3,
            None,
            {"aliases": ["prod"], "restorable": True},
            "version 3 deleted, with the aliases prod",
        ),
        ("version_deleted", 3, None, {"aliases": []}, "version 3 deleted for good"),
        ("version_restored", 3, None, {"aliases": []}, "version 3 restored"),
        ("version_purged", 3, None, {}, "version 3 removed for good"),
        (
            "adapter_deleted",
            None,
            None,
            {"versions": [1, 3], "restorable": True},
            "adapter deleted, with its versions 1, 3",
        ),
        ("adapter_deleted", None, None, {"versions": [1]}, "adapter deleted for good, with its versions 1"),
        ("marked_ready", 1, None, {"before": "b", "after": "a"}, "marked ready version 1: b → a"),
        ("signed", 1, None, {"signer": "release"}, "version 1 signed by release"),
        ("of_a_newer_server", 1, "live", {"x": 1}, "of a newer server live version 1"),
    ],
)
def test_an_event_is_told_with_the_state_before_and_after(
    what: str, version: int | None, alias: str | None, detail: dict[str, Any], told: str
) -> None:
    document = {"id": 1, "at": "2026-01-02T03:04:05Z", "what": what, "name": "a", "version": version}
    assert sentence(EventEntry.read({**document, "alias": alias, "detail": detail, "who": None})) == told
