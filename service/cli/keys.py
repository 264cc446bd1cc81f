"""The `rootstock keys` commands: on a home without a server, or on a server over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rootstock.adapters.cli.options import Json, examples
from rootstock.adapters.cli.output import fail, failures, table, tell
from rootstock.adapters.reference import DEFAULT_TENANT
from rootstock.service.cli.durations import length_of_time, point_of_time

if TYPE_CHECKING:
    from rootstock.service.cli.key_places import KeyPlace

_PROGRAM = "rootstock keys"
_LIMITS = ("requests_per_minute", "tokens_per_minute", "stored_mb")
_COLUMNS = ("id", "tenant", "role", "state", "label", "created_at", "expires_at", *_LIMITS)

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, suggest_commands=False)

Home = Annotated[
    Path | None,
    typer.Option(
        "--home",
        help="The home folder of the server whose keys are meant. Default: the value of ROOTSTOCK_HOME, else "
        "~/.rootstock.",
        show_default=False,
    ),
]
Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar="ROOTSTOCK_URL",
        help="The address of the server whose keys are meant, in place of a home.",
    ),
]
Key = Annotated[
    str | None,
    typer.Option("--key", envvar="ROOTSTOCK_ADMIN_KEY", help="With --url: an admin key, sent as a bearer token."),
]
Id = Annotated[str, typer.Argument(metavar="ID", help="The key's id: the 16 digits after rsk_.")]
Expires = Annotated[
    str | None,
    typer.Option(
        "--expires",
        metavar="TIME",
        help="When the new key ends: a length such as 90d, 12h or 30m, or a date or time in UTC. Default: never.",
        show_default=False,
    ),
]
Requests = Annotated[
    int | None,
    typer.Option("--requests-per-minute", min=1, help="The most requests a minute. Default: no limit."),
]
Tokens = Annotated[
    int | None, typer.Option("--tokens-per-minute", min=1, help="The most tokens a minute. Default: no limit.")
]
Stored = Annotated[
    int | None,
    typer.Option(
        "--stored-mb", min=1, help="The most MiB that the tenant may store after an upload. Default: no limit."
    ),
]


@app.callback(
    epilog=examples(
        "rootstock keys create --role admin",
        "rootstock keys create --url https://models.example.com --tenant acme --role predict --expires 90d",
    )
)
def group() -> None:
    """Create, list, rotate and revoke the keys of a server, and set the quotas of tenants.

    Without --url the commands work on a home folder. A server that uses the home need not stop: it sees a change
    within a second.

    Exit codes: 1 if the server refused the request or cannot be reached; 2 for wrong usage.
    """


@app.command(
    epilog=examples(
        "rootstock keys create --role admin",
        "rootstock keys create --tenant acme --role predict --expires 90d --requests-per-minute 600",
    )
)
def create(
    role: Annotated[
        str,
        typer.Option(
            metavar="predict|publish|admin",
            help="The calls that the key allows; each role adds to the one before.",
        ),
    ],
    tenant: Annotated[str, typer.Option(help="The tenant that the key is for.")] = DEFAULT_TENANT,
    expires: Expires = None,
    label: Annotated[str, typer.Option(help="A note on who or what uses the key.")] = "",
    requests: Requests = None,
    tokens: Tokens = None,
    stored_mb: Stored = None,
    home: Home = None,
    url: Url = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Create a key, and print it once.

    Only a hash of the key is kept: it can never be shown again.
    """
    with _place(home, url, key) as place:
        expires_at = None if expires is None else point_of_time(expires, datetime.now(UTC))
        limits = {"requests_per_minute": requests, "tokens_per_minute": tokens, "stored_mb": stored_mb}
        _tell_new(place.create(tenant, role, label, expires_at, limits), as_json)
        if place.offline and (tenant, role) != (DEFAULT_TENANT, "admin"):
            typer.echo(
                f"{_PROGRAM}: once a key exists, the server requires one for every call; to manage keys over "
                "HTTP, make one with --role admin too",
                err=True,
            )


