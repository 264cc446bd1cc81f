"""Finds one adapter or version, or raises an error that says what is missing."""

import difflib
from collections.abc import Sequence
from typing import NoReturn

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from rootstock.adapters.errors import AmbiguousDigest, NoLiveVersion, UnknownAdapter, UnknownAlias, UnknownVersion
from rootstock.adapters.reference import FOUNDATION, LIVE, Reference, is_name, is_version, shown
from rootstock.adapters.registry.records import Resolution
from rootstock.adapters.registry.sql.tables import AdapterRow, AliasRow, RevisionRow, VersionRow

_NEIGHBOURS = 32

# Built once, and one statement for each look-up, because requests wait for these look-ups.
_MEANT = select(
    select(RevisionRow.number).scalar_subquery(),
    VersionRow.number,
    VersionRow.digest,
    VersionRow.foundation,
    VersionRow.task,
).where(VersionRow.adapter == bindparam("name"))
_BY_NUMBER = _MEANT.where(VersionRow.number == bindparam("number"))
_BY_ALIAS = _MEANT.where(
    AliasRow.adapter == VersionRow.adapter,
    AliasRow.alias == bindparam("alias"),
    AliasRow.version == VersionRow.number,
)


def find_adapter(session: Session, name: str) -> AdapterRow:
    """Return the adapter with that name; else raise UnknownAdapter with up to three similar names."""
    row = session.get(AdapterRow, name) if is_name(name) else None
    if row is not None and row.deleted_at is None:
        return row
    if name == FOUNDATION:
        raise UnknownAdapter(f"{FOUNDATION!r} is the foundation itself, not an adapter in the registry")
    close = difflib.get_close_matches(name, _neighbours(session, name), n=3) if is_name(name) else []
    hint = f"; did you mean {_words(close)}?" if close else "; list the adapters to see their names"
    raise UnknownAdapter(f"no adapter is named {shown(name)}{hint}")


def find_version(session: Session, name: str, number: int) -> VersionRow:
    """Return that version of that adapter; raise UnknownAdapter or UnknownVersion if there is none."""
    row = session.get(VersionRow, (name, number)) if is_name(name) and is_version(number) else None
    if row is None:
        _refuse_version(session, name, number)
    return row


def find_target(session: Session, reference: Reference) -> tuple[Resolution, int]:
    """Return the version that `reference` means now, and the revision at which it was read.

    A name alone means its alias `live`.
    """
    name = reference.name
    if reference.digest_prefix is not None:
        # Read the revision first. Read last, it could include a change that the version's row does not show yet.
        seen = session.scalars(select(RevisionRow.number)).one()
        found = _by_digest(session, name, reference.digest_prefix)
        return Resolution(name, found.number, found.digest, found.foundation, found.task), seen
    if reference.version is not None:
        row = session.execute(_BY_NUMBER, {"name": name, "number": reference.version}).one_or_none()
    else:
        row = session.execute(_BY_ALIAS, {"name": name, "alias": reference.alias or LIVE}).one_or_none()
    if row is None:
        _refuse(session, reference)
    revision, *version = row
    return Resolution(name, *version), revision


def _refuse(session: Session, reference: Reference) -> NoReturn:
    if reference.version is not None:
        _refuse_version(session, reference.name, reference.version)
    name, alias = reference.name, reference.alias or LIVE
    find_adapter(session, name)
    if alias == LIVE:
        raise NoLiveVersion(
            f"adapter {name!r} has no live version; point {LIVE!r} at a version, or use {name}@<version>; "
            f"{_versions(session, name)}"
        )
    others = session.scalars(
        select(AliasRow.alias).where(AliasRow.adapter == name).order_by(AliasRow.alias)
    ).all()
    hint = f"its aliases are {_words(others)}" if others else "it has no aliases"
    raise UnknownAlias(f"adapter {name!r} has no alias {shown(alias)}; {hint}")


def _refuse_version(session: Session, name: str, number: int) -> NoReturn:
    find_adapter(session, name)
    raise UnknownVersion(f"adapter {name!r} has no version {shown(number)}; {_versions(session, name)}")


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
            f"adapter {name!r}, and perhaps of more; give more digits, or a version's number"
        )
    return rows[0]


def _neighbours(session: Session, name: str) -> list[str]:
    # A comparison with every name would let a stream of wrong names take seconds of processor time.
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
