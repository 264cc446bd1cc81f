"""The command `rootstock adapters split`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from rootstock.adapters.cli.options import URL, Json, Key, Name, Url
from rootstock.adapters.cli.output import fail, failures, tell, tell_pointer
from rootstock.adapters.reference import LIVE, shown

SHARES_HELP = "A version and its percent of the requests, as 4=10. Repeat it for several versions."


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
    from rootstock.adapters.client.client import Client

    if end == bool(shares):
        fail("give the shares as VERSION=PERCENT, or --end to end the split", 2)
    candidates = _shares(shares or ())
    with failures(), Client(url, key or None) as client:
        if end:
            tell_pointer(client.end_split(name, alias), as_json)
            return
        made = client.split(name, candidates, alias)
    lines = [f"version {version} answers {percent:g} %" for version, percent in sorted(made.candidates.items())]
    rest = f"{made.name}@{made.alias} is version {made.version}, which answers the rest"
    tell(made.document, as_json, rest, *lines)


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
