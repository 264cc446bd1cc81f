"""The commands that try a version out: its share of a split, its shadow, and the rule that takes it back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from rootstock.adapters.cli.options import URL, Json, Key, Name, Url
from rootstock.adapters.cli.output import connected, fail, tell, tell_pointer
from rootstock.adapters.reference import LIVE, shown

SHARES_HELP = "A version and its percent of the requests, as 4=10. Repeat it for several versions."
Percent = Annotated[float | None, typer.Option(help="The share of live's requests, above 0 and at most 100.")]


def split(
    name: Name,
    shares: Annotated[list[str] | None, typer.Argument(metavar="VERSION=PERCENT", help=SHARES_HELP)] = None,
    alias: Annotated[str, typer.Option(help="The alias to split. A name alone means its alias `live`.")] = LIVE,
    end: Annotated[bool, typer.Option("--end", help="End the split: the alias means one version again.")] = False,
    url: Url = URL,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Let other versions answer shares of an alias's requests.

    The version that the alias points at answers the rest. A new split replaces the old one, and a move of the
    alias ends it. Requests with equal X-Request-Key headers, or else of one key, get the same version.
    """
    if end == bool(shares):
        fail("give the shares as VERSION=PERCENT, or --end to end the split", 2)
    candidates = _shares(shares or ())
    with connected(url, key) as client:
        if end:
            tell_pointer(client.end_split(name, alias), as_json)
            return
        made = client.split(name, candidates, alias)
    lines = [f"version {version} answers {percent:g} %" for version, percent in sorted(made.candidates.items())]
    rest = f"{made.name}@{made.alias} is version {made.version}, which answers the rest"
    tell(made.document, as_json, rest, *lines)


def shadow(
    name: Name,
    version: Annotated[
        int | None, typer.Argument(metavar="[VERSION]", min=1, help="The number of the version.")
    ] = None,
    percent: Percent = None,
    end: Annotated[bool, typer.Option("--end", help="End the shadow.")] = False,
    url: Url = URL,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Let a version compute a share of live's requests too.

    The server compares its answers with live's, and returns none of them. A new shadow replaces the old one.
    """
    if end == (version is not None) or end == (percent is not None):
        fail("give a version and --percent, or --end alone", 2)
    with connected(url, key) as client:
        if version is None or percent is None:
            ended = client.end_shadow(name)
            tell(ended.document, as_json, f"{ended.name} has no shadow")
            return
        found = client.set_shadow(name, version, percent)
    state = found.shadow or {}
    share = f"{state.get('percent'):g} % of live's requests"
    tell(found.document, as_json, f"{found.name}@{state.get('version')} computes {share} too, and answers none")


def rule(
    name: Name,
    max_error_rate: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Largest share of requests that fail by the version's fault."),
    ] = None,
    max_disagreement: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Largest share of answers that differ from the incumbent's."),
    ] = None,
    max_p95_ratio: Annotated[
        float | None,
        typer.Option(min=1, help="Largest p95 of the time to compute, as a multiple of the incumbent's."),
    ] = None,
    window: Annotated[
        float | None,
        typer.Option(min=1, help="Judge the requests of the last so many seconds, at most 86,400. Default: 300."),
    ] = None,
    min_requests: Annotated[
        int | None, typer.Option(min=1, help="Judge once there are so many requests, at most 1,000. Default: 50.")
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the rule.")] = False,
    url: Url = URL,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Set the limits that new versions have to keep, or show them.

    A version that breaks one is taken back: its split or its shadow ends, or `live` moves back. A new rule
    replaces the old one with all its limits. Without options the command shows the rule.
    """
    limits = {
        "max_error_rate": max_error_rate,
        "max_disagreement": max_disagreement,
        "max_p95_ratio": max_p95_ratio,
        "window_seconds": window,
        "min_requests": min_requests,
    }
    given = any(value is not None for value in limits.values())
    if remove and given:
        fail("give limits, or --remove alone", 2)
    with connected(url, key) as client:
        if remove:
            found = client.remove_rule(name)
        else:
            found = client.set_rule(name, **limits) if given else client.rule(name)
    tell(found.document, as_json, f"{found.name}: {_sentence(found.rule)}")


def rollout_lines(adapter: Mapping[str, Any]) -> list[str]:
    """Return the splits, the shadow and the rule of an adapter's document, a line for each that it has."""
    splits = "; ".join(
        f"{alias}: " + ", ".join(f"version {version} with {percent:g} %" for version, percent in shares.items())
        for alias, shares in (adapter.get("splits") or {}).items()
    )
    lines = [f"splits: {splits}"] if splits else []
    if shadow := adapter.get("shadow"):
        lines.append(f"shadow: version {shadow.get('version')} with {shadow.get('percent'):g} %")
    if limits := adapter.get("rule"):
        lines.append(f"rule: {_sentence(limits)}")
    return lines


def _sentence(limits: Mapping[str, Any] | None) -> str:
    if limits is None:
        return "no rollback rule"
    names = ("max_error_rate", "max_disagreement", "max_p95_ratio")
    held = ", ".join(f"{name} {limits[name]:g}" for name in names if limits.get(name) is not None)
    return f"{held}; over {limits['window_seconds']:g} s, from {limits['min_requests']} requests on"


def _shares(given: Sequence[str]) -> dict[int, float]:
    shares: dict[int, float] = {}
    for text in given:
        version, _, percent = text.partition("=")
        try:
            number, share = int(version), float(percent.removesuffix("%"))
        except ValueError:
            fail(f"{shown(text)} is no share; give the version and its percent, as 4=10", 2)
        if number in shares:
            fail(f"version {number} has two shares; give it one", 2)
        shares[number] = share
    return shares
