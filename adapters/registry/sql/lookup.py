"""Finds the version that a reference means, or raises an error that says what is missing."""

from dataclasses import replace
from typing import Any, NoReturn

from sqlalchemy import Select, and_, bindparam, select
from sqlalchemy.orm import Session, aliased

from rootstock.adapters.errors import AmbiguousDigest, NoLiveVersion, UnknownAlias, UnknownVersion
from rootstock.adapters.reference import LIVE, Reference, is_version, shown
from rootstock.adapters.registry.records import Resolution, SplitCandidate, Viewer
from rootstock.adapters.registry.sql.tables import AdapterRow, AliasRow, RevisionRow, SplitRow, VersionRow
from rootstock.adapters.registry.sql.visibility import candidates, find_adapter, named, words

# The revision, then a version's number, digest, foundation and task, then a candidate's with its percent.
_Meant = Select[*tuple[Any, ...]]
_Candidate = aliased(VersionRow)


def _for_all_and_shared(query: _Meant) -> tuple[_Meant, _Meant]:
    """Return a look-up in any adapter, and the same in one that is shared."""
    return query, query.where(AdapterRow.name == VersionRow.adapter, AdapterRow.shared)


# Built once, and one statement for each look-up, because requests wait for these look-ups.
_MEANT = select(
    select(RevisionRow.number).scalar_subquery(),
    VersionRow.number,
    VersionRow.digest,
    VersionRow.foundation,
    VersionRow.task,
).where(VersionRow.adapter == bindparam("name"))
_BY_NUMBER = _for_all_and_shared(_MEANT.where(VersionRow.number == bindparam("number")))
# A row for each candidate of the alias's split, or one row. A program without splits may have deleted the version
# of a candidate, or moved the alias to it; then it is no candidate.
_BY_ALIAS = _for_all_and_shared(
    _MEANT.add_columns(
        _Candidate.number, _Candidate.digest, _Candidate.foundation, _Candidate.task, SplitRow.percent
    )
    .select_from(AliasRow)
    .join(VersionRow, and_(VersionRow.adapter == AliasRow.adapter, VersionRow.number == AliasRow.version))
    .outerjoin(
        SplitRow,
        and_(
            SplitRow.adapter == AliasRow.adapter,
            SplitRow.alias == AliasRow.alias,
            SplitRow.version != AliasRow.version,
        ),
    )
    .outerjoin(_Candidate, and_(_Candidate.adapter == SplitRow.adapter, _Candidate.number == SplitRow.version))
    .where(AliasRow.alias == bindparam("alias"))
    .order_by(SplitRow.version)
)


def find_version(session: Session, adapter: AdapterRow, number: int, viewer: Viewer | None = None) -> VersionRow:
    """Return that version of that adapter; raise UnknownVersion if there is none."""
    row = session.get(VersionRow, (adapter.name, number)) if is_version(number) else None
    if row is None:
        _refuse_version(session, adapter, number, viewer)
    return row


def find_alias(session: Session, adapter: AdapterRow, alias: str, viewer: Viewer | None = None) -> AliasRow:
    """Return that alias of that adapter; raise UnknownAlias or NoLiveVersion if it points at nothing."""
    row = session.get(AliasRow, (adapter.name, alias))
    if row is None:
        _refuse_alias(session, adapter, alias, viewer)
    return row


def find_target(session: Session, reference: Reference, viewer: Viewer | None = None) -> tuple[Resolution, int]:
    """Return the version that `reference` means now to a viewer, and the revision at which it was read.

    A name alone means its alias `live`.
    """
    if reference.digest_prefix is not None:
        # Read the revision first. Read last, it could include a change that the version's row does not show yet.
        seen = session.scalars(select(RevisionRow.number)).one()
        adapter = find_adapter(session, reference.path, viewer)
        found = _by_digest(session, adapter, reference.digest_prefix, viewer)
        return _resolution(adapter.name, viewer, found.number, found.digest, found.foundation, found.task), seen
    queries = _BY_ALIAS if reference.version is None else _BY_NUMBER
    chosen = {"alias": reference.alias or LIVE} if reference.version is None else {"number": reference.version}
    for stored, must_be_shared in candidates(reference.owner, reference.name, viewer):
        rows = session.execute(queries[must_be_shared], {"name": stored, **chosen}).all()
        if rows:
            revision, *version = rows[0][:5]
            resolution = _resolution(stored, viewer, *version)
            if reference.version is None:
                others = tuple(SplitCandidate(*row[5:]) for row in rows if row[5] is not None)
                resolution = replace(resolution, alias=reference.alias or LIVE, candidates=others)
            return resolution, revision
        # An adapter that has no such version hides one of the same name that another tenant shares.
        if not must_be_shared and _exists(session, stored):
            break
    _refuse(session, reference, viewer)


def _resolution(
    stored: str, viewer: Viewer | None, number: int, digest: str, foundation: str | None, task: str
) -> Resolution:
    return Resolution(named(stored, viewer), number, digest, foundation, task, stored)


def _exists(session: Session, stored: str) -> bool:
    row = session.get(AdapterRow, stored)
    return row is not None and row.deleted_at is None


def _refuse(session: Session, reference: Reference, viewer: Viewer | None) -> NoReturn:
    adapter = find_adapter(session, reference.path, viewer)
    if reference.version is not None:
        _refuse_version(session, adapter, reference.version, viewer)
    _refuse_alias(session, adapter, reference.alias or LIVE, viewer)


def _refuse_alias(session: Session, adapter: AdapterRow, alias: str, viewer: Viewer | None) -> NoReturn:
    name = named(adapter.name, viewer)
    if alias == LIVE:
        raise NoLiveVersion(
            f"adapter {name!r} has no live version; point {LIVE!r} at a version, or use {name}@<version>; "
            f"{_versions(session, adapter)}"
        )
    others = session.scalars(
        select(AliasRow.alias).where(AliasRow.adapter == adapter.name).order_by(AliasRow.alias)
    ).all()
    hint = f"its aliases are {words(others)}" if others else "it has no aliases"
    raise UnknownAlias(f"adapter {name!r} has no alias {shown(alias)}; {hint}")


def _refuse_version(session: Session, adapter: AdapterRow, number: int, viewer: Viewer | None) -> NoReturn:
    name = named(adapter.name, viewer)
    raise UnknownVersion(f"adapter {name!r} has no version {shown(number)}; {_versions(session, adapter)}")


def _by_digest(session: Session, adapter: AdapterRow, prefix: str, viewer: Viewer | None) -> VersionRow:
    start = VersionRow.digest.startswith(f"sha256:{prefix}", autoescape=True)
    rows = session.scalars(
        select(VersionRow).where(VersionRow.adapter == adapter.name, start).order_by(VersionRow.number).limit(3)
    ).all()
    name = named(adapter.name, viewer)
    if not rows:
        raise UnknownVersion(f"adapter {name!r} has no version whose digest begins with sha256:{prefix}")
    if len(rows) > 1:
        raise AmbiguousDigest(
            f"sha256:{prefix} begins the digests of versions {words([str(row.number) for row in rows])} of "
            f"adapter {name!r}, and perhaps of more; give more digits, or a version's number"
        )
    return rows[0]


def _versions(session: Session, adapter: AdapterRow) -> str:
    newest = session.scalars(
        select(VersionRow.number)
        .where(VersionRow.adapter == adapter.name)
        .order_by(VersionRow.number.desc())
        .limit(4)
    ).all()
    if not newest:
        return "it has no versions"
    last = words([str(number) for number in reversed(newest[:3])])
    return f"its newest are {last}" if len(newest) > 3 else f"it has {last}"
