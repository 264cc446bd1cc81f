"""Looking up one row, or saying precisely what is missing."""

import difflib
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from adapters.errors import AmbiguousDigest, NoLiveVersion, UnknownAdapter, UnknownAlias, UnknownVersion
from adapters.reference import FOUNDATION, LIVE, Reference, is_alias, is_name, is_version, shown
from adapters.registry.records import Resolved
from adapters.registry.tables import AdapterRow, AliasRow, VersionRow

_NEIGHBOURS = 32


def find_adapter(session: Session, name: str) -> AdapterRow:
    """The adapter of that name; else UnknownAdapter with up to three close names."""
    row = session.get(AdapterRow, name) if is_name(name) else None
    if row is not None and row.deleted_at is None:
        return row
    if name == FOUNDATION:
        raise UnknownAdapter(f"{FOUNDATION!r} is the foundation itself and not an adapter in the registry")
    close = difflib.get_close_matches(name, _neighbours(session, name), n=3) if is_name(name) else []
    hint = f"; did you mean {_words(close)}?" if close else "; list the adapters to see their names"
    raise UnknownAdapter(f"no adapter is named {shown(name)}{hint}")


def find_version(session: Session, name: str, number: int) -> VersionRow:
    """That version of that adapter; else UnknownAdapter or UnknownVersion."""
    row = session.get(VersionRow, (name, number)) if is_name(name) and is_version(number) else None
    if row is None:
        find_adapter(session, name)
        raise UnknownVersion(f"adapter {name!r} has no version {shown(number)}; {_versions(session, name)}")
    return row


def find_alias(session: Session, name: str, alias: str) -> AliasRow:
    """That alias of that adapter; else UnknownAdapter, NoLiveVersion or UnknownAlias."""
    row = session.get(AliasRow, (name, alias)) if is_name(name) and is_alias(alias) else None
    if row is not None:
        return row
    find_adapter(session, name)
    if alias == LIVE:
        raise NoLiveVersion(
            f"adapter {name!r} has no live version; point {LIVE!r} at one, or name one as {name}@<version>; "
            f"{_versions(session, name)}"
        )
    others = session.scalars(
        select(AliasRow.alias).where(AliasRow.adapter == name).order_by(AliasRow.alias)
    ).all()
    hint = f"its aliases are {_words(others)}" if others else "it has no aliases"
    raise UnknownAlias(f"adapter {name!r} has no alias {shown(alias)}; {hint}")


def find_target(session: Session, reference: Reference) -> Resolved:
    """The version that `reference` means now; a bare name means `live`."""
    if reference.digest_prefix is not None:
        row = _by_digest(session, reference.name, reference.digest_prefix)
    elif reference.version is not None:
        row = find_version(session, reference.name, reference.version)
    else:
        alias = find_alias(session, reference.name, reference.alias or LIVE)
        row = find_version(session, reference.name, alias.version)
    return Resolved(row.adapter, row.number, row.digest)


def _by_digest(session: Session, name: str, prefix: str) -> VersionRow:
    rows = session.scalars(
        select(VersionRow)
        .where(VersionRow.adapter == name, VersionRow.digest.startswith(f"sha256:{prefix}", autoescape=True))
        .order_by(VersionRow.number)
        .limit(3)
    ).all()
    if not rows:
        find_adapter(session, name)
        raise UnknownVersion(f"adapter {name!r} has no version whose digest begins with sha256:{prefix}")
    if len(rows) > 1:
        raise AmbiguousDigest(
            f"sha256:{prefix} begins the digests of versions {_words([str(row.number) for row in rows])} of "
            f"adapter {name!r}, and perhaps more: give more digits, or a version"
        )
    return rows[0]


def _neighbours(session: Session, name: str) -> list[str]:
    # Comparing against every name would let a stream of wrong names cost seconds of processor time.
    present = select(AdapterRow.name).where(AdapterRow.deleted_at.is_(None)).limit(_NEIGHBOURS)
    after = session.scalars(present.where(AdapterRow.name > name).order_by(AdapterRow.name)).all()
    before = session.scalars(present.where(AdapterRow.name < name).order_by(AdapterRow.name.desc())).all()
    return [*before, *after]


def _versions(session: Session, name: str) -> str:
    newest = session.scalars(
        select(VersionRow.number).where(VersionRow.adapter == name).order_by(VersionRow.number.desc()).limit(4)
    ).all()
    if not newest:
        return "it has no versions"
    last = _words([str(number) for number in reversed(newest[:3])])
    return f"its newest are {last}" if len(newest) > 3 else f"it has {last}"


def _words(items: Sequence[str]) -> str:
    return " or ".join(filter(None, [", ".join(items[:-1]), items[-1]])) if items else ""
