"""The console tells each event in a sentence, with the state before and after."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Route, expect

from tests.console.browsing import Visit

JUDGED = {"reason": "max_disagreement", "measured": 0.4, "limit": 0.1, "requests": 57}
SHADOW = {"version": 4, "percent": 20.0}
RULE = {"window_seconds": 300.0, "min_requests": 50, "max_error_rate": None}
# By sentence: what, version, alias, detail.
EVENTS: dict[str, tuple[str, int | None, str | None, dict[str, Any]]] = {
    "v4 published": ("published", 4, None, {"digest": "sha256:" + "a" * 64}),
    "live: v2 → v4": ("alias_set", 4, "live", {"before": 2, "after": 4}),
    "rolled back to v2 from v4 because of max disagreement (measured 0.4, limit 0.1, requests 57)": (
        "rolled_back",
        2,
        "live",
        {"before": 4, "after": 2, **JUDGED},
    ),
    "split of live: none → v4 10 %, v5 2.5 %": (
        "split_set",
        None,
        "live",
        {"before": {}, "after": {"4": 10.0, "5": 2.5}},
    ),
    "split of prod ended: v4 10 % → none": ("split_ended", None, "prod", {"before": {"4": 10.0}, "after": {}}),
    "shadow: none → v4 20 %": ("shadow_set", 4, None, {"before": None, "after": SHADOW}),
    "shadow ended: v4 20 % → none": ("shadow_ended", 4, None, {"before": SHADOW, "after": None}),
    "rollback rule: none → window seconds 300, min requests 50": (
        "rule_set",
        None,
        None,
        {"before": None, "after": RULE},
    ),
    "rollback rule removed: window seconds 300, min requests 50 → none": (
        "rule_removed",
        None,
        None,
        {"before": RULE, "after": None},
    ),
    "v5 awaits approval": ("activation_requested", 5, "live", {"before": 4, "after": 5}),
    "split of live ended: v4 5 % → none because the alias moved": (
        "split_ended",
        None,
        "live",
        {"before": {"4": 5.0}, "after": {}, "reason": "alias_moved"},
    ),
    "split of live ended: v4 6 % → none": (
        "split_ended",
        None,
        "live",
        {"before": {"4": 6.0}, "after": {}, "reason": "asked"},
    ),
    "v3 deleted, with prod, old": (
        "version_deleted",
        3,
        None,
        {"aliases": ["prod", "old"], "restorable": True},
    ),
    "v3 deleted for good": ("version_deleted", 3, None, {"aliases": []}),
    "v3 restored": ("version_restored", 3, None, {"aliases": []}),
    "v3 removed for good": ("version_purged", 3, None, {}),
    "adapter deleted, with v1, v2": ("adapter_deleted", None, None, {"versions": [1, 2], "restorable": True}),
    "adapter deleted for good, with v3": ("adapter_deleted", None, None, {"versions": [3]}),
    "no longer shared": ("unshared", None, None, {"before": True, "after": False}),
    "constructor live v1": ("constructor", 1, "live", {}),
}


def test_each_event_of_an_adapter_s_life_has_a_sentence(visit: Callable[..., Visit]) -> None:
    events = [
        {"id": i, "at": "2026-01-02T03:04:05Z", "what": what, "name": "mood", "who": f"acme/key{i}"}
        | {"version": version, "alias": alias, "detail": detail}
        for i, (what, version, alias, detail) in enumerate(EVENTS.values())
    ]
    here = visit()
    body = json.dumps({"events": events, "next": None})

    def answer(route: Route) -> None:
        route.fulfill(status=200, content_type="application/json", body=body)

    here.page.route("**/v1/events?*", answer)
    page = here.open("/#/events")
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(len(EVENTS))
    for i, sentence in enumerate(EVENTS):
        expect(rows.nth(i).get_by_role("cell", name=sentence, exact=True)).to_be_visible()
        expect(rows.nth(i)).to_contain_text(f"acme/key{i}")