@app.command(
    "list",
    epilog=examples("rootstock keys list", "rootstock keys list --tenant acme --json"),
)
def list_all(
    tenant: Annotated[
        str | None, typer.Option(help="The tenant whose keys are listed. Default: all.", show_default=False)
    ] = None,
    home: Home = None,
    url: Url = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """List the keys with their states, without secrets."""
    with _place(home, url, key) as place:
        keys = place.list(tenant)
    tell({"keys": keys}, as_json, table(_COLUMNS, map(_row, keys)) if keys else "no keys yet")


@app.command(
    epilog=examples(
        "rootstock keys rotate 0123456789abcdef --overlap 1h",
        "rootstock keys rotate 0123456789abcdef --overlap 0s",
    )
)
def rotate(
    id: Id,
    overlap: Annotated[
        str, typer.Option(metavar="TIME", help="How long the old key stays good, such as 30m, 1h or 7d.")
    ] = "1h",
    expires: Expires = None,
    home: Home = None,
    url: Url = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Create a key in place of another one.

    The new key has the tenant, the role, the label and the quotas of the old one. Without --expires it lives as
    long as the old one was to live.
    """
    with _place(home, url, key) as place:
        expires_at = None if expires is None else point_of_time(expires, datetime.now(UTC))
        _tell_new(place.rotate(id, length_of_time(overlap), expires_at), as_json)


@app.command(epilog=examples("rootstock keys revoke 0123456789abcdef"))
def revoke(id: Id, home: Home = None, url: Url = None, key: Key = None, as_json: Json = False) -> None:
    """Revoke a key, at once and for ever."""
    with _place(home, url, key) as place:
        place.revoke(id)
    tell({"id": id, "revoked": True}, as_json, f"the key {id} is revoked")


@app.command(
    epilog=examples(
        "rootstock keys quota acme", "rootstock keys quota acme --requests-per-minute 6000 --stored-mb 1024"
    )
)
def quota(
    tenant: Annotated[str, typer.Argument(metavar="TENANT", help="The tenant, whose keys share the quota.")],
    requests: Requests = None,
    tokens: Tokens = None,
    stored_mb: Stored = None,
    no_limit: Annotated[bool, typer.Option("--no-limit", help="Remove all limits of the tenant.")] = False,
    home: Home = None,
    url: Url = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Show or set the quota that all keys of a tenant share.

    Without a limit it shows the quota. With one or more it sets the whole quota: a limit that is left out does
    not exist afterwards.
    """
    limits = {"requests_per_minute": requests, "tokens_per_minute": tokens, "stored_mb": stored_mb}
    given = any(limit is not None for limit in limits.values())
    if given and no_limit:
        fail("--no-limit stands beside a limit; give one of the two", 2, _PROGRAM)
    with _place(home, url, key) as place:
        document = place.set_quota(tenant, limits) if given or no_limit else place.quota(tenant)
    said = ", ".join(f"{name} {document[name]}" for name in limits if document[name] is not None)
    tell(document, as_json, f"{tenant}: {said or 'no limits'}; {document['stored_bytes']} bytes stored")


def _tell_new(document: Mapping[str, Any], as_json: bool) -> None:
    """Print a new key. Its text alone is on stdout, for scripts."""
    tell(document, as_json, str(document["key"]))
    ends = document["expires_at"] or "never"
    typer.echo(
        f"{_PROGRAM}: key {document['id']} of the tenant {document['tenant']}, role {document['role']}, expires "
        f"{ends}. Keep it now: it is not shown again.",
        err=True,
    )


def _row(key: Mapping[str, Any]) -> dict[str, Any]:
    times = ("created_at", "expires_at")
    return {**key, **{name: key[name] and str(key[name])[:16] for name in times}, "label": key["label"] or None}


@contextmanager
def _place(home: Path | None, url: str | None, key: str | None) -> Iterator[KeyPlace]:
    """Yield what keeps the keys: the server at `url`, else the home. A home on the command line goes first."""
    from rootstock.service.cli.key_places import home_keys, server_keys

    with failures(_PROGRAM):
        opened: Callable[[], Any] = (
            (lambda: server_keys(url, key)) if url and home is None else (lambda: home_keys(home))
        )
        with opened() as place:
            yield place
